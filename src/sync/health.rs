//! What the workers say of themselves, for `/livez` and `/readyz`: kept in memory, read by anybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::roster::AccountId;

/// A worker that has not shown itself for so long is stuck.
const STUCK: Duration = Duration::from_mins(5);

/// One account's worker.
#[derive(Clone, Debug)]
struct Pulse {
    beat: Instant,
    /// When the last good cycle ended.
    good: Option<Instant>,
    /// The same, or when a page was stored since.
    fresh: Option<Instant>,
    complete: bool,
    standby: bool,
    error: Option<String>,
}

/// The pulses of all workers of this process.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<HashMap<AccountId, Pulse>>>);

/// What `/readyz` says of one account.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Readiness {
    /// The account.
    pub account_id: AccountId,
    /// Whether it counts as ready.
    pub ready: bool,
    /// `synced`, `initial_read`, `standby`, `waiting` or `stale`.
    pub state: &'static str,
    /// Why the last cycle failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Health {
    /// A worker that begins.
    pub fn register(&self, account: AccountId, now: Instant) {
        let pulse =
            Pulse { beat: now, good: None, fresh: None, complete: false, standby: false, error: None };
        self.with(|pulses| pulses.insert(account, pulse));
    }

    /// A sign of life, also while waiting for Harvest, PostgreSQL or permits.
    pub fn beat(&self, account: AccountId, now: Instant) {
        self.change(account, |pulse| pulse.beat = now);
    }

    /// A page was stored. After a cycle that failed only a good one counts: an account that is half refused would
    /// look fresh for ever.
    pub fn stored(&self, account: AccountId, now: Instant) {
        self.change(account, |pulse| {
            if pulse.error.is_none() {
                pulse.fresh = Some(now);
            }
        });
    }

    /// A cycle ended well, or not.
    pub fn cycle(&self, account: AccountId, now: Instant, error: Option<String>) {
        self.change(account, |pulse| {
            if error.is_none() {
                (pulse.good, pulse.complete) = (Some(now), true);
            }
            (pulse.fresh, pulse.error) = (pulse.good, error);
        });
    }

    /// Whether another process writes this account.
    pub fn standby(&self, account: AccountId, standby: bool) {
        self.change(account, |pulse| pulse.standby = standby);
    }

    /// Whether every worker has shown itself within five minutes.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.with(|pulses| pulses.values().all(|pulse| now.saturating_duration_since(pulse.beat) < STUCK))
    }

    /// Each account's freshness against three poll intervals.
    pub fn readiness(&self, poll_interval: Duration, now: Instant) -> Vec<Readiness> {
        let young = |at: Instant| now.saturating_duration_since(at) < poll_interval * 3;
        let mut readiness: Vec<_> = self.with(|pulses| {
            pulses
                .iter()
                .map(|(account, pulse)| {
                    let (ready, state) = match pulse.fresh {
                        _ if pulse.standby => (true, "standby"),
                        Some(at) if young(at) && pulse.complete => (true, "synced"),
                        Some(at) if young(at) => (true, "initial_read"),
                        Some(_) => (false, "stale"),
                        None => (false, "waiting"),
                    };
                    Readiness { account_id: *account, ready, state, error: pulse.error.clone() }
                })
                .collect()
        });
        readiness.sort_by_key(|account| account.account_id.0);
        readiness
    }

    fn change(&self, account: AccountId, change: impl FnOnce(&mut Pulse)) {
        self.with(|pulses| {
            if let Some(pulse) = pulses.get_mut(&account) {
                change(pulse);
            }
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<AccountId, Pulse>) -> T) -> T {
        // A panic elsewhere leaves the pulses whole: each is written in one go.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
    fn an_account_is_ready_while_its_last_good_cycle_is_young() {
        let (health, start) = (Health::default(), Instant::now());
        health.register(ACCOUNT, start);
        assert_eq!(state(&health, start), (false, "waiting"));
        health.stored(ACCOUNT, start);
        assert_eq!(state(&health, start), (true, "initial_read"));
        health.cycle(ACCOUNT, start, None);
        assert_eq!(state(&health, start + POLL * 2), (true, "synced"));
        assert_eq!(state(&health, start + POLL * 3), (false, "stale"));
        health.cycle(ACCOUNT, start + POLL * 3, Some("no answer".into()));
        assert_eq!(state(&health, start + POLL * 3), (false, "stale"), "a failed cycle makes nothing fresh");
        health.stored(ACCOUNT, start + POLL * 4);
        assert_eq!(state(&health, start + POLL * 4), (false, "stale"), "nor do the pages of the next one");
        health.standby(ACCOUNT, true);
        assert_eq!(state(&health, start + POLL * 9), (true, "standby"));
    }

    #[test]
    fn a_silent_worker_is_stuck_after_five_minutes() {
        let (health, start) = (Health::default(), Instant::now());
        health.register(ACCOUNT, start);
        assert!(health.is_alive(start + Duration::from_secs(299)));
        assert!(!health.is_alive(start + Duration::from_mins(5)));
        health.beat(ACCOUNT, start + Duration::from_secs(299));
        assert!(health.is_alive(start + Duration::from_mins(5)));
    }
}
