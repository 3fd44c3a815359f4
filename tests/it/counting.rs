//! What totals tell: cheap, quick, and no reason to read everything again and again.

use harvest_sim::Fault;
use rosterd::roster::Resource;
use rosterd::sync::schedule::Mode;

use crate::deletions::company;
use crate::world::World;

#[tokio::test]
async fn an_idle_poll_asks_four_times() {
    let mut world = company().await;
    world.cycle().await;
    assert_eq!(world.asked().len(), 4, "two lists and two totals");
    world.rules.count_probe = false;
    world.cycle().await;
    assert_eq!(world.asked().len(), 2);
}

/// A million rows are not counted with each poll: whoever comes or goes is told of.
#[tokio::test]
async fn rows_are_counted_again_when_something_was_told() {
    let mut world = company().await;
    world.cycle().await;
    let live = async |world: &World| {
        let census = world.store.census(world.fence.account).await.unwrap();
        census[&Resource::Assignments].live
    };
    let counted = live(&world).await;
    // As nobody does: without an event.
    sqlx::query(
        "DELETE FROM roster.user_assignments WHERE id = (SELECT max(id) FROM roster.user_assignments)",
    )
    .execute(world.store.pool())
    .await
    .unwrap();
    assert_eq!(live(&world).await, counted, "it was counted although nothing was told");
    sqlx::query("UPDATE roster.outbox_head SET seq = seq + 1").execute(world.store.pool()).await.unwrap();
    assert_eq!(live(&world).await, counted - 1);
    sqlx::query("UPDATE roster.user_assignments SET deleted_at = now(), is_active = false")
        .execute(world.store.pool())
        .await
        .unwrap();
    sqlx::query("UPDATE roster.outbox_head SET stream_id = gen_random_uuid()")
        .execute(world.store.pool())
        .await
        .unwrap();
    assert_eq!(live(&world).await, 0, "another history");
}

#[tokio::test]
async fn a_hire_between_the_count_and_the_list_is_no_drift() {
    let mut world = company().await;
    let sim = world.sim.clone();
    world.sim.inject(Fault::meanwhile(move || _ = sim.hire("Ian", "Instant")).on("/users?per_page=1"));
    let report = world.cycle().await;
    assert_eq!((report.mode, report.users.changed), (Mode::Incremental, 1));
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn what_a_full_read_does_not_explain_does_not_spin() {
    let mut world = company().await;
    let user = world.sim.user_ids()[7];
    world.sim.inject(Fault::hide([user.0]).on("/users?").forever());
    world.sim.inject(Fault::html(404).on(format!("/users/{user}")).forever());
    assert_eq!(world.cycle().await.mode, Mode::Full);
    for _ in 0..3 {
        assert_eq!(world.cycle().await.mode, Mode::Incremental);
    }
    // A change of either number is a new question.
    let other = world.sim.hire("Nia", "New");
    assert_eq!(world.cycle().await.mode, Mode::Full);
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    assert_eq!(unexplained(&world).await, 1);
    world.sim.clear_faults();
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
    assert_eq!(unexplained(&world).await, 0, "what happened since explains it");
    assert_eq!(world.headlines().await, [format!("user.created {other}")]);
}

async fn unexplained(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(unexplained_total) FROM roster.watermarks")
        .fetch_one(world.store.pool())
        .await
        .unwrap()
}
