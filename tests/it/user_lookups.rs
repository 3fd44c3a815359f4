//! Lookups of users that assignments name and that are absent from the list of users.

use std::collections::HashSet;

use harvest_sim::{Company, Fault, Options, UserId};
use rosterd::sync::cycle::CycleMemory;

use crate::scene::Scene;
use crate::world::World;

#[tokio::test]
async fn users_absent_from_the_list_are_looked_up_once_and_at_most_200_per_cycle() {
    let mut world = World::of(Company::seeded(5, 260, 520), Options::default()).await;
    let owner = world.sim.token_owner();
    let hidden: Vec<UserId> = world.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
    world.sim.inject(Fault::hide_records(hidden.iter().map(|user| user.0)).on("/users?").forever());
    for user in &hidden {
        world.sim.inject(Fault::refusal(404).on(format!("/users/{user}")).forever());
    }
    let lookups = |world: &World| {
        let by_id = |path: &String| path.starts_with("/v2/users/") && !path.contains("/me");
        world.asked().iter().filter(|path| by_id(path)).count()
    };
    world.cycle().await;
    assert_eq!((lookups(&world), world.count("user_assignments").await), (200, 520));
    world.full_cycle().await;
    // As in a cron job: each process begins without a memory.
    world.memory = CycleMemory::default();
    world.full_cycle().await;
    assert_eq!(lookups(&world), 0);
    // If the list has the users again, rosterd needs no lookup.
    world.sim.clear_faults();
    world.full_cycle().await;
    assert_eq!(lookups(&world), 0);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn user_lookups_stop_at_the_first_that_harvest_does_not_answer() {
    let mut world = World::new().await;
    world.cycle().await;
    let hired: Vec<UserId> = (0..4).map(|_| world.sim.create_user("Nina", "New")).collect();
    for user in &hired {
        world.sim.assign(*user, world.sim.project_ids()[0]);
    }
    world.sim.inject(Fault::hide_records(hired.iter().map(|user| user.0)).on("/users?").forever());
    world.sim.inject(Fault::reset().on("/users/").forever());
    world.asked();
    world.rules.count_probe = false;
    world.cycle().await;
    // One lookup with four attempts.
    assert_eq!(world.asked().iter().filter(|path| path.starts_with("/v2/users/")).count(), 4);
    world.sim.clear_faults();
    world.full_cycle().await;
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn users_absent_from_the_list_are_logged_once_with_their_count() {
    let scene = Scene::new().await;
    let owner = scene.sim.token_owner();
    let hidden: Vec<UserId> = scene.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
    scene.sim.inject(Fault::hide_records(hidden.iter().map(|user| user.0)).on("/users?").forever());
    for user in &hidden {
        scene.sim.inject(Fault::refusal(404).on(format!("/users/{user}")).forever());
    }
    let assigned: HashSet<i64> = scene
        .sim
        .assignments_json()
        .iter()
        .map(|assignment| assignment["user"]["id"].as_i64().unwrap())
        .collect();
    let absent = assigned.len() - usize::from(assigned.contains(&owner.0));
    for (arguments, lines) in [
        (&["sync", "--dry-run"][..], 1),
        (&["sync"], 1),
        (&["sync", "--full"], 0),
        (&["sync", "--full", "--dry-run"], 0),
    ] {
        let stderr = scene.program().call(arguments).await.expect(0).stderr();
        let logged: Vec<&str> =
            stderr.lines().filter(|line| line.contains("Harvest does not show")).collect();
        assert_eq!(logged.len(), lines, "{arguments:?}: {logged:?}");
        assert!(logged.iter().all(|line| line.contains(&format!("\"users\":{absent}"))), "{logged:?}");
    }
}
