//! The state of the workers, for `/livez`, `/readyz` and the watchdog of systemd.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::roster::AccountId;

/// A worker without a heartbeat for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_mins(5);

#[derive(Clone, Debug)]
struct WorkerState {
    heartbeat: Instant,
    /// When the last successful cycle ended.
    succeeded: Option<Instant>,
    /// `succeeded`, or when a page was stored since.
    fresh: Option<Instant>,
    is_complete: bool,
    is_standby: bool,
    error: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Health {
    workers: Arc<Mutex<HashMap<AccountId, WorkerState>>>,
    /// Notified after each successful cycle.
    success: Arc<Notify>,
}

/// One account in the response of `/readyz`.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Readiness {
    pub account_id: AccountId,
    pub ready: bool,
    /// `synced`, `initial_read`, `standby`, `waiting` or `stale`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Health {
    pub(crate) fn register(&self, account: AccountId, now: Instant) {
        let state = WorkerState {
            heartbeat: now,
            succeeded: None,
            fresh: None,
            is_complete: false,
            is_standby: false,
            error: None,
        };
        self.with(|workers| workers.insert(account, state));
    }

    /// A worker sends heartbeats also while it waits for Harvest, PostgreSQL or permits.
    pub(crate) fn heartbeat(&self, account: AccountId, now: Instant) {
        self.change(account, |worker| worker.heartbeat = now);
    }

    /// A page was stored. After a failed cycle only a successful cycle makes the account fresh: otherwise an account
    /// whose cycles always fail after the first page would look fresh for ever.
    pub(crate) fn page_stored(&self, account: AccountId, now: Instant) {
        self.change(account, |worker| {
            if worker.error.is_none() {
                worker.fresh = Some(now);
            }
        });
    }

    /// A cycle ended, successfully if there is no `error`.
    pub(crate) fn cycle_ended(&self, account: AccountId, now: Instant, error: Option<String>) {
        if error.is_none() {
            self.success.notify_one();
        }
        self.change(account, |worker| {
            if error.is_none() {
                (worker.succeeded, worker.is_complete) = (Some(now), true);
            }
            (worker.fresh, worker.error) = (worker.succeeded, error);
        });
    }

    /// Waits for the end of a successful cycle. Returns at once if one ended since the last call. For one task only.
    pub(crate) async fn cycle_succeeded(&self) {
        self.success.notified().await;
    }

    /// Sets whether another process holds the account's lease.
    pub(crate) fn set_standby(&self, account: AccountId, is_standby: bool) {
        self.change(account, |worker| worker.is_standby = is_standby);
    }

    /// Whether each worker had a heartbeat within the last five minutes.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        self.with(|workers| {
            workers.values().all(|worker| now.saturating_duration_since(worker.heartbeat) < STUCK_AFTER)
        })
    }

    /// Whether each account was fresh within three poll intervals.
    pub(crate) fn readiness(&self, poll_interval: Duration, now: Instant) -> Vec<Readiness> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < poll_interval * 3;
        let mut readiness: Vec<_> = self.with(|workers| {
            workers
                .iter()
                .map(|(account, worker)| {
                    let (ready, state) = match worker.fresh {
                        _ if worker.is_standby => (true, "standby"),
                        Some(at) if is_recent(at) && worker.is_complete => (true, "synced"),
                        Some(at) if is_recent(at) => (true, "initial_read"),
                        Some(_) => (false, "stale"),
                        None => (false, "waiting"),
                    };
                    Readiness { account_id: *account, ready, state, error: worker.error.clone() }
                })
                .collect()
        });
        readiness.sort_by_key(|account| account.account_id.0);
        readiness
    }

    fn change(&self, account: AccountId, change: impl FnOnce(&mut WorkerState)) {
        self.with(|workers| {
            if let Some(worker) = workers.get_mut(&account) {
                change(worker);
            }
        });
    }

    fn with<T>(&self, action: impl FnOnce(&mut HashMap<AccountId, WorkerState>) -> T) -> T {
        action(&mut self.workers.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId(1);
    const POLL: Duration = Duration::from_mins(1);

    fn state(health: &Health, now: Instant) -> (bool, &'static str) {
        let readiness = health.readiness(POLL, now);
        (readiness[0].ready, readiness[0].state)
    }

    #[test]
    fn account_is_ready_for_three_poll_intervals_after_a_successful_cycle() {
        let (health, start) = (Health::default(), Instant::now());
        health.register(ACCOUNT, start);
        assert_eq!(state(&health, start), (false, "waiting"));
        health.page_stored(ACCOUNT, start);
        assert_eq!(state(&health, start), (true, "initial_read"));
        health.cycle_ended(ACCOUNT, start, None);
        assert_eq!(state(&health, start + POLL * 2), (true, "synced"));
        assert_eq!(state(&health, start + POLL * 3), (false, "stale"));
        health.cycle_ended(ACCOUNT, start + POLL * 3, Some("no response".into()));
        assert_eq!(
            state(&health, start + POLL * 3),
            (false, "stale"),
            "a failed cycle does not make the account fresh"
        );
        health.page_stored(ACCOUNT, start + POLL * 4);
        assert_eq!(
            state(&health, start + POLL * 4),
            (false, "stale"),
            "pages after a failed cycle do not make the account fresh"
        );
        health.set_standby(ACCOUNT, true);
        assert_eq!(state(&health, start + POLL * 9), (true, "standby"));
    }

    #[test]
    fn worker_without_heartbeat_is_stuck_after_five_minutes() {
        let (health, start) = (Health::default(), Instant::now());
        health.register(ACCOUNT, start);
        assert!(health.is_alive(start + Duration::from_secs(299)));
        assert!(!health.is_alive(start + Duration::from_mins(5)));
        health.heartbeat(ACCOUNT, start + Duration::from_secs(299));
        assert!(health.is_alive(start + Duration::from_mins(5)));
    }
}
