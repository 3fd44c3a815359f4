//! Who left: noticed within a poll, never invented, held for a person where it is too much to believe.

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, Paging, UserId};
use rosterd::sync::cycle::CycleError;
use rosterd::sync::schedule::Mode;

use crate::world::World;

/// A hundred people on three hundred places.
pub async fn company() -> World {
    let mut world = World::of(Company::seeded(5, 100, 300), Options::default()).await;
    world.cycle().await;
    world.news().await;
    world.asked();
    world
}

/// Somebody with ten places, long in the company.
async fn busy(world: &mut World) -> UserId {
    let user = world.sim.hire("Bea", "Busy");
    for project in world.sim.project_ids().into_iter().cycle().take(10) {
        world.sim.assign(user, project);
    }
    world.cycle().await;
    world.pass(TimeDelta::minutes(11));
    world.cycle().await;
    world.news().await;
    world.asked();
    user
}

#[tokio::test]
async fn one_poll_after_a_deletion_the_mirror_is_right() {
    let mut world = company().await;
    let user = busy(&mut world).await;
    let row = world.user(user).await;
    world.sim.delete_user(user);
    let report = world.cycle().await;
    assert_eq!(report.mode, Mode::Full, "the count was not as it should be");
    assert_eq!((report.users.deleted, report.assignments.deleted), (1, 10));
    let news = world.news().await;
    assert_eq!(news[0].r#type, "user.deleted");
    assert_eq!(news.iter().filter(|event| event.r#type == "user_assignment.deleted").count(), 10);
    assert_eq!(news[0].payload["after"], serde_json::Value::Null);
    assert_eq!(news[0].payload["before"]["last_name"], "Busy");
    let tombstone = world.user(user).await;
    assert_eq!(tombstone["version"].as_i64(), row["version"].as_i64().map(|version| version + 1));
    assert_eq!((&tombstone["is_active"], &tombstone["email"]), (&false.into(), &row["email"]));
    let questions = world.asked().iter().filter(|path| path.contains(&user.to_string())).count();
    assert_eq!(questions, 1, "one question about the parent spares one about each child");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
}

#[tokio::test]
async fn single_places_and_whole_projects_are_noticed_too() {
    for paging in [Paging::Cursor, Paging::Number] {
        let options = Options { paging, max_per_page: 100, ..Options::default() };
        let mut world = World::of(Company::seeded(6, 100, 300), options).await;
        world.cycle().await;
        world.news().await;
        let places = world.sim.assignment_ids();
        for place in [places[3], places[150], places[299]] {
            world.sim.delete_assignment(place);
        }
        assert_eq!(world.cycle().await.assignments.deleted, 3);
        let project = world.sim.project_ids()[1];
        world.asked();
        world.sim.delete_project(project);
        assert!(world.cycle().await.assignments.deleted > 5, "more than the guard lets pass one by one");
        let questions = world.asked().iter().filter(|path| path.contains("/projects/")).count();
        assert_eq!(questions, 1, "one about the project");
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
    }
}

#[tokio::test]
async fn what_comes_back_is_created_again() {
    let mut world = company().await;
    let user = world.sim.user_ids()[7];
    world.sim.inject(Fault::hide([user.0]).on("/users?").forever());
    world.sim.inject(Fault::refusal(404).on(format!("/users/{user}")).forever());
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user.deleted {user}")]);
    world.sim.clear_faults();
    assert_eq!(world.cycle().await.mode, Mode::Full, "one more than there should be");
    let event = world.only_event().await;
    assert_eq!((event.r#type.as_str(), event.version), ("user.created", 3));
    assert!(event.payload["before"].is_null());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// A list may be wrong about anybody; a `GET` by id that says anything but Harvest's own 404 keeps them.
#[tokio::test]
async fn nobody_goes_without_harvests_own_404() {
    let answers: [(&str, Option<Fault>); 5] = [
        ("there", None),
        ("403", Some(Fault::refusal(403))),
        ("a page of HTML", Some(Fault::html(404))),
        ("500", Some(Fault::html(500))),
        ("a reset", Some(Fault::reset())),
    ];
    for (what, fault) in answers {
        let mut world = company().await;
        let user = world.sim.user_ids()[7];
        world.sim.inject(Fault::hide([user.0]).on("/users?").forever());
        if let Some(fault) = fault {
            world.sim.inject(fault.on(format!("/users/{user}")).forever());
        }
        for _ in 0..2 {
            world.cycle().await;
        }
        assert!(world.headlines().await.is_empty(), "{what}");
        assert!(world.held().await.is_empty(), "{what}");
        world.expect_mirror_equals_source().await;
        // That Harvest once showed somebody by id who was not in the list does not keep them for ever.
        world.sim.clear_faults();
        world.cycle().await;
        world.sim.delete_user(user);
        assert_eq!(world.cycle().await.users.deleted, 1, "{what}");
    }
}

#[tokio::test]
async fn the_young_need_a_second_404_a_poll_interval_later() {
    let mut world = company().await;
    let young = world.sim.hire("Yara", "Young");
    world.cycle().await;
    world.news().await;
    world.sim.delete_user(young);
    world.cycle().await;
    assert!(world.headlines().await.is_empty());
    assert_eq!(world.count("missed_records").await, 1);
    // A poll interval has not passed, by the database's clock.
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    world.full_cycle().await;
    assert!(world.headlines().await.is_empty());
    world.again_after = TimeDelta::zero();
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    assert_eq!(world.headlines().await, [format!("user.deleted {young}")]);
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_mirror_equals_source().await;
}

/// One question without an answer is asked again with the next polls, and then left for the next full read.
#[tokio::test]
async fn harvest_in_trouble_delays_a_deletion_and_is_not_asked_for_ever() {
    let mut world = company().await;
    let user = world.sim.user_ids()[7];
    world.sim.delete_user(user);
    world.sim.inject(Fault::html(500).on(format!("/users/{user}")).times(4));
    assert_eq!(world.cycle().await.users.deleted, 0);
    assert_eq!(world.cycle().await.users.deleted, 1, "it was out of order for a moment");
    let other = world.sim.user_ids()[8];
    world.sim.inject(Fault::hide([other.0]).on("/users?").forever());
    world.sim.inject(Fault::reset().on(format!("/users/{other}")).forever());
    let mut full = 0;
    while world.cycle().await.mode == Mode::Full {
        full += 1;
        assert!(full < 9, "it spins");
    }
    assert!(full > 1);
}

/// Hired by mistake, and deleted a minute later with ten places: no case for a person.
#[tokio::test]
async fn the_places_of_somebody_young_wait_with_them() {
    let mut world = company().await;
    let young = world.sim.hire("Yara", "Young");
    for project in world.sim.project_ids().into_iter().cycle().take(10) {
        world.sim.assign(young, project);
    }
    world.cycle().await;
    world.news().await;
    world.sim.delete_user(young);
    world.cycle().await;
    assert!(world.headlines().await.is_empty() && world.held().await.is_empty());
    assert_eq!(world.count("missed_records").await, 11);
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    world.again_after = TimeDelta::zero();
    let report = world.cycle().await;
    assert_eq!((report.users.deleted, report.assignments.deleted), (1, 10));
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// A replica that lags shows somebody new a moment late: their places were never asked for, and are not missed.
#[tokio::test]
async fn the_places_of_somebody_who_is_back_were_never_missed() {
    let mut world = company().await;
    let young = world.sim.hire("Yara", "Young");
    let place = world.sim.assign(young, world.sim.project_ids()[0]);
    world.cycle().await;
    world.sim.inject(Fault::hide([young.0]).on("/users?").forever());
    world.sim.inject(Fault::hide([place.0]).on("/user_assignments?").forever());
    world.sim.inject(Fault::refusal(404).on(format!("/users/{young}")).forever());
    world.cycle().await;
    assert_eq!(world.count("missed_records").await, 2);
    world.sim.clear_faults();
    world.full_cycle().await;
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn an_empty_list_of_assignments_holds_them_all_and_is_no_good_cycle() {
    let mut world = company().await;
    let marks = world.watermarks().await;
    world.sim.inject(Fault::empty_list().on("/user_assignments").forever());
    for held in [300, 0] {
        let report = world.try_cycle().await;
        assert!(matches!(report.outcome, Err(CycleError::NothingThere)), "{:?}", report.outcome);
        assert_eq!((report.mode, report.assignments.held), (Mode::Full, held));
    }
    assert_eq!(world.watermarks().await[0], marks[0]);
    assert!(world.held().await.iter().all(|line| line.starts_with("empty_list user_assignments ")));
    assert!(world.headlines().await.is_empty());
    world.sim.clear_faults();
    world.cycle().await;
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn a_token_that_lost_rights_deletes_nobody_and_is_no_good_cycle() {
    let mut world = company().await;
    let owner = world.sim.token_owner();
    world.sim.demote_token();
    let marks = world.watermarks().await;
    for _ in 0..2 {
        let report = world.try_cycle().await;
        assert!(
            matches!(report.outcome, Err(CycleError::Demoted { user, .. }) if user == owner.0),
            "{:?}",
            report.outcome
        );
        assert_eq!(report.mode, Mode::Full);
    }
    assert_eq!(world.watermarks().await, marks, "the watermark stays");
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
    assert!(world.held().await.iter().all(|line| line.starts_with("not_administrator ")));
    assert!(!world.held().await.is_empty());
    // Whoever was out of sight and changed meanwhile is not lost.
    let hidden: Vec<UserId> = world.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
    for user in hidden {
        world.sim.edit_user(user, |user| user.telephone.push('7'));
    }
    world.pass(TimeDelta::minutes(5));
    world.try_cycle().await.outcome.unwrap_err();
    world.sim.set_token_role("administrator");
    world.cycle().await;
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// Between the list and the questions: whom a manager may not see answers 404 as well.
#[tokio::test]
async fn a_token_that_loses_rights_among_the_questions_deletes_nobody() {
    let mut world = company().await;
    let user = world.sim.user_ids()[9];
    world.sim.inject(Fault::hide([user.0]).on("/users?").forever());
    let sim = world.sim.clone();
    world.sim.inject(Fault::meanwhile(move || sim.demote_token()).on(format!("/users/{user}")));
    world.sim.inject(Fault::refusal(404).on(format!("/users/{user}")).forever());
    let report = world.try_cycle().await;
    assert!(matches!(report.outcome, Err(CycleError::Demoted { .. })), "{:?}", report.outcome);
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
    assert_eq!(world.held().await, [format!("not_administrator users {user}")]);
}

#[tokio::test]
async fn a_token_that_never_was_an_administrators_mirrors_what_it_sees() {
    let sim = Company::seeded(5, 100, 300);
    let mut world = World::of(sim, Options::default()).await;
    world.sim.demote_token();
    world.cycle().await;
    let seen = world.count("users").await;
    assert!((10..100).contains(&seen), "{seen}");
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    // Somebody is no longer among the teammates: that is not for us to judge.
    let owner = world.sim.token_owner();
    let teammates: Vec<UserId> = world.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
    world.sim.set_teammates(owner, &teammates[..4]);
    assert_eq!(world.cycle().await.mode, Mode::Incremental, "a smaller total starts no full read");
    world.full_cycle().await;
    assert!(!world.held().await.is_empty());
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
}

/// Another administrator's token: looked at first, believed with the next cycle.
#[tokio::test]
async fn a_token_of_somebody_else_deletes_nobody_at_first() {
    let mut world = company().await;
    let (gone, other) = (world.sim.user_ids()[9], world.sim.user_ids()[10]);
    let me = Fault::edit_records(move |record| {
        record.insert("id".into(), other.0.into());
        record.insert("access_roles".into(), serde_json::json!(["administrator"]));
    });
    world.sim.inject(me.on("/users/me").forever());
    world.sim.delete_user(gone);
    world.cycle().await;
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
    assert!(world.held().await.contains(&format!("not_administrator users {gone}")));
    assert_eq!(world.cycle().await.mode, Mode::Full);
    assert!(world.headlines().await.contains(&format!("user.deleted {gone}")));
    assert!(world.held().await.is_empty());
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
}

#[tokio::test]
async fn a_person_read_again_is_right_at_once() {
    let mut world = company().await;
    let user = busy(&mut world).await;
    world.rules.count_probe = false;
    world.sim.edit_user_silently(user, |user| user.weekly_capacity = 72_000);
    let place = *world.sim.assignment_ids().last().unwrap();
    world.sim.delete_assignment(place);
    let report = world.turn(async |cycle| cycle.person(user.0, false).await.0).await;
    report.outcome.unwrap();
    assert_eq!(
        world.headlines().await,
        [format!("user.updated {user}"), format!("user_assignment.deleted {place}")]
    );
    world.sim.delete_user(user);
    world.turn(async |cycle| cycle.person(user.0, false).await.0).await.outcome.unwrap();
    assert_eq!(world.headlines().await.len(), 10, "the person and the nine places that were left");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
    let mut known = true;
    world
        .turn(async |cycle| {
            let (report, is_known) = cycle.person(987_654, false).await;
            known = is_known;
            report
        })
        .await;
    assert!(!known);
}
