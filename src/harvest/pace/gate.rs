//! The gate: one "not before" instant for everything of a budget.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// A longer `Retry-After` is taken for this long: a mistyped header must not silence a daemon for a day.
const LONGEST: Duration = Duration::from_mins(5);

/// Reads a `Retry-After` header: whole seconds, or an HTTP date, of which `now` (best: the same
/// response's `Date`) is taken off. None for anything else.
pub fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::<Utc>::from(httpdate::parse_http_date(header).ok()?);
    Some((date - now).to_std().unwrap_or_default())
}

/// Closed until Harvest wants to hear from us again.
pub(super) struct Gate {
    not_before: Option<Instant>,
    /// A pause of ours that the other processes have not been told of.
    unrecorded: Option<Instant>,
    /// How much later this process goes through, so that not all come at once.
    jitter: Duration,
}

impl Gate {
    pub(super) fn new(jitter: Duration) -> Self {
        Self { not_before: None, unrecorded: None, jitter }
    }

    /// Until when the gate is closed; none when it is open.
    pub(super) fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.map(|at| at + self.jitter).filter(|&at| at > now)
    }

    /// Harvest asked for silence. Returns the pause if the gate was open: of many requests under way at
    /// once, the first refusal is news.
    pub(super) fn close(&mut self, now: Instant, pause: Duration) -> Option<Duration> {
        let was_open = self.closed_until(now).is_none();
        let pause = pause.min(LONGEST);
        if self.extend(now + pause) {
            self.unrecorded = self.not_before;
        }
        was_open.then_some(pause)
    }

    /// Moves the instant, never back. True when it moved.
    pub(super) fn extend(&mut self, until: Instant) -> bool {
        let further = self.not_before.is_none_or(|at| at < until);
        if further {
            self.not_before = Some(until);
        }
        further
    }

    pub(super) fn unrecorded(&self) -> Option<Instant> {
        self.unrecorded
    }

    pub(super) fn recorded(&mut self, until: Instant) {
        self.unrecorded = self.unrecorded.filter(|&at| at > until);
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 0).unwrap();
        assert_eq!(retry_after("15", now), Some(15 * SECOND));
        assert_eq!(retry_after(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Sun, 01 Mar 2026 12:00:20 GMT", now), Some(20 * SECOND));
        assert_eq!(retry_after("Sun, 01 Mar 2026 11:00:00 GMT", now), Some(Duration::ZERO), "already past");
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense:?}");
        }
    }

    #[test]
    fn the_gate_moves_forward_only() {
        let now = Instant::now();
        let mut gate = Gate::new(Duration::ZERO);
        assert_eq!(gate.close(now, 30 * SECOND), Some(30 * SECOND));
        assert_eq!(gate.close(now + SECOND, 10 * SECOND), None);
        assert_eq!(gate.closed_until(now + 29 * SECOND), Some(now + 30 * SECOND));
        assert_eq!(gate.closed_until(now + 30 * SECOND), None);
    }

    #[test]
    fn a_pause_lasts_five_minutes_at_most() {
        let now = Instant::now();
        let mut gate = Gate::new(Duration::ZERO);
        assert_eq!(gate.close(now, 86_400 * SECOND), Some(300 * SECOND));
        assert_eq!(gate.closed_until(now), Some(now + 300 * SECOND));
    }

    #[test]
    fn jitter_delays_the_way_out_and_is_nobody_elses() {
        let now = Instant::now();
        let mut gate = Gate::new(SECOND);
        gate.close(now, 10 * SECOND);
        assert_eq!(gate.closed_until(now), Some(now + 11 * SECOND));
        assert_eq!(gate.unrecorded(), Some(now + 10 * SECOND));
    }

    #[test]
    fn a_pause_is_unrecorded_until_that_very_one_is_recorded() {
        let now = Instant::now();
        let mut gate = Gate::new(Duration::ZERO);
        gate.close(now, 10 * SECOND);
        let first = gate.unrecorded().unwrap();
        gate.close(now, 20 * SECOND);
        gate.recorded(first);
        assert_eq!(gate.unrecorded(), Some(now + 20 * SECOND));
        gate.recorded(now + 20 * SECOND);
        assert_eq!(gate.unrecorded(), None);
        assert!(gate.extend(now + 30 * SECOND), "heard from another process …");
        assert_eq!(gate.unrecorded(), None, "… and not to be told again");
    }
}
