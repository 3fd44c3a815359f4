//! Too many deletions at once are held for review; an operator accepts or rejects them.

use harvest_sim::{Fault, UserId};
use rosterd::store::missing::{Decision, Selection};
use rosterd::sync::report::CycleMode;

use crate::deletions::mirrored_company;

#[tokio::test]
async fn too_many_deletions_at_once_are_held_and_other_changes_are_stored() {
    let mut world = mirrored_company().await;
    let (mut users, owner) = (world.sim.user_ids(), world.sim.token_owner());
    users.retain(|user| *user != owner);
    for user in &users[..30] {
        world.sim.delete_user(*user);
    }
    world.sim.rename(users[50], "Still", "Here");
    let report = world.cycle().await;
    assert_eq!(report.users.held, 30);
    assert_eq!(world.headlines().await, [format!("user.updated {}", users[50])]);
    let held = world.held().await;
    assert_eq!(held.iter().filter(|line| line.starts_with("guard users ")).count(), 30);
    let outcome: Vec<String> =
        sqlx::query_scalar("SELECT outcome FROM roster.cycles ORDER BY started_at DESC LIMIT 1")
            .fetch_all(world.store.pool())
            .await
            .unwrap();
    assert_eq!(outcome, ["held"]);
    assert!(!world.asked().iter().any(|path| path.contains(&format!("/users/{}", users[3]))));

    // While the deletions are undecided, no poll becomes a full read, and no full read reports them as new.
    for _ in 0..3 {
        assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    }
    assert_eq!(world.full_cycle().await.held(), 0);

    let decisions =
        world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    assert_eq!(decisions, held.len() as u64);
    let report = world.cycle().await;
    assert_eq!((report.mode, report.users.deleted), (CycleMode::Incremental, 30));
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn rejected_deletions_keep_their_rows_and_returned_records_are_released() {
    let mut world = mirrored_company().await;
    let ids: Vec<i64> = world.sim.user_ids()[20..40].iter().map(|user| user.0).collect();
    world.sim.inject(Fault::hide_records(ids.clone()).on("/users").forever());
    world.cycle().await;
    assert_eq!(world.held().await.len(), 20);
    world.store.decide(&Selection::default(), Decision::Rejected, false, "a test").await.unwrap();
    world.asked();
    world.full_cycle().await;
    world.cycle().await;
    assert!(world.headlines().await.is_empty());
    assert!(!world.asked().iter().any(|path| path.contains(&format!("/users/{}", ids[0]))));
    world.sim.clear_faults();
    world.cycle().await;
    assert!(world.held().await.is_empty(), "Harvest shows the users again");
    world.expect_mirror_equals_source().await;
}

/// An incremental read that shows the record proves that the record exists.
#[tokio::test]
async fn edited_record_is_released_from_the_held_deletions() {
    let mut world = mirrored_company().await;
    let users = world.sim.user_ids()[20..40].to_vec();
    world.sim.inject(Fault::hide_records(users.iter().map(|user| user.0)).on("/users?per_page=").forever());
    world.cycle().await;
    assert_eq!(world.held().await.len(), 20);
    world.sim.clear_faults();
    world.rules.count_probe = false;
    world.sim.rename(users[0], "Here", "Iam");
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    assert_eq!(world.held().await.len(), 19);
}

/// An accepted deletion needs no second 404. Only `--again` changes an earlier rejection.
#[tokio::test]
async fn accepted_deletions_include_recent_records_and_keep_earlier_decisions() {
    let mut world = mirrored_company().await;
    let first: Vec<i64> = world.sim.user_ids()[20..32].iter().map(|user| user.0).collect();
    world.sim.inject(Fault::hide_records(first.clone()).on("/users?per_page=").forever());
    world.cycle().await;
    assert_eq!(
        world.store.decide(&Selection::default(), Decision::Rejected, false, "Monday").await.unwrap(),
        12
    );
    let recent: Vec<UserId> = (0..12).map(|_| world.sim.create_user("Rhys", "Recent")).collect();
    world.cycle().await;
    world.news().await;
    for user in &recent {
        world.sim.delete_user(*user);
    }
    assert_eq!(world.cycle().await.users.held, 12);
    assert_eq!(
        world.store.decide(&Selection::default(), Decision::Accepted, false, "Friday").await.unwrap(),
        12
    );
    assert_eq!(world.cycle().await.users.deleted, 12);
    assert_eq!(world.held().await.len(), 12, "the deletions rejected on Monday");
    assert_eq!(
        world.store.decide(&Selection::default(), Decision::Accepted, true, "Friday").await.unwrap(),
        12
    );
}

#[tokio::test]
async fn accepted_deletions_of_all_assignments_are_carried_out() {
    let mut world = mirrored_company().await;
    for assignment in world.sim.assignment_ids() {
        world.sim.delete_assignment(assignment);
    }
    world.try_cycle().await.outcome.unwrap_err();
    world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    assert_eq!(world.cycle().await.assignments.deleted, 300);
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}
