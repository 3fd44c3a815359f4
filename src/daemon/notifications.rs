//! Wakes workers before their next poll. Commands that send a request and processes that release a lease send `NOTIFY
//! roster_sync`; requests of writes send `NOTIFY roster_write`; transactions with events send `NOTIFY roster_outbox`,
//! which wakes the dispatchers of webhooks. SIGHUP and the end of a database outage wake all workers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::limiter::HeartbeatStatus;
use crate::roster::AccountId;
use crate::store::Store;
use crate::store::notifications::{OUTBOX_CHANNEL, WRITE_CHANNEL};
use crate::sync::wake::Wake;

/// Time between attempts to listen again, and between queries of requests if no listener is available.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Signals {
    pub worker: Arc<Wake>,
    /// `None` if writes are off.
    pub writes: Option<Arc<Notify>>,
}

pub(crate) type Workers = HashMap<AccountId, Signals>;

/// Runs until the future is dropped. `ttl` is the time without heartbeats after which other processes consider this one
/// dead. `readers` read the outbox.
pub(crate) fn run(
    store: Store,
    workers: Workers,
    readers: Vec<Arc<Notify>>,
    heartbeats: watch::Receiver<HeartbeatStatus>,
    ttl: Duration,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let hangups = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::join!(
            forward_notifications(&store, &workers, &readers),
            forward_hangups(hangups, &workers),
            watch_heartbeats(heartbeats, ttl, &workers)
        );
    })
}

/// If no listener is available, such as behind a pooler in transaction mode, queries requests at intervals.
async fn forward_notifications(store: &Store, workers: &Workers, readers: &[Arc<Notify>]) {
    loop {
        match store.listen_for_requests(!readers.is_empty()).await {
            Ok(Some(mut listener)) => {
                // Requests that were sent while no listener existed.
                notify_requested(store, workers).await;
                while let Ok(notification) = listener.notified().await {
                    match notification {
                        Some((channel, account)) if channel == WRITE_CHANNEL => {
                            notify_writes(workers, account);
                        }
                        Some((channel, _)) if channel == OUTBOX_CHANNEL => {
                            for reader in readers {
                                reader.notify_one();
                            }
                        }
                        notification => notify(workers, notification.and_then(|(_, account)| account)),
                    }
                }
            }
            Ok(None) => notify_requested(store, workers).await,
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn notify_requested(store: &Store, workers: &Workers) {
    for account in store.accounts_with_requests().await.unwrap_or_default() {
        notify(workers, Some(account));
    }
}

async fn forward_hangups(mut hangups: Signal, workers: &Workers) {
    while hangups.recv().await.is_some() {
        poll_at_once(workers);
    }
}

/// After more than `ttl` without a heartbeat, cycles have failed: polls at once instead of after the back-off.
async fn watch_heartbeats(
    mut heartbeats: watch::Receiver<HeartbeatStatus>,
    ttl: Duration,
    workers: &Workers,
) {
    let mut last: Option<Instant> = None;
    while heartbeats.changed().await.is_ok() {
        let beat_at = heartbeats.borrow_and_update().beat_at;
        if last.zip(beat_at).is_some_and(|(last, beat_at)| beat_at - last > ttl) {
            poll_at_once(workers);
        }
        last = beat_at;
    }
}

/// The tasks of `account`, or of all accounts.
fn of_account(workers: &Workers, account: Option<i64>) -> impl Iterator<Item = &Signals> {
    let is_meant = move |id: i64| account.is_none_or(|account| account == id);
    workers.iter().filter(move |(id, _)| is_meant(id.0)).map(|(_, signals)| signals)
}

fn notify(workers: &Workers, account: Option<i64>) {
    for signals in of_account(workers, account) {
        signals.worker.notify();
    }
}

fn notify_writes(workers: &Workers, account: Option<i64>) {
    for writes in of_account(workers, account).filter_map(|signals| signals.writes.as_ref()) {
        writes.notify_one();
    }
}

fn poll_at_once(workers: &Workers) {
    for signals in workers.values() {
        signals.worker.poll_at_once();
    }
}
