//! If the account shows another company than before, rosterd does not mirror the users of that company.

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options};
use rosterd::store::missing::{Decision, Selection};
use rosterd::sync::error::CycleError;
use rosterd::sync::report::{CycleMode, CycleReport};

use crate::scene::Scene;
use crate::world::World;

/// A mirror of 60 users and 120 assignments, none of them recently created.
async fn mirrored_company() -> World {
    let mut world = World::of(Company::seeded(5, 60, 120), Options::default()).await;
    world.cycle().await;
    world.news().await;
    world.pass(TimeDelta::minutes(5));
    world.cycle().await;
    world
}

fn another_company() -> Company {
    Company::seeded_with_other_ids(6, 60, 120).with_name("Another Works")
}

#[track_caller]
fn expect_other_company(report: &CycleReport) {
    let error = report.outcome.as_ref().unwrap_err();
    assert!(matches!(error, CycleError::OtherCompany { absent: 59, live: 60, .. }), "{error:?}");
    assert!(error.is_credentials());
}

#[tokio::test]
async fn another_company_with_other_users_fails_the_cycle_and_nothing_is_stored() {
    let mut world = mirrored_company().await;
    let (first, watermarks) = (world.sim.replace_company(another_company()), world.watermarks().await);
    expect_other_company(&world.try_cycle_in(CycleMode::Full).await);
    for _ in 0..2 {
        let report = world.try_cycle().await;
        expect_other_company(&report);
        assert_eq!(report.mode, CycleMode::Full);
    }
    assert!(world.headlines().await.is_empty());
    assert_eq!(world.watermarks().await, watermarks);
    assert_eq!(world.held().await.len(), 59);
    assert!(world.held().await.iter().all(|line| line.starts_with("guard users ")));

    world.sim.replace_company(first);
    world.cycle().await;
    assert!(world.headlines().await.is_empty(), "the returned users have events");
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
}

/// An incremental read shows users of the other company if they or their assignments were edited just now.
#[tokio::test]
async fn incremental_read_of_another_company_stores_no_new_user() {
    for edit_assignment in [false, true] {
        let mut world = mirrored_company().await;
        world.rules.count_probe = false;
        world.sim.replace_company(another_company());
        if edit_assignment {
            let owner = world.sim.token_owner();
            let assignments = world.sim.assignments_json();
            let assignment =
                assignments.iter().find(|assignment| assignment["user"]["id"] != owner.0).unwrap();
            let edited = assignment["id"].as_i64().unwrap();
            let ids = world.sim.assignment_ids();
            world.sim.edit_assignment(*ids.iter().find(|id| id.0 == edited).unwrap(), |_| {});
        } else {
            world.sim.edit_user(world.sim.user_ids()[30], |_| {});
        }
        let report = world.try_cycle().await;
        expect_other_company(&report);
        assert!(world.headlines().await.is_empty());
    }
}

#[tokio::test]
async fn company_with_a_new_address_and_the_same_users_is_still_mirrored() {
    let mut world = mirrored_company().await;
    let new_address = Fault::set_field("base_uri", "https://elsewhere.harvest.example.com").on("/company");
    world.sim.inject(new_address.forever());
    let user = world.sim.user_ids()[30];
    world.sim.delete_user(user);
    world.sim.create_user("Nina", "New");
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
async fn new_company_is_mirrored_after_its_predecessors_deletions_are_accepted() {
    let mut world = mirrored_company().await;
    world.sim.replace_company(another_company());
    expect_other_company(&world.try_cycle_in(CycleMode::Full).await);
    world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    world.cycle().await;
    world.cycle().await;
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn command_for_another_company_exits_77_and_names_the_fix() {
    let scene = Scene::new().await;
    scene.program().call(&["sync"]).await.expect(0);
    scene.sim.replace_company(Company::seeded_with_other_ids(6, 20, 40).with_name("Another Works"));
    let user = scene.sim.user_ids()[7].to_string();
    for arguments in
        [&["sync", "--full", "--dry-run"][..], &["verify"], &["sync", "--full"], &["sync", "--user", &user]]
    {
        let error = scene.program().call(arguments).await.expect(77).sentence();
        for words in ["another company", "19 of the mirror's 20 users", "deletions accept"] {
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }
}
