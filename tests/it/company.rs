//! An account that shows another company than before: strangers are not mirrored.

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options};
use rosterd::store::deletions::{Decision, Selection};
use rosterd::sync::cycle::CycleError;
use rosterd::sync::report::Report;
use rosterd::sync::schedule::Mode;

use crate::scene::Scene;
use crate::world::World;

/// Sixty people on a hundred and twenty places, long in the company.
async fn company() -> World {
    let mut world = World::of(Company::seeded(5, 60, 120), Options::default()).await;
    world.cycle().await;
    world.news().await;
    world.pass(TimeDelta::minutes(5));
    world.cycle().await;
    world
}

fn stranger() -> Company {
    Company::seeded_elsewhere(6, 60, 120).with_name("Another Works")
}

#[track_caller]
fn expect_other_company(report: &Report) {
    let error = report.outcome.as_ref().unwrap_err();
    assert!(matches!(error, CycleError::OtherCompany { absent: 59, live: 60, .. }), "{error:?}");
    assert!(error.is_credentials());
}

#[tokio::test]
async fn another_company_with_other_users_fails_the_cycle_and_nothing_is_stored() {
    let mut world = company().await;
    let (first, marks) = (world.sim.replace_company(stranger()), world.watermarks().await);
    expect_other_company(&world.try_cycle_in(Mode::Full).await);
    for _ in 0..2 {
        let report = world.try_cycle().await;
        expect_other_company(&report);
        assert_eq!(report.mode, Mode::Full);
    }
    assert!(world.headlines().await.is_empty());
    assert_eq!(world.watermarks().await, marks);
    assert_eq!(world.held().await.len(), 59);
    assert!(world.held().await.iter().all(|line| line.starts_with("guard users ")));

    world.sim.replace_company(first);
    world.cycle().await;
    assert!(world.headlines().await.is_empty(), "nothing that came back has an event");
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
}

/// An incremental read would show those of them who were edited a moment ago, or whose assignments were.
#[tokio::test]
async fn new_users_of_another_company_are_not_stored_by_an_incremental_read_either() {
    for of_an_assignment in [false, true] {
        let mut world = company().await;
        world.rules.count_probe = false;
        world.sim.replace_company(stranger());
        if of_an_assignment {
            let owner = world.sim.token_owner();
            let places = world.sim.assignments_json();
            let place = places.iter().find(|place| place["user"]["id"] != owner.0).unwrap();
            let id = place["id"].as_i64().unwrap();
            world.sim.edit_assignment(
                *world.sim.assignment_ids().iter().find(|place| place.0 == id).unwrap(),
                |_| {},
            );
        } else {
            world.sim.edit_user(world.sim.user_ids()[30], |_| {});
        }
        let report = world.try_cycle().await;
        expect_other_company(&report);
        assert!(world.headlines().await.is_empty());
    }
}

#[tokio::test]
async fn renamed_company_with_the_same_users_is_read_on() {
    let mut world = company().await;
    let moved = Fault::field("base_uri", "https://elsewhere.harvest.example.com").on("/company");
    world.sim.inject(moved.forever());
    let user = world.sim.user_ids()[30];
    world.sim.delete_user(user);
    world.sim.hire("Nina", "New");
    world.cycle().await;
    let news = world.headlines().await;
    assert_eq!(news.iter().filter(|line| line.starts_with("user.created ")).count(), 1);
    let address: String = sqlx::query_scalar("SELECT base_uri FROM roster.accounts")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(address, "https://elsewhere.harvest.example.com");
    world.full_cycle().await;
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn accepted_deletions_let_the_new_company_in() {
    let mut world = company().await;
    world.sim.replace_company(stranger());
    expect_other_company(&world.try_cycle_in(Mode::Full).await);
    world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    world.cycle().await;
    world.cycle().await;
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn command_that_meets_another_company_exits_77_and_says_what_to_do() {
    let scene = Scene::new().await;
    scene.program().call(&["sync"]).await.expect(0);
    scene.sim.replace_company(Company::seeded_elsewhere(6, 20, 40).with_name("Another Works"));
    let user = scene.sim.user_ids()[7].to_string();
    for arguments in
        [&["sync", "--full", "--dry-run"][..], &["verify"], &["sync", "--full"], &["sync", "--user", &user]]
    {
        let said = scene.program().call(arguments).await.expect(77).sentence();
        for words in ["another company", "19 of the mirror's 20 users", "deletions accept"] {
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
    }
}
