//! The simulator's clock, which tests can shift and freeze.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Serialize, Serializer};

/// A time in UTC with whole seconds, as Harvest stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Converts seconds since 1970.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// The seconds since 1970.
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// Adds seconds.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0 + seconds)
    }

    /// Converts to a [`DateTime`] for date arithmetic.
    pub fn datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0, 0).unwrap_or_default()
    }

    /// Adds `by` and formats the result as an HTTP date.
    pub(crate) fn http_date(self, by: Duration) -> String {
        let since_epoch = Duration::from_secs(u64::try_from(self.0).unwrap_or(0));
        httpdate::fmt_http_date(UNIX_EPOCH + since_epoch + by)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.datetime().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The system clock plus an offset, or a frozen clock.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    offset: TimeDelta,
    frozen: Option<DateTime<Utc>>,
}

impl Clock {
    pub fn now(&self) -> Timestamp {
        Timestamp::from(self.instant())
    }

    /// The current time with fractions of a second.
    pub fn instant(&self) -> DateTime<Utc> {
        self.frozen.unwrap_or_else(wall_clock) + self.offset
    }

    /// The current time plus `by`.
    pub fn ahead(&self, by: Duration) -> DateTime<Utc> {
        let by = TimeDelta::from_std(by).ok();
        by.and_then(|by| self.instant().checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    pub fn shift(&mut self, by: TimeDelta) {
        self.offset += by;
    }

    /// Stops the clock, so that a test can make two edits in the same second.
    pub fn freeze(&mut self) {
        self.frozen.get_or_insert_with(wall_clock);
    }
}

#[expect(clippy::disallowed_methods, reason = "the only place that reads the system clock")]
fn wall_clock() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_formatted_in_utc_without_fraction() {
        assert_eq!(Timestamp::from_unix(1_620_202_772).to_string(), "2021-05-05T08:19:32Z");
        assert_eq!(
            Timestamp::from_unix(1_620_202_772).http_date(Duration::from_secs(1)),
            "Wed, 05 May 2021 08:19:33 GMT"
        );
    }

    #[test]
    fn frozen_clock_changes_only_by_shift() {
        let mut clock = Clock::default();
        clock.freeze();
        let before = clock.now();
        clock.shift(TimeDelta::seconds(-7));
        assert_eq!(clock.now().unix(), before.unix() - 7);
    }
}
