//! Of two answers about one record, the answer that was requested later counts, regardless of the order in which they
//! are stored.

use std::future::Future;

use chrono::TimeDelta;
use harvest_sim::{Fault, UserId};
use rosterd::sync::cycle::{Cycle, CycleMemory};
use rosterd::sync::mirror::PostgresMirror;
use rosterd::sync::report::{CycleMode, CycleReport};
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// Runs part of a cycle. Unlike [`World::turn`], several such calls can run concurrently.
async fn read<'w>(world: &'w World, run: impl AsyncFnOnce(Cycle<'_, PostgresMirror<'_>>) -> CycleReport) {
    let mirror = PostgresMirror {
        store: &world.store,
        fence: world.fence,
        order: world.client.order(),
        again_after: world.again_after,
        guard: world.rules.guard,
        compare_all_fields: false,
        write: None,
    };
    let (client, clock, rules) = (&world.client, &*world.clock, world.rules);
    let (memory, cancel) = (&mut CycleMemory::default(), &CancellationToken::new());
    let cycle = Cycle { mirror: &mirror, client, clock, rules, memory, progress: &|_, _, _| {}, cancel };
    run(cycle).await.outcome.unwrap();
}

async fn full_read(world: &World) {
    let known = world.store.account_state(world.fence.account).await.unwrap();
    read(world, async |mut cycle| cycle.run(CycleMode::Full, known).await).await;
}

async fn read_user(world: &World, user: UserId) {
    read(world, async |cycle| rosterd::sync::user::read(cycle, user.0, false).await.0).await;
}

/// Runs a full read. `meanwhile` runs after Harvest has got the request to `path` and before the answer arrives.
async fn full_with_late_answer(world: &World, path: &str, meanwhile: impl Future<Output = ()>) {
    let arrives = CancellationToken::new();
    world.sim.inject(Fault::hold_response(arrives.clone()).on(path));
    let deliver_late = async {
        world.until_asked(path).await;
        meanwhile.await;
        arrives.cancel();
    };
    tokio::join!(full_read(world), deliver_late);
}

#[tokio::test]
async fn page_does_not_overwrite_a_record_requested_later() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[4];
    full_with_late_answer(&world, "/users?per_page=2000", async {
        world.sim.edit_user_keeping_updated_at(user, |user| user.last_name = "Later".to_owned());
        read_user(&world, user).await;
    })
    .await;
    assert_eq!(world.only_event().await.payload["after"]["last_name"], "Later");
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn page_does_not_restore_a_record_whose_404_was_requested_later() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[4];
    full_with_late_answer(&world, "/users?per_page=2000", async {
        world.sim.delete_user(user);
        read_user(&world, user).await;
    })
    .await;
    let news = world.headlines().await;
    assert!(news.contains(&format!("user.deleted {user}")), "{news:?}");
    assert!(!news.contains(&format!("user.created {user}")), "{news:?}");
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn earlier_404_does_not_delete_a_record_requested_later() {
    let mut world = World::new().await;
    world.cycle().await;
    world.pass(TimeDelta::minutes(11));
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[4];
    let path = format!("/users/{user}");
    world.sim.inject(Fault::hide_records([user.0]).on("/users?").times(1));
    let arrives = CancellationToken::new();
    world.sim.inject(Fault::hold_response(arrives.clone()).on(&path));
    world.sim.inject(Fault::refusal(404).on(&path));
    let deliver_late = async {
        world.until_asked(&path).await;
        read_user(&world, user).await;
        arrives.cancel();
    };
    tokio::join!(full_read(&world), deliver_late);
    assert_eq!(world.headlines().await, [""; 0]);
    world.expect_mirror_equals_source().await;
}

/// The later answer equals the row, so that rosterd writes nothing for it. The older page must not change the row
/// either.
#[tokio::test]
async fn page_does_not_overwrite_a_row_confirmed_by_a_later_response() {
    let mut world = World::new().await;
    let user = world.sim.user_ids()[4];
    world.cycle().await;
    world.news().await;
    let older = world.sim.users_json().into_iter().find(|record| record["id"] == user.0).unwrap();
    let edit_page = Fault::edit_records(move |record| {
        if record["id"] == older["id"] {
            record.insert("last_name".to_owned(), "Older".into());
        }
    });
    world.sim.inject(edit_page.on("/users?per_page=2000").times(1));
    full_with_late_answer(&world, "/users?per_page=2000", read_user(&world, user)).await;
    assert_eq!(world.headlines().await, [""; 0]);
    world.expect_mirror_equals_source().await;
}
