//! If the deletion guard holds users or projects for review, it holds the deletions of their assignments, too.

use harvest_sim::{Company, Options};
use rosterd::store::missing::{Decision, Selection};

use crate::world::World;

/// 60 users and 120 assignments.
async fn company() -> World {
    let mut world = World::of(Company::seeded(5, 60, 120), Options::default()).await;
    world.cycle().await;
    world.news().await;
    world
}

fn count(lines: &[String], start: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(start)).count()
}

/// The account id suddenly shows another company, in which the token's owner exists, too.
#[tokio::test]
async fn assignments_of_held_users_are_held_and_released_with_them() {
    let mut world = company().await;
    let before = (world.sim.users_json(), world.sim.assignments_json());
    let first = world.sim.replace_company(Company::seeded_with_other_ids(6, 60, 120));
    world.full_cycle().await;
    for _ in 0..2 {
        world.cycle().await;
    }
    let held = world.held().await;
    assert_eq!(count(&held, "guard users "), 59);
    assert_eq!(count(&held, "guard user_assignments "), 120);
    let news = world.headlines().await;
    assert_eq!(count(&news, "user.deleted") + count(&news, "user_assignment.deleted"), 0);

    world.sim.replace_company(first);
    assert_eq!((world.sim.users_json(), world.sim.assignments_json()), before);
    world.full_cycle().await;
    world.cycle().await;
    assert!(world.headlines().await.is_empty(), "records that Harvest shows again should cause no event");
    // Only the other company's records are held now.
    let first_ids = before.0.iter().chain(&before.1).map(|record| record["id"].to_string());
    let first_ids: Vec<String> = first_ids.collect();
    let held = world.held().await;
    assert!(
        held.iter().all(|line| !first_ids.iter().any(|id| line.ends_with(&format!(" {id}")))),
        "{held:?}"
    );
    world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// Reading a user by id does not decide about a held deletion.
#[tokio::test]
async fn held_user_stays_held_when_read_again_by_id() {
    let mut world = company().await;
    let user = world.sim.user_ids()[20];
    world.sim.replace_company(Company::seeded_with_other_ids(6, 60, 120));
    world.full_cycle().await;
    world.news().await;
    let held = world.held().await;
    world.turn(async |cycle| rosterd::sync::user::read(cycle, user.0, false).await.0).await.outcome.unwrap();
    assert!(world.headlines().await.is_empty());
    assert_eq!(world.held().await, held);
}

/// Twelve of thirteen projects disappear at once. Although Harvest returns 404 for each, an administrator must
/// decide.
#[tokio::test]
async fn assignments_of_too_many_deleted_projects_are_held() {
    let mut world = World::of(Company::seeded(5, 60, 300), Options::default()).await;
    let projects = world.sim.project_ids();
    assert_eq!(projects.len(), 12);
    let remaining = world.sim.new_project("Stays", None);
    world.sim.assign(world.sim.user_ids()[1], remaining);
    world.cycle().await;
    world.news().await;
    for project in projects {
        world.sim.delete_project(project);
    }
    world.asked();
    world.cycle().await;
    assert!(world.headlines().await.is_empty());
    assert_eq!(count(&world.held().await, "guard user_assignments "), 300);
    assert!(world.asked().iter().all(|path| !path.contains("/projects/")));

    world.store.decide(&Selection::default(), Decision::Accepted, false, "a test").await.unwrap();
    assert_eq!(world.cycle().await.assignments.deleted, 300);
    let requests = world.asked().iter().filter(|path| path.contains("/projects/")).count();
    assert_eq!(requests, 12, "one request per project");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}
