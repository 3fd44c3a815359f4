//! Deletions at Harvest: rosterd mirrors them within one poll, and only after it confirms them by id.

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, Paging, UserId};
use rosterd::sync::error::CycleError;
use rosterd::sync::report::CycleMode;

use crate::world::World;

/// A mirror of 100 users and 300 assignments.
pub async fn mirrored_company() -> World {
    let mut world = World::of(Company::seeded(5, 100, 300), Options::default()).await;
    world.cycle().await;
    world.news().await;
    world.asked();
    world
}

/// Adds a user with ten assignments, none of them recently created.
async fn hire_with_ten_assignments(world: &mut World) -> UserId {
    let user = world.sim.create_user("Bea", "Busy");
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
async fn user_deletion_is_mirrored_within_one_poll() {
    let mut world = mirrored_company().await;
    let user = hire_with_ten_assignments(&mut world).await;
    let row = world.user(user).await;
    world.sim.delete_user(user);
    let report = world.cycle().await;
    assert_eq!(report.mode, CycleMode::Full, "the count differs by one");
    assert_eq!((report.users.deleted, report.assignments.deleted), (1, 10));
    let news = world.news().await;
    assert_eq!(news[0].r#type, "user.deleted");
    assert_eq!(news.iter().filter(|event| event.r#type == "user_assignment.deleted").count(), 10);
    assert_eq!(news[0].payload["after"], serde_json::Value::Null);
    assert_eq!(news[0].payload["before"]["last_name"], "Busy");
    let tombstone = world.user(user).await;
    assert_eq!(tombstone["version"].as_i64(), row["version"].as_i64().map(|version| version + 1));
    assert_eq!((&tombstone["is_active"], &tombstone["email"]), (&false.into(), &row["email"]));
    let requests = world.asked().iter().filter(|path| path.contains(&user.to_string())).count();
    assert_eq!(requests, 1, "the 404 of the user confirms the user's assignments too");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
}

#[tokio::test]
async fn assignment_and_project_deletions_are_mirrored_within_one_poll() {
    for paging in [Paging::Cursor, Paging::Number] {
        let options = Options { paging, max_per_page: 100, ..Options::default() };
        let mut world = World::of(Company::seeded(6, 100, 300), options).await;
        world.cycle().await;
        world.news().await;
        let assignments = world.sim.assignment_ids();
        for assignment in [assignments[3], assignments[150], assignments[299]] {
            world.sim.delete_assignment(assignment);
        }
        assert_eq!(world.cycle().await.assignments.deleted, 3);
        let project = world.sim.project_ids()[1];
        world.asked();
        world.sim.delete_project(project);
        assert!(
            world.cycle().await.assignments.deleted > 5,
            "more than the limit of separately confirmed deletions"
        );
        let requests = world.asked().iter().filter(|path| path.contains("/projects/")).count();
        assert_eq!(requests, 1, "the 404 of the project confirms its assignments too");
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
    }
}

#[tokio::test]
async fn deleted_user_who_returns_is_created_again() {
    let mut world = mirrored_company().await;
    let user = world.sim.user_ids()[7];
    world.sim.inject(Fault::hide_records([user.0]).on("/users?").forever());
    world.sim.inject(Fault::refusal(404).on(format!("/users/{user}")).forever());
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user.deleted {user}")]);
    world.sim.clear_faults();
    assert_eq!(world.cycle().await.mode, CycleMode::Full, "Harvest has one user more than the mirror");
    let event = world.only_event().await;
    assert_eq!((event.r#type.as_str(), event.version), ("user.created", 3));
    assert!(event.payload["before"].is_null());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// A list may omit a user; every response to the request by id except Harvest's own 404 keeps the user.
#[tokio::test]
async fn user_absent_from_the_list_is_kept_without_harvests_own_404() {
    let answers: [(&str, Option<Fault>); 5] = [
        ("200 with the user", None),
        ("403", Some(Fault::refusal(403))),
        ("a 404 with HTML", Some(Fault::html(404))),
        ("500", Some(Fault::html(500))),
        ("a connection reset", Some(Fault::reset())),
    ];
    for (case, fault) in answers {
        let mut world = mirrored_company().await;
        let user = world.sim.user_ids()[7];
        world.sim.inject(Fault::hide_records([user.0]).on("/users?").forever());
        if let Some(fault) = fault {
            world.sim.inject(fault.on(format!("/users/{user}")).forever());
        }
        for _ in 0..2 {
            world.cycle().await;
        }
        assert!(world.headlines().await.is_empty(), "{case}");
        assert!(world.held().await.is_empty(), "{case}");
        world.expect_mirror_equals_source().await;
        // An earlier confirmation that the user exists does not prevent a later deletion.
        world.sim.clear_faults();
        world.cycle().await;
        world.sim.delete_user(user);
        assert_eq!(world.cycle().await.users.deleted, 1, "{case}");
    }
}

#[tokio::test]
async fn recently_created_user_needs_a_second_404_a_poll_interval_later() {
    let mut world = mirrored_company().await;
    let recent = world.sim.create_user("Rhea", "Recent");
    world.cycle().await;
    world.news().await;
    world.sim.delete_user(recent);
    world.cycle().await;
    assert!(world.headlines().await.is_empty());
    assert_eq!(world.count("missed_records").await, 1);
    // By the database's clock, less than a poll interval has passed.
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    world.full_cycle().await;
    assert!(world.headlines().await.is_empty());
    world.again_after = TimeDelta::zero();
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    assert_eq!(world.headlines().await, [format!("user.deleted {recent}")]);
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_mirror_equals_source().await;
}

/// If a request by id fails, rosterd repeats it with the next polls, then waits for the next full read.
#[tokio::test]
async fn failed_confirmation_is_repeated_for_a_few_polls_only() {
    let mut world = mirrored_company().await;
    let user = world.sim.user_ids()[7];
    world.sim.delete_user(user);
    world.sim.inject(Fault::html(500).on(format!("/users/{user}")).times(4));
    assert_eq!(world.cycle().await.users.deleted, 0);
    assert_eq!(world.cycle().await.users.deleted, 1, "the error was temporary");
    let other = world.sim.user_ids()[8];
    world.sim.inject(Fault::hide_records([other.0]).on("/users?").forever());
    world.sim.inject(Fault::reset().on(format!("/users/{other}")).forever());
    let mut full_reads = 0;
    while world.cycle().await.mode == CycleMode::Full {
        full_reads += 1;
        assert!(full_reads < 9, "each poll starts a full read");
    }
    assert!(full_reads > 1);
}

/// A user who is created by mistake and deleted a minute later needs no review.
#[tokio::test]
async fn assignments_of_a_recently_created_user_are_deleted_with_the_user() {
    let mut world = mirrored_company().await;
    let recent = world.sim.create_user("Rhea", "Recent");
    for project in world.sim.project_ids().into_iter().cycle().take(10) {
        world.sim.assign(recent, project);
    }
    world.cycle().await;
    world.news().await;
    world.sim.delete_user(recent);
    world.cycle().await;
    assert!(world.headlines().await.is_empty() && world.held().await.is_empty());
    assert_eq!(world.count("missed_records").await, 11);
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    world.again_after = TimeDelta::zero();
    let report = world.cycle().await;
    assert_eq!((report.users.deleted, report.assignments.deleted), (1, 10));
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// A lagging replica at Harvest can omit a new user for a moment. rosterd requests none of the user's assignments.
#[tokio::test]
async fn assignments_of_a_user_who_returns_are_no_longer_recorded_as_absent() {
    let mut world = mirrored_company().await;
    let recent = world.sim.create_user("Rhea", "Recent");
    let assignment = world.sim.assign(recent, world.sim.project_ids()[0]);
    world.cycle().await;
    world.sim.inject(Fault::hide_records([recent.0]).on("/users?").forever());
    world.sim.inject(Fault::hide_records([assignment.0]).on("/user_assignments?").forever());
    world.sim.inject(Fault::refusal(404).on(format!("/users/{recent}")).forever());
    world.cycle().await;
    assert_eq!(world.count("missed_records").await, 2);
    world.sim.clear_faults();
    world.full_cycle().await;
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn empty_list_of_assignments_holds_all_deletions_and_fails_the_cycle() {
    let mut world = mirrored_company().await;
    let watermarks = world.watermarks().await;
    world.sim.inject(Fault::empty_list().on("/user_assignments").forever());
    for held in [300, 0] {
        let report = world.try_cycle().await;
        assert!(matches!(report.outcome, Err(CycleError::EmptyAssignmentList)), "{:?}", report.outcome);
        assert_eq!((report.mode, report.assignments.held), (CycleMode::Full, held));
    }
    assert_eq!(world.watermarks().await[0], watermarks[0]);
    assert!(world.held().await.iter().all(|line| line.starts_with("empty_list user_assignments ")));
    assert!(world.headlines().await.is_empty());
    world.sim.clear_faults();
    world.cycle().await;
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn token_that_lost_rights_deletes_no_user_and_fails_the_cycle() {
    let mut world = mirrored_company().await;
    let owner = world.sim.token_owner();
    world.sim.demote_token();
    let watermarks = world.watermarks().await;
    for _ in 0..2 {
        let report = world.try_cycle().await;
        assert!(
            matches!(report.outcome, Err(CycleError::LostAdministrator { user, .. }) if user == owner.0),
            "{:?}",
            report.outcome
        );
        assert_eq!(report.mode, CycleMode::Full);
    }
    assert_eq!(world.watermarks().await, watermarks, "the watermark moved");
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
    assert!(world.held().await.iter().all(|line| line.starts_with("not_administrator ")));
    assert!(!world.held().await.is_empty());
    // Changes of users whom the token cannot see are stored after the token regains its rights.
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

/// The token loses its rights after the list; Harvest then answers 404 for users whom a manager may not see.
#[tokio::test]
async fn token_that_loses_rights_during_confirmation_deletes_no_user() {
    let mut world = mirrored_company().await;
    let user = world.sim.user_ids()[9];
    world.sim.inject(Fault::hide_records([user.0]).on("/users?").forever());
    let sim = world.sim.clone();
    world.sim.inject(Fault::run_before_response(move || sim.demote_token()).on(format!("/users/{user}")));
    world.sim.inject(Fault::refusal(404).on(format!("/users/{user}")).forever());
    let report = world.try_cycle().await;
    assert!(matches!(report.outcome, Err(CycleError::LostAdministrator { .. })), "{:?}", report.outcome);
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
    assert_eq!(world.held().await, [format!("not_administrator users {user}")]);
}

#[tokio::test]
async fn token_of_a_non_administrator_mirrors_visible_users_and_deletes_none() {
    let mut world = World::of(Company::seeded(5, 100, 300), Options::default()).await;
    world.sim.demote_token();
    world.cycle().await;
    let visible = world.count("users").await;
    assert!((10..100).contains(&visible), "{visible}");
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    // A teammate who disappears may be deleted or only invisible to this token.
    let owner = world.sim.token_owner();
    let teammates: Vec<UserId> = world.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
    world.sim.set_teammates(owner, &teammates[..4]);
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental, "a smaller total started a full read");
    world.full_cycle().await;
    assert!(!world.held().await.is_empty());
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
}

/// rosterd accepts deletions by a new token only from the token's second cycle on.
#[tokio::test]
async fn token_of_another_administrator_deletes_no_user_in_its_first_cycle() {
    let mut world = mirrored_company().await;
    let (deleted, other) = (world.sim.user_ids()[9], world.sim.user_ids()[10]);
    let another_owner = Fault::edit_records(move |record| {
        record.insert("id".into(), other.0.into());
        record.insert("access_roles".into(), serde_json::json!(["administrator"]));
    });
    world.sim.inject(another_owner.on("/users/me").forever());
    world.sim.delete_user(deleted);
    world.cycle().await;
    assert!(world.headlines().await.iter().all(|line| !line.contains("deleted")));
    assert!(world.held().await.contains(&format!("not_administrator users {deleted}")));
    assert_eq!(world.cycle().await.mode, CycleMode::Full);
    assert!(world.headlines().await.contains(&format!("user.deleted {deleted}")));
    assert!(world.held().await.is_empty());
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
}

#[tokio::test]
async fn read_of_one_user_updates_the_user_and_assignments_at_once() {
    let mut world = mirrored_company().await;
    let user = hire_with_ten_assignments(&mut world).await;
    world.rules.count_probe = false;
    world.sim.edit_user_keeping_updated_at(user, |user| user.weekly_capacity = 72_000);
    let assignment = *world.sim.assignment_ids().last().unwrap();
    world.sim.delete_assignment(assignment);
    let report = world.turn(async |cycle| rosterd::sync::user::read(cycle, user.0, false).await.0).await;
    report.outcome.unwrap();
    assert_eq!(
        world.headlines().await,
        [format!("user.updated {user}"), format!("user_assignment.deleted {assignment}")]
    );
    world.sim.delete_user(user);
    world.turn(async |cycle| rosterd::sync::user::read(cycle, user.0, false).await.0).await.outcome.unwrap();
    assert_eq!(world.headlines().await.len(), 10, "events of the user and of the nine remaining assignments");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
    let mut known = true;
    world
        .turn(async |cycle| {
            let (report, is_known) = rosterd::sync::user::read(cycle, 987_654, false).await;
            known = is_known;
            report
        })
        .await;
    assert!(!known);
}
