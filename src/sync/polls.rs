//! When an account is polled next, and what brings that forward.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::report::Report;
use super::schedule::{self, IDLE_REQUESTS, Interval, Mode};

/// Any login of the database can send `NOTIFY roster_sync`. Without a row in `roster.requests`, which only the owner of the
/// schema can write, it starts no cycle sooner than this after the start of the last one.
pub const SPACING: Duration = Duration::from_secs(5);
/// Nor does it make a worker ask the database more often than this.
const LOOK: Duration = Duration::from_secs(1);

/// Wakes a worker.
#[derive(Debug, Default)]
pub struct Wake {
    bell: Notify,
    at_once: AtomicBool,
}

impl Wake {
    /// There may be something to do: the worker looks for requests and, if there are none, polls within [`SPACING`].
    pub fn notify(&self) {
        self.bell.notify_one();
    }

    /// An administrator, or this process itself, wants a cycle now.
    pub fn poll_at_once(&self) {
        self.at_once.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Waits for either.
    pub async fn notified(&self) {
        self.bell.notified().await;
    }

    /// Waits for either, for at least a second after a worker has `looked`, unless it must poll at once.
    pub(super) async fn notified_after(&self, looked: Instant) {
        self.bell.notified().await;
        if !self.at_once.load(Ordering::Relaxed) {
            sleep_until(looked + LOOK).await;
        }
    }

    fn take_at_once(&self) -> bool {
        self.at_once.swap(false, Ordering::Relaxed)
    }
}

/// The polls of an account while this process writes it.
pub(super) struct Polls {
    bounds: Interval,
    interval: Duration,
    cost: u64,
    failures: u32,
    /// When the last cycle started, and when the next is due.
    started: Option<Instant>,
    due: Instant,
    /// When the worker last looked for requests.
    pub(super) looked: Instant,
}

impl Polls {
    /// The first one is due `now`.
    pub(super) fn new(bounds: Interval, now: Instant) -> Self {
        let (interval, cost) = (bounds.slowest, IDLE_REQUESTS);
        Self { bounds, interval, cost, failures: 0, started: None, due: now, looked: now }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Until when rate histories may be read, if the last cycle succeeded.
    pub(super) fn histories_until(&self) -> Option<Instant> {
        (self.failures == 0).then_some(self.due)
    }

    /// Takes a cycle's result, of a poll or of a request, into account; returns the interval to the next poll, or the wait
    /// until the next attempt.
    pub(super) fn ended(&mut self, started: Instant, now: Instant, report: &Report) -> Duration {
        self.started = Some(started);
        let (from, wait) = if report.outcome.is_ok() {
            if report.mode == Mode::Incremental {
                self.cost = report.requests;
            }
            self.interval = self.bounds.next(self.interval, self.cost, report.wrote());
            self.failures = 0;
            (started, self.interval)
        } else {
            self.failures += 1;
            (now, schedule::retry(self.bounds.slowest, self.failures))
        };
        self.due = from + wait;
        wait
    }

    /// There was a notification, and no request: the next cycle starts now if it may.
    pub(super) fn hasten(&mut self, wake: &Wake, now: Instant) {
        let soonest = if wake.take_at_once() { now } else { self.started.map_or(now, |it| it + SPACING) };
        self.due = self.due.min(soonest);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::roster::AccountId;
    use crate::sync::cycle::CycleError;

    const HOUR: Duration = Duration::from_hours(1);

    fn report(outcome: Result<(), CycleError>) -> Report {
        let mut report = Report::new(AccountId(1), Mode::Incremental, DateTime::UNIX_EPOCH);
        report.outcome = outcome;
        report
    }

    fn after_a_cycle(outcome: Result<(), CycleError>) -> (Polls, Instant) {
        let now = Instant::now();
        let mut polls = Polls::new(Interval::within(HOUR, HOUR, 100, HOUR, 1), now);
        polls.ended(now, now, &report(outcome));
        (polls, now)
    }

    #[test]
    fn notifications_start_no_cycle_within_five_seconds_of_the_last_not_even_during_back_off() {
        for outcome in [Ok(()), Err(CycleError::NobodyThere)] {
            let (mut polls, began) = after_a_cycle(outcome);
            assert_eq!(polls.due(), began + HOUR);
            let wake = Wake::default();
            for milliseconds in 1..5000 {
                polls.hasten(&wake, began + Duration::from_millis(milliseconds));
                assert_eq!(polls.due(), began + SPACING);
            }
        }
    }

    #[test]
    fn sighup_starts_a_cycle_at_once_and_only_one() {
        let (mut polls, began) = after_a_cycle(Ok(()));
        let wake = Wake::default();
        wake.poll_at_once();
        let now = began + Duration::from_secs(1);
        polls.hasten(&wake, now);
        assert_eq!(polls.due(), now);
        polls.ended(now, now, &report(Ok(())));
        polls.hasten(&wake, now);
        assert_eq!(polls.due(), now + SPACING);
    }

    #[test]
    fn notifications_never_delay_a_poll() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut polls = Polls::new(Interval::within(second, second, 100, HOUR, 1), now);
        polls.hasten(&Wake::default(), now);
        assert_eq!(polls.due(), now);
        polls.ended(now, now, &report(Ok(())));
        polls.hasten(&Wake::default(), now);
        assert_eq!(polls.due(), now + second);
    }
}
