//! The back-off that Harvest requests: a pause of all requests of a budget, and fewer requests after a 429.
//!
//! rosterd never exceeds its budget, so a 429 means that a program outside of it (with the same token, or behind the
//! same address) uses the limit too. A 429 halves the usable permits. They stay reduced for five minutes and then grow by
//! a twentieth of the budget per minute.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

/// The longest pause: a wrong `Retry-After` must not stop a daemon for a day.
const MAX_PAUSE: Duration = Duration::from_mins(5);
/// Minutes until the limit grows, and minutes in which it grows from nothing to the whole budget.
const REDUCED: u64 = 5;
const GROWTH: u64 = 20;

pub(super) struct Backoff {
    permits: u32,
    /// Added to the end of a pause, so that not all processes continue at once.
    jitter: Duration,
    paused_until: Option<Instant>,
    /// The end of a pause that this process started and that the database does not have yet.
    pub(super) unrecorded: Option<Instant>,
    /// When the usable permits were last reduced, and to how many.
    reduction: Option<(Instant, u32)>,
}

impl Backoff {
    pub(super) fn new(permits: u32, jitter: Duration) -> Self {
        Self { permits, jitter, paused_until: None, unrecorded: None, reduction: None }
    }

    pub(super) fn pause_end(&self, now: Instant) -> Option<Instant> {
        self.paused_until.map(|at| at + self.jitter).filter(|&at| at > now)
    }

    /// Handles a 429 or 503 to a request that was granted at `granted`. Returns the length of the pause if there was none
    /// before, so that among many concurrent requests only the first response is logged.
    pub(super) fn throttled(
        &mut self,
        status: StatusCode,
        pause: Duration,
        granted: Instant,
        now: Instant,
    ) -> Option<Duration> {
        // A 503 is not related to the number of requests. Requests in flight at a reduction do not reduce again.
        if status == StatusCode::TOO_MANY_REQUESTS && self.reduction.is_none_or(|(at, _)| granted > at) {
            self.reduction = Some((now, (self.usable(now) / 2).max(1)));
        }
        let (is_new, pause) = (self.pause_end(now).is_none(), pause.min(MAX_PAUSE));
        if self.pause_until(now + pause) {
            self.unrecorded = self.paused_until;
        }
        is_new.then_some(pause)
    }

    /// Moves the end of the pause later, never earlier; true if it moved.
    pub(super) fn pause_until(&mut self, until: Instant) -> bool {
        let is_later = self.paused_until.is_none_or(|at| at < until);
        if is_later {
            self.paused_until = Some(until);
        }
        is_later
    }

    pub(super) fn recorded(&mut self, until: Instant) {
        self.unrecorded = self.unrecorded.filter(|&at| at > until);
    }

    /// Permits that may be in use now.
    pub(super) fn usable(&self, now: Instant) -> u32 {
        let Some((at, left)) = self.reduction else { return self.permits };
        let minutes = (now.saturating_duration_since(at).as_secs() / 60).saturating_sub(REDUCED).min(GROWTH);
        let regained = (u64::from(self.permits) * minutes).div_ceil(GROWTH);
        left.saturating_add(u32::try_from(regained).unwrap_or(u32::MAX)).min(self.permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pause_is_never_shortened_and_lasts_at_most_five_minutes() {
        let (now, too_many) = (Instant::now(), StatusCode::TOO_MANY_REQUESTS);
        let mut backoff = Backoff::new(95, SECOND);
        assert_eq!(backoff.throttled(too_many, 30 * SECOND, now, now), Some(30 * SECOND));
        assert_eq!(backoff.throttled(too_many, 10 * SECOND, now, now + SECOND), None);
        assert_eq!(backoff.pause_end(now), Some(now + 31 * SECOND), "with the jitter");
        backoff.throttled(too_many, 86_400 * SECOND, now, now);
        backoff.recorded(now + 30 * SECOND);
        assert_eq!(backoff.unrecorded, Some(now + 300 * SECOND), "without the jitter");
        backoff.recorded(now + 300 * SECOND);
        assert!(backoff.pause_until(now + 310 * SECOND), "from another process");
        assert_eq!((backoff.unrecorded, backoff.pause_end(now + 311 * SECOND)), (None, None));
    }

    #[test]
    fn limit_after_429_is_halved_for_five_minutes_and_then_grows_by_a_twentieth_per_minute() {
        let sent = Instant::now();
        let now = sent + SECOND;
        let mut backoff = Backoff::new(95, SECOND);
        for _ in 0..10 {
            backoff.throttled(StatusCode::TOO_MANY_REQUESTS, SECOND, sent, now);
        }
        let usable = [0, 359, 360, 420, 960, 600_000].map(|seconds| backoff.usable(now + SECOND * seconds));
        assert_eq!(usable, [47, 47, 52, 57, 95, 95]);
        backoff.throttled(StatusCode::TOO_MANY_REQUESTS, SECOND, now + SECOND, now + SECOND);
        assert_eq!(backoff.usable(now + SECOND), 23);
    }
}
