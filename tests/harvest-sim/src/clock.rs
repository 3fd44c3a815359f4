//! Harvest's clock: whole seconds, and as wrong as a test wants it to be.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Serialize, Serializer};

/// A point in time as Harvest keeps it: UTC, without a fraction of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(i64);

impl Stamp {
    /// The stamp of this many seconds since 1970.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// So many seconds later.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0 + seconds)
    }

    /// The same instant for those who calculate with dates.
    pub fn datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0, 0).unwrap_or_default()
    }

    /// This instant and `by` more, in the form of HTTP's `Date` header.
    pub(crate) fn http_date(self, by: Duration) -> String {
        let since_epoch = Duration::from_secs(u64::try_from(self.0).unwrap_or(0));
        httpdate::fmt_http_date(UNIX_EPOCH + since_epoch + by)
    }
}

impl From<DateTime<Utc>> for Stamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.datetime().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The machine's clock with an offset, or a clock that stands still.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    offset: TimeDelta,
    frozen: Option<DateTime<Utc>>,
}

impl Clock {
    pub fn now(&self) -> Stamp {
        Stamp::from(self.instant())
    }

    /// What the clock shows, with the fraction of the second.
    pub fn instant(&self) -> DateTime<Utc> {
        self.frozen.unwrap_or_else(wall_clock) + self.offset
    }

    /// What it will show when so much time has passed.
    pub fn ahead(&self, by: Duration) -> DateTime<Utc> {
        let by = TimeDelta::from_std(by).ok();
        by.and_then(|by| self.instant().checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    pub fn shift(&mut self, by: TimeDelta) {
        self.offset += by;
    }

    /// Stops the clock where it stands, so that a test can put two edits into the same second.
    pub fn freeze(&mut self) {
        self.frozen.get_or_insert_with(wall_clock);
    }

    pub fn thaw(&mut self) {
        self.frozen = None;
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door by which the machine's time comes in")]
fn wall_clock() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_written_in_utc_without_a_fraction() {
        assert_eq!(Stamp::from_unix(1_620_202_772).to_string(), "2021-05-05T08:19:32Z");
        assert_eq!(
            Stamp::from_unix(1_620_202_772).http_date(Duration::from_secs(1)),
            "Wed, 05 May 2021 08:19:33 GMT"
        );
    }

    #[test]
    fn a_frozen_clock_moves_only_when_it_is_moved() {
        let mut clock = Clock::default();
        clock.freeze();
        let before = clock.now();
        clock.shift(TimeDelta::seconds(-7));
        assert_eq!(clock.now().unix(), before.unix() - 7);
    }
}
