//! The watermark: how far a list has been read.
//!
//! It is the time before the first request of a complete read, by the earlier of Harvest's clock and this host's clock. To
//! lose a change, both clocks would have to be wrong. It is never the end of a read and never the newest `updated_at`: a
//! single record with a time in the future would hide all later changes.

use chrono::{DateTime, TimeDelta, Utc};

/// The time at the start of a read, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStart {
    /// This host's clock, just before the first request.
    pub local: DateTime<Utc>,
    /// Harvest's clock at that moment: its `Date` header less the response time; `None` without the header.
    pub server: Option<DateTime<Utc>>,
}

impl ReadStart {
    pub fn watermark(&self) -> DateTime<Utc> {
        self.server.map_or(self.local, |server| server.min(self.local))
    }

    /// Harvest's clock less this host's.
    pub fn offset(&self) -> Option<TimeDelta> {
        self.server.map(|server| server - self.local)
    }
}

/// The result of the last complete read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    pub at: DateTime<Utc>,
    /// [`ReadStart::offset`] of that read.
    pub offset: Option<TimeDelta>,
}

impl Watermark {
    pub fn after(start: &ReadStart) -> Self {
        Self { at: start.watermark(), offset: start.offset() }
    }

    pub fn updated_since(&self, skew_buffer: TimeDelta) -> DateTime<Utc> {
        self.at - skew_buffer
    }

    /// Whether the read must be a full one: a clock was set back to before the watermark, or the difference of the clocks
    /// changed, so that earlier and later times are not comparable.
    ///
    /// Differences below half the buffer are tolerated. `Date` has whole seconds, so a poll can seem to start before the
    /// one before it, and the buffer of the next read covers such records.
    pub fn clock_moved(&self, start: &ReadStart, skew_buffer: TimeDelta) -> bool {
        let tolerated = skew_buffer / 2;
        let drift = match (self.offset, start.offset()) {
            (Some(then), Some(now)) => (now - then).abs(),
            _ => TimeDelta::zero(),
        };
        start.watermark() < self.at - tolerated || drift > tolerated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).expect("a time")
    }
    fn start(local: i64, server: i64) -> ReadStart {
        ReadStart { local: at(local), server: Some(at(server)) }
    }
    const BUFFER: TimeDelta = TimeDelta::seconds(60);

    #[test]
    fn the_watermark_is_the_earlier_clock() {
        assert_eq!(start(100, 40).watermark(), at(40));
        assert_eq!(start(100, 4000).watermark(), at(100));
        assert_eq!(ReadStart { local: at(5), server: None }.watermark(), at(5));
    }

    #[test]
    fn the_next_read_starts_one_buffer_before_the_watermark() {
        assert_eq!(Watermark::after(&start(100, 100)).updated_since(BUFFER), at(40));
    }

    #[test]
    fn clocks_that_jump_either_way_require_a_full_read() {
        let mark = Watermark::after(&start(1000, 1000));
        assert!(!mark.clock_moved(&start(1060, 1061), BUFFER), "a second of jitter is tolerated");
        assert!(!mark.clock_moved(&start(999, 998), BUFFER), "`Date` has no fractions");
        assert!(mark.clock_moved(&start(1060, 400), BUFFER), "Harvest's clock was set back");
        assert!(mark.clock_moved(&start(1060, 4660), BUFFER), "Harvest's clock jumped forward");
        assert!(mark.clock_moved(&start(900, 1060), BUFFER), "this host's clock was set back");
    }

    #[test]
    fn constant_clock_offset_requires_no_full_read() {
        let mark = Watermark::after(&start(10_000, 6_400));
        assert!(!mark.clock_moved(&start(10_060, 6_460), BUFFER));
    }
}
