//! Takes the open writes of one account, oldest first, a few at a time and never two of one user.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::harvest::Client;
use crate::harvest::write::Writer;
use crate::roster::write_policy::WriteRules;
use crate::store::{Fence, Store};
use crate::sync::cycle::SyncRules;
use crate::telemetry::chain;

const MAX_CONCURRENT: usize = 4;
/// The journal is queried this often without a notification, which may be lost.
const QUERY_INTERVAL: Duration = Duration::from_secs(5);
/// Any login can send `NOTIFY roster_write`. It causes no more queries than one in this time.
const QUERY_SPACING: Duration = Duration::from_millis(50);
/// How long writes that were sent may take after the daemon was asked to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

pub struct WriteSender {
    pub store: Store,
    pub client: Client,
    /// Writes; `None` unless `write.mode` is `"on"`.
    pub writer: Option<Writer>,
    pub clock: Arc<dyn Clock>,
    pub rules: WriteRules,
    pub guard_window: Duration,
    pub sync: SyncRules,
    /// See `PostgresMirror::again_after`.
    pub again_after: TimeDelta,
    pub wake: Arc<Notify>,
    /// The owner of the token, from Harvest. The mirror may have the owner of an earlier token.
    pub owner: OnceCell<i64>,
}

pub(super) enum Next {
    /// It is finished, held or withdrawn.
    Finished,
    /// It continues after this time.
    After(Duration),
}

impl WriteSender {
    /// Runs until `stop` is cancelled, and then until the writes that were sent have ended, for some seconds at most.
    pub async fn run(self: &Arc<Self>, fence: Fence, stop: &CancellationToken) {
        // Tasks, because a future that waits here unpolled could keep the connection that the next query waits for.
        let mut running = JoinSet::new();
        let (mut busy, mut not_before) = (HashSet::<String>::new(), HashMap::<Uuid, Instant>::new());
        while !stop.is_cancelled() {
            let queried = Instant::now();
            let open = match stop.run_until_cancelled(self.store.open_writes(fence.account)).await {
                Some(Ok(open)) => open,
                Some(Err(error)) => {
                    tracing::debug!(account_id = fence.account.0, error = %chain(&error), "cannot query the journal");
                    Vec::new()
                }
                None => break,
            };
            not_before.retain(|id, _| open.iter().any(|write| write.id == *id));
            let mut keys = HashSet::new();
            for write in open {
                let key = write.key();
                // Writes of one user keep their order, also while the first one waits.
                let is_first = keys.insert(key.clone());
                let is_due = not_before.get(&write.id).is_none_or(|at| *at <= queried);
                if is_first && is_due && running.len() < MAX_CONCURRENT && busy.insert(key.clone()) {
                    not_before.remove(&write.id);
                    let (sender, stop) = (self.clone(), stop.clone());
                    running.spawn(async move {
                        let next = sender.step(fence, &write, &stop).await;
                        (write.id, key, next)
                    });
                }
            }
            let next_due = not_before.values().filter(|at| **at > queried).min().copied();
            let query_at = next_due.unwrap_or(queried + QUERY_INTERVAL).min(queried + QUERY_INTERVAL);
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = running.join_next() => {
                    // A task that panicked keeps its user blocked, and `panic` is a bug that the lints exclude.
                    let Ok((id, key, next)) = ended else { continue };
                    busy.remove(&key);
                    if let Next::After(time) = next {
                        not_before.insert(id, Instant::now() + time);
                    }
                }
                () = self.wake.notified() => sleep_until(queried + QUERY_SPACING).await,
                () = sleep_until(query_at.max(queried + QUERY_SPACING)) => {}
            }
        }
        let _ = timeout(STOP_TIMEOUT, async { while running.join_next().await.is_some() {} }).await;
    }
}
