//! Comparison of Harvest's totals with the mirror's row counts: a difference starts one full read, not one per poll.

use harvest_sim::Fault;
use rosterd::roster::Resource;
use rosterd::sync::report::CycleMode;

use crate::deletions::mirrored_company;
use crate::world::World;

#[tokio::test]
async fn idle_poll_sends_four_requests() {
    let mut world = mirrored_company().await;
    world.cycle().await;
    assert_eq!(world.asked().len(), 4, "two lists and two totals");
    world.rules.count_probe = false;
    world.cycle().await;
    assert_eq!(world.asked().len(), 2);
}

/// Each change of a count emits an event, so rosterd counts the rows again only after a new event.
#[tokio::test]
async fn rows_are_counted_again_after_a_new_event() {
    let mut world = mirrored_company().await;
    world.cycle().await;
    let live_rows = async |world: &World| {
        let counts = world.store.row_counts(world.fence.account).await.unwrap();
        counts[&Resource::Assignments].live
    };
    let counted = live_rows(&world).await;
    // rosterd never deletes a row without an event; the test does.
    sqlx::raw_sql(
        "BEGIN; SET LOCAL roster.forgetting = 'on';
         DELETE FROM roster.user_assignments WHERE id = (SELECT max(id) FROM roster.user_assignments);
         COMMIT",
    )
    .execute(world.store.pool())
    .await
    .unwrap();
    assert_eq!(live_rows(&world).await, counted, "the rows were counted again without an event");
    sqlx::query("UPDATE roster.outbox_head SET seq = seq + 1").execute(world.store.pool()).await.unwrap();
    assert_eq!(live_rows(&world).await, counted - 1);
    sqlx::query("UPDATE roster.user_assignments SET deleted_at = now(), is_active = false")
        .execute(world.store.pool())
        .await
        .unwrap();
    sqlx::query("UPDATE roster.outbox_head SET stream_id = gen_random_uuid()")
        .execute(world.store.pool())
        .await
        .unwrap();
    assert_eq!(live_rows(&world).await, 0, "the rows were not counted again for a new stream");
}

#[tokio::test]
async fn hire_between_the_count_and_the_list_starts_no_full_read() {
    let mut world = mirrored_company().await;
    let sim = world.sim.clone();
    world.sim.inject(
        Fault::run_before_response(move || _ = sim.create_user("Ian", "Instant")).on("/users?per_page=1"),
    );
    let report = world.cycle().await;
    assert_eq!((report.mode, report.users.changed), (CycleMode::Incremental, 1));
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn count_difference_that_a_full_read_does_not_explain_starts_one_full_read() {
    let mut world = mirrored_company().await;
    let user = world.sim.user_ids()[7];
    world.sim.inject(Fault::hide_records([user.0]).on("/users?").forever());
    world.sim.inject(Fault::html(404).on(format!("/users/{user}")).forever());
    assert_eq!(world.cycle().await.mode, CycleMode::Full);
    for _ in 0..3 {
        assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    }
    // If either number changes, a full read follows again.
    let other = world.sim.create_user("Nia", "New");
    assert_eq!(world.cycle().await.mode, CycleMode::Full);
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    assert_eq!(unexplained_totals(&world).await, 1);
    world.sim.clear_faults();
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
    assert_eq!(unexplained_totals(&world).await, 0, "a later change explains the difference");
    assert_eq!(world.headlines().await, [format!("user.created {other}")]);
}

async fn unexplained_totals(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(unexplained_total) FROM roster.watermarks")
        .fetch_one(world.store.pool())
        .await
        .unwrap()
}
