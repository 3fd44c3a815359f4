//! What wakes a worker before its time: `NOTIFY roster_sync`, which commands send that ask for something and processes that
//! give an account back, SIGHUP, and a database that is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Exit, Failure};
use crate::roster::AccountId;
use crate::store::Store;
use crate::sync::budget::Standing;
use crate::sync::polls::Wake;

/// How soon a bell that was lost is looked for again, and how often requests are looked for where there is none.
const AGAIN: Duration = Duration::from_secs(10);

/// Each account's worker.
pub(super) type Workers = HashMap<AccountId, Arc<Wake>>;

/// Wakes them, for ever. Without a bell, as behind a pooler in transaction mode, requests are looked for now and then.
/// When the heartbeat is back after a silence of more than `ttl`, nobody waits any longer because a cycle failed by it.
pub(super) fn wake(
    store: Store,
    workers: Workers,
    mut standing: watch::Receiver<Standing>,
    ttl: Duration,
) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| Failure::new(Exit::Internal, error))?;
    Ok(async move {
        let rung = async {
            loop {
                match store.bell().await {
                    Ok(Some(mut bell)) => {
                        // What was asked while nothing listened.
                        for account in store.asked().await.unwrap_or_default() {
                            notify(&workers, Some(account));
                        }
                        while let Ok(account) = bell.rung().await {
                            notify(&workers, account);
                        }
                    }
                    Ok(None) => {
                        for account in store.asked().await.unwrap_or_default() {
                            notify(&workers, Some(account));
                        }
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let hung_up = async {
            while hangup.recv().await.is_some() {
                poll_at_once(&workers);
            }
        };
        let back = async {
            let mut last: Option<Instant> = None;
            while standing.changed().await.is_ok() {
                let beat = standing.borrow_and_update().beat_at;
                if last.zip(beat).is_some_and(|(last, beat)| beat - last > ttl) {
                    poll_at_once(&workers);
                }
                last = beat;
            }
        };
        tokio::join!(rung, hung_up, back);
    })
}

/// The worker of this account, or all.
fn notify(workers: &Workers, account: Option<i64>) {
    for (id, worker) in workers {
        if account.is_none_or(|account| account == id.0) {
            worker.notify();
        }
    }
}

fn poll_at_once(workers: &Workers) {
    for worker in workers.values() {
        worker.poll_at_once();
    }
}
