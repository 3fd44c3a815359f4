//! An endpoint without new events writes nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Hooks;
use crate::program::STUCK;

/// Position and transactions of each row that belongs to endpoints. A write changes `ctid` and `xmin`, and a lock sets
/// `xmax`, which only a vacuum clears.
const ROWS: &str = "
    SELECT concat_ws(' ', 'webhook', name, ctid, xmin), xmax::text::bigint FROM roster.webhooks UNION ALL
    SELECT concat_ws(' ', 'consumer', name, ctid, xmin), xmax::text::bigint FROM roster.consumers UNION ALL
    SELECT concat_ws(' ', 'notice', name, ctid, xmin), xmax::text::bigint FROM roster.webhook_notices UNION ALL
    SELECT concat_ws(' ', 'skip', name, ctid, xmin), xmax::text::bigint FROM roster.webhook_skips ORDER BY 1";

/// How often processes have read `roster.webhooks`. PostgreSQL counts within ten seconds.
const SCANS: &str =
    "SELECT (seq_scan + coalesce(idx_scan, 0))::bigint FROM pg_stat_user_tables WHERE relname = 'webhooks'";

#[tokio::test]
async fn idle_endpoint_writes_no_row_and_locks_none() {
    let (hooks, receiver, _program, _daemon) = Hooks::start("notices = true").await;
    hooks.edit(2);
    receiver.until_accepted(2).await;
    hooks.until_acked(hooks.head().await).await;
    let rows = async || -> Vec<(String, i64)> {
        sqlx::query_as(ROWS).fetch_all(hooks.scene.store.pool()).await.unwrap()
    };
    let before = rows().await;
    assert_eq!(before.len(), 2, "{before:?}");
    let (scans, give_up) = (hooks.scene.number(SCANS).await, Instant::now() + STUCK);
    while hooks.scene.number(SCANS).await < scans + 30 {
        assert!(Instant::now() < give_up, "the endpoint should look for events");
        hooks.scene.execute("SELECT pg_notify('roster_outbox', '')").await;
        sleep(Duration::from_millis(100)).await;
    }
    for ((row, xmax), (row_before, xmax_before)) in rows().await.iter().zip(&before) {
        assert_eq!(row, row_before);
        assert!(*xmax == 0 || xmax == xmax_before, "{row} is locked by {xmax}");
    }
}
