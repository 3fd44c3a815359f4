//! When the next poll of an account is due, and which notifications make it earlier.

use std::time::Duration;

use tokio::time::Instant;

use super::schedule::{self, IDLE_REQUESTS, Interval};
use crate::sync::report::{CycleMode, CycleReport};
use crate::sync::wake::Wake;

/// Minimum time between the starts of two cycles that are caused by notifications. Any login of the database can send
/// `NOTIFY roster_sync`. A row in `roster.requests`, which only the owner of the schema can write, has no such limit.
const MIN_CYCLE_SPACING: Duration = Duration::from_secs(5);

/// The schedule of an account while this process holds its lease.
pub(super) struct Polls {
    bounds: Interval,
    interval: Duration,
    cost: u64,
    failures: u32,
    /// When the last cycle started, and when the next is due.
    started: Option<Instant>,
    due: Instant,
    /// When the worker last queried requests.
    pub(super) queried: Instant,
}

impl Polls {
    /// The first poll is due `now`.
    pub(super) fn new(bounds: Interval, now: Instant) -> Self {
        let (interval, cost) = (bounds.slowest, IDLE_REQUESTS);
        Self { bounds, interval, cost, failures: 0, started: None, due: now, queried: now }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Until when rate histories may be read, if the last cycle succeeded.
    pub(super) fn rates_until(&self) -> Option<Instant> {
        (self.failures == 0).then_some(self.due)
    }

    /// Schedules the next poll after a cycle, whether a poll or a request caused the cycle. Returns the interval to the
    /// next poll, or the back-off after a failure.
    pub(super) fn cycle_ended(&mut self, started: Instant, now: Instant, report: &CycleReport) -> Duration {
        self.started = Some(started);
        let (from, wait) = if report.outcome.is_ok() {
            if report.mode == CycleMode::Incremental {
                self.cost = report.requests;
            }
            self.interval = self.bounds.next(self.interval, self.cost, report.wrote());
            self.failures = 0;
            (started, self.interval)
        } else {
            self.failures += 1;
            (now, schedule::backoff(self.bounds.slowest, self.failures))
        };
        self.due = from + wait;
        wait
    }

    /// Makes the next poll due as early as permitted, after a notification without a request.
    pub(super) fn advance(&mut self, wake: &Wake, now: Instant) {
        let earliest =
            if wake.take_at_once() { now } else { self.started.map_or(now, |it| it + MIN_CYCLE_SPACING) };
        self.due = self.due.min(earliest);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::roster::AccountId;
    use crate::sync::error::CycleError;

    const HOUR: Duration = Duration::from_hours(1);

    fn report(outcome: Result<(), CycleError>) -> CycleReport {
        let mut report = CycleReport::new(AccountId(1), CycleMode::Incremental, DateTime::UNIX_EPOCH);
        report.outcome = outcome;
        report
    }

    fn polls_after_cycle(outcome: Result<(), CycleError>) -> (Polls, Instant) {
        let now = Instant::now();
        let mut polls = Polls::new(Interval::within(HOUR, HOUR, 100, HOUR, 1), now);
        polls.cycle_ended(now, now, &report(outcome));
        (polls, now)
    }

    #[test]
    fn notifications_start_no_cycle_within_five_seconds_of_the_last_one_even_during_back_off() {
        for outcome in [Ok(()), Err(CycleError::EmptyUserList)] {
            let (mut polls, start) = polls_after_cycle(outcome);
            assert_eq!(polls.due(), start + HOUR);
            let wake = Wake::default();
            for milliseconds in 1..5000 {
                polls.advance(&wake, start + Duration::from_millis(milliseconds));
                assert_eq!(polls.due(), start + MIN_CYCLE_SPACING);
            }
        }
    }

    #[test]
    fn sighup_starts_one_cycle_at_once() {
        let (mut polls, start) = polls_after_cycle(Ok(()));
        let wake = Wake::default();
        wake.poll_at_once();
        let now = start + Duration::from_secs(1);
        polls.advance(&wake, now);
        assert_eq!(polls.due(), now);
        polls.cycle_ended(now, now, &report(Ok(())));
        polls.advance(&wake, now);
        assert_eq!(polls.due(), now + MIN_CYCLE_SPACING);
    }

    #[test]
    fn notifications_never_delay_a_poll() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut polls = Polls::new(Interval::within(second, second, 100, HOUR, 1), now);
        polls.advance(&Wake::default(), now);
        assert_eq!(polls.due(), now);
        polls.cycle_ended(now, now, &report(Ok(())));
        polls.advance(&Wake::default(), now);
        assert_eq!(polls.due(), now + second);
    }
}
