//! Drops what is old, a little at a time, for as long as the daemon runs; and warns of consumers that will lose by it.

use std::time::Duration;

use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How often it is looked after, or a tenth of what is kept where that is less.
const LOOK: Duration = Duration::from_mins(10);
/// A consumer is warned of when it has a fifth of the time left.
const WARNING: (u32, u32) = (4, 5);

/// What is kept; handed in by `app`.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events.
    pub outbox: Duration,
    /// Cycles, and records that could not be read.
    pub cycles: Duration,
    /// Versions in the history that have ended; `None`: for ever.
    pub history: Option<Duration>,
}

/// Looks after it for ever.
pub async fn keep(store: Store, retention: Retention) {
    let shortest = retention.outbox.min(retention.cycles).min(retention.history.unwrap_or(Duration::MAX));
    let look = LOOK.min(shortest / 10).max(Duration::from_millis(100));
    loop {
        tokio::time::sleep(look).await;
        if let Err(error) = drop_old(&store, retention).await {
            tracing::debug!(error = %chain(&error), "could not drop what is old; trying again later");
        }
    }
}

async fn drop_old(store: &Store, retention: Retention) -> Result<(), StoreError> {
    let warning = retention.outbox / WARNING.1 * WARNING.0;
    for laggard in store.laggards(warning).await? {
        tracing::warn!(
            event = "consumer.behind",
            consumer = laggard.consumer,
            events = laggard.events,
            "a consumer of the outbox is about to lose events, or has lost some"
        );
    }
    let (mut events, mut floor_seq) = (0, 0);
    while let Some(trimmed) = store.trim_outbox(retention.outbox).await? {
        (events, floor_seq) = (events + trimmed.events, trimmed.floor_seq);
    }
    if events > 0 {
        tracing::info!(event = "outbox.trimmed", events, floor_seq, "the oldest events were dropped");
    }
    store.forget_old_cycles(retention.cycles).await?;
    if let Some(history) = retention.history {
        while store.trim_history(history).await? {}
    }
    Ok(())
}
