//! Deletes rows that are older than their retention in small batches, and warns of consumers that are about to lose
//! events.

use std::time::Duration;

use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How often old rows are deleted, unless a tenth of the shortest retention is less.
const MAX_INTERVAL: Duration = Duration::from_mins(10);
const MIN_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(crate) struct RetentionLimits {
    pub outbox: Duration,
    /// Retention of cycles and of rejected records.
    pub cycles: Duration,
    /// Retention of ended versions in the history. `None` means no limit.
    pub history: Option<Duration>,
    /// Retention of finished writes, and of SCIM's links of deleted users.
    pub writes: Duration,
}

/// Runs until the future is dropped.
pub(crate) async fn run(store: Store, retention: RetentionLimits) {
    let shortest = retention
        .outbox
        .min(retention.cycles)
        .min(retention.writes)
        .min(retention.history.unwrap_or(Duration::MAX));
    let interval = MAX_INTERVAL.min(shortest / 10).max(MIN_INTERVAL);
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = delete_old_rows(&store, retention).await {
            tracing::debug!(error = %chain(&error), "could not delete old rows; trying again later");
        }
    }
}

async fn delete_old_rows(store: &Store, retention: RetentionLimits) -> Result<(), StoreError> {
    // Warns while a fifth of the retention is left.
    let warning = retention.outbox / 5 * 4;
    for laggard in store.lagging_consumers(warning).await? {
        tracing::warn!(
            event = "consumer.behind",
            consumer = laggard.consumer,
            events = laggard.events,
            "a consumer of the outbox is about to lose events to outbox.retention, or has lost some"
        );
    }
    let (mut events, mut floor_seq) = (0, 0);
    while let Some(trimmed) = store.trim_outbox(retention.outbox).await? {
        (events, floor_seq) = (events + trimmed.events, trimmed.floor_seq);
    }
    if events > 0 {
        tracing::info!(
            event = "outbox.trimmed",
            events,
            floor_seq,
            "events older than outbox.retention were deleted"
        );
    }
    store.delete_old_rows(retention.cycles, retention.writes).await?;
    if let Some(history) = retention.history {
        while store.trim_history(history).await? {}
    }
    Ok(())
}
