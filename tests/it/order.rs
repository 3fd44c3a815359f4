//! Of two answers about one record the one that was requested later counts, whichever is stored first.

use std::future::Future;

use chrono::TimeDelta;
use harvest_sim::{Fault, UserId};
use rosterd::sync::apply::Writer;
use rosterd::sync::cycle::{Cycle, Memory};
use rosterd::sync::report::Report;
use rosterd::sync::schedule::Mode;
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// Runs a reading while others of this process run.
async fn read<'w>(world: &'w World, run: impl AsyncFnOnce(Cycle<'_, Writer<'_>>) -> Report) {
    let sink = Writer {
        store: &world.store,
        fence: world.fence,
        order: world.client.order(),
        again_after: world.again_after,
        guard: world.rules.guard,
        thorough: false,
    };
    let (client, clock, rules) = (&world.client, &*world.clock, world.rules);
    let (memory, cancel) = (&mut Memory::default(), &CancellationToken::new());
    let cycle = Cycle { sink: &sink, client, clock, rules, memory, progress: &|_, _, _| {}, cancel };
    run(cycle).await.outcome.unwrap();
}

async fn full(world: &World) {
    let known = world.store.account_state(world.fence.account).await.unwrap();
    read(world, async |cycle| cycle.run(Mode::Full, known).await).await;
}

async fn person(world: &World, user: UserId) {
    read(world, async |cycle| cycle.person(user.0, false).await.0).await;
}

/// Reads everything; what else happens does so between Harvest's answer to this request and its arrival.
async fn full_with_late_answer(world: &World, path: &str, meanwhile: impl Future<Output = ()>) {
    let arrives = CancellationToken::new();
    world.sim.inject(Fault::held(arrives.clone()).on(path));
    let late = async {
        world.until_asked(path).await;
        meanwhile.await;
        arrives.cancel();
    };
    tokio::join!(full(world), late);
}

#[tokio::test]
async fn a_page_does_not_overwrite_a_record_that_was_requested_later() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[4];
    full_with_late_answer(&world, "/users?per_page=2000", async {
        world.sim.edit_user_silently(user, |user| user.last_name = "Later".to_owned());
        person(&world, user).await;
    })
    .await;
    assert_eq!(world.only_event().await.payload["after"]["last_name"], "Later");
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn a_page_does_not_bring_back_a_record_whose_404_was_requested_later() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[4];
    full_with_late_answer(&world, "/users?per_page=2000", async {
        world.sim.delete_user(user);
        person(&world, user).await;
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
async fn a_404_does_not_delete_a_record_that_was_requested_later() {
    let mut world = World::new().await;
    world.cycle().await;
    world.pass(TimeDelta::minutes(11));
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[4];
    let path = format!("/users/{user}");
    world.sim.inject(Fault::hide([user.0]).on("/users?").times(1));
    let arrives = CancellationToken::new();
    world.sim.inject(Fault::held(arrives.clone()).on(&path));
    world.sim.inject(Fault::refusal(404).on(&path));
    let late = async {
        world.until_asked(&path).await;
        person(&world, user).await;
        arrives.cancel();
    };
    tokio::join!(full(&world), late);
    assert_eq!(world.headlines().await, [""; 0]);
    world.expect_mirror_equals_source().await;
}

/// What is equal to the row now need not be so once an older page is stored.
#[tokio::test]
async fn a_page_does_not_overwrite_a_row_that_a_later_answer_has_confirmed() {
    let mut world = World::new().await;
    let user = world.sim.user_ids()[4];
    world.cycle().await;
    world.news().await;
    let old = world.sim.users_json().into_iter().find(|it| it["id"] == user.0).unwrap();
    let old = Fault::edit_records(move |record| {
        if record["id"] == old["id"] {
            record.insert("last_name".to_owned(), "Older".into());
        }
    });
    world.sim.inject(old.on("/users?per_page=2000").times(1));
    full_with_late_answer(&world, "/users?per_page=2000", person(&world, user)).await;
    assert_eq!(world.headlines().await, [""; 0]);
    world.expect_mirror_equals_source().await;
}
