//! How far a list has been read, and when that may be believed.
//!
//! The watermark is a clock's reading from before the first request of a read that completed: the earlier of
//! Harvest's clock and ours, so that two clocks must be wrong to lose anything, and one that goes back only makes
//! us read more. Never the end of a read, never the newest stamp seen: `updated_since` is strictly greater,
//! stamps are whole seconds, lists come newest-created first, and one record stamped in the future would
//! blind a daemon that believed it.

use chrono::{DateTime, TimeDelta, Utc};

/// Both clocks at the start of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStart {
    /// Ours, just before the first request.
    pub local: DateTime<Utc>,
    /// Harvest's at that moment: its `Date` less the time the answer took; `None` where it sent no `Date`.
    pub server: Option<DateTime<Utc>>,
}

impl ReadStart {
    /// What the watermark becomes if this read completes.
    pub fn watermark(&self) -> DateTime<Utc> {
        self.server.map_or(self.local, |server| server.min(self.local))
    }

    /// Harvest's clock less ours.
    pub fn offset(&self) -> Option<TimeDelta> {
        self.server.map(|server| server - self.local)
    }
}

/// What is remembered of the last complete read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// See the module.
    pub at: DateTime<Utc>,
    /// [`ReadStart::offset`] of that read.
    pub offset: Option<TimeDelta>,
}

impl Watermark {
    /// The watermark that a complete read leaves.
    pub fn after(start: &ReadStart) -> Self {
        Self { at: start.watermark(), offset: start.offset() }
    }

    /// What the next read asks for.
    pub fn updated_since(&self, skew_buffer: TimeDelta) -> DateTime<Utc> {
        self.at - skew_buffer
    }

    /// Whether a read that starts so must be a full one: the clocks went back behind the watermark, or Harvest's
    /// moved against ours, so that stamps from before and after do not compare.
    ///
    /// Less than half the buffer is nothing: `Date` has whole seconds only and the answer's time is taken off, so a
    /// poll right after another may well seem to start before it; and what is stamped so much too early is still
    /// within the next read.
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
    fn the_earlier_clock_counts() {
        assert_eq!(start(100, 40).watermark(), at(40));
        assert_eq!(start(100, 4000).watermark(), at(100));
        assert_eq!(ReadStart { local: at(5), server: None }.watermark(), at(5));
    }

    #[test]
    fn the_next_read_goes_back_by_the_buffer() {
        assert_eq!(Watermark::after(&start(100, 100)).updated_since(BUFFER), at(40));
    }

    #[test]
    fn a_clock_that_jumps_either_way_asks_for_a_full_read() {
        let mark = Watermark::after(&start(1000, 1000));
        assert!(!mark.clock_moved(&start(1060, 1061), BUFFER), "a second of jitter is nothing");
        assert!(!mark.clock_moved(&start(999, 998), BUFFER), "so is Date's lack of fractions");
        assert!(mark.clock_moved(&start(1060, 400), BUFFER), "Harvest's went back");
        assert!(mark.clock_moved(&start(1060, 4660), BUFFER), "Harvest's jumped forward");
        assert!(mark.clock_moved(&start(900, 1060), BUFFER), "ours went back");
    }

    #[test]
    fn a_steady_offset_of_an_hour_is_no_reason() {
        let mark = Watermark::after(&start(10_000, 6_400));
        assert!(!mark.clock_moved(&start(10_060, 6_460), BUFFER));
    }
}
