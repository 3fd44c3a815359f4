//! What is too much to believe waits for a person, and goes or stays as they say.

use harvest_sim::{Fault, UserId};
use rosterd::store::deletions::{Decision, Selection};
use rosterd::sync::schedule::Mode;

use crate::deletions::company;

#[tokio::test]
async fn too_many_at_once_wait_for_a_person_and_all_else_goes_on() {
    let mut world = company().await;
    let (mut people, owner) = (world.sim.user_ids(), world.sim.token_owner());
    people.retain(|user| *user != owner);
    for user in &people[..30] {
        world.sim.delete_user(*user);
    }
    world.sim.rename(people[50], "Still", "Here");
    let report = world.cycle().await;
    assert_eq!(report.users.held, 30);
    assert_eq!(world.headlines().await, [format!("user.updated {}", people[50])]);
    let held = world.held().await;
    assert_eq!(held.iter().filter(|line| line.starts_with("guard users ")).count(), 30);
    let outcome: Vec<String> =
        sqlx::query_scalar("SELECT outcome FROM roster.cycles ORDER BY started_at DESC LIMIT 1")
            .fetch_all(world.store.pool())
            .await
            .unwrap();
    assert_eq!(outcome, ["held"]);
    assert!(!world.asked().iter().any(|path| path.contains(&format!("/users/{}", people[3]))));

    // Nobody decides: that is no reason to read everything again and again, or to say it again.
    for _ in 0..3 {
        assert_eq!(world.cycle().await.mode, Mode::Incremental);
    }
    assert_eq!(world.full_cycle().await.held(), 0);

    let decided =
        world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    assert_eq!(decided, held.len() as u64);
    let report = world.cycle().await;
    assert_eq!((report.mode, report.users.deleted), (Mode::Incremental, 30));
    assert!(world.held().await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn what_a_person_keeps_stays_and_what_is_seen_again_is_released() {
    let mut world = company().await;
    let ids: Vec<i64> = world.sim.user_ids()[20..40].iter().map(|user| user.0).collect();
    world.sim.inject(Fault::hide(ids.clone()).on("/users").forever());
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
    assert!(world.held().await.is_empty(), "they were shown again");
    world.expect_mirror_equals_source().await;
}

/// What is held and then edited is there: even what changed shows that.
#[tokio::test]
async fn an_edit_releases_what_was_held() {
    let mut world = company().await;
    let people = world.sim.user_ids()[20..40].to_vec();
    world.sim.inject(Fault::hide(people.iter().map(|user| user.0)).on("/users?per_page=").forever());
    world.cycle().await;
    assert_eq!(world.held().await.len(), 20);
    world.sim.clear_faults();
    world.rules.count_probe = false;
    world.sim.rename(people[0], "Here", "Iam");
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    assert_eq!(world.held().await.len(), 19);
}

/// A person who accepts has judged: what is young goes with the rest, and what somebody else decided stays decided.
#[tokio::test]
async fn what_is_accepted_goes_however_young_and_no_decision_is_overturned_by_the_way() {
    let mut world = company().await;
    let first: Vec<i64> = world.sim.user_ids()[20..32].iter().map(|user| user.0).collect();
    world.sim.inject(Fault::hide(first.clone()).on("/users?per_page=").forever());
    world.cycle().await;
    assert_eq!(
        world.store.decide(&Selection::default(), Decision::Rejected, false, "Monday").await.unwrap(),
        12
    );
    let young: Vec<UserId> = (0..12).map(|_| world.sim.hire("Yves", "Young")).collect();
    world.cycle().await;
    world.news().await;
    for user in &young {
        world.sim.delete_user(*user);
    }
    assert_eq!(world.cycle().await.users.held, 12);
    assert_eq!(
        world.store.decide(&Selection::default(), Decision::Accepted, false, "Friday").await.unwrap(),
        12
    );
    assert_eq!(world.cycle().await.users.deleted, 12);
    assert_eq!(world.held().await.len(), 12, "Monday's");
    assert_eq!(
        world.store.decide(&Selection::default(), Decision::Accepted, true, "Friday").await.unwrap(),
        12
    );
}

#[tokio::test]
async fn when_really_nobody_is_on_a_project_any_more_a_person_says_so() {
    let mut world = company().await;
    for place in world.sim.assignment_ids() {
        world.sim.delete_assignment(place);
    }
    world.try_cycle().await.outcome.unwrap_err();
    world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    assert_eq!(world.cycle().await.assignments.deleted, 300);
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}
