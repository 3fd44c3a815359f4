//! `--since`: an age or a time from which a command begins.

use chrono::{DateTime, TimeDelta, Utc};

use crate::app::{App, Failure};

/// Subtracting a larger age could leave the range of times.
const MAX_AGE: TimeDelta = TimeDelta::days(36_500);

/// What `--since` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Age(TimeDelta),
    Time(DateTime<Utc>),
}

impl Since {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let age = humantime::parse_duration(text).ok().and_then(|age| TimeDelta::from_std(age).ok());
        let age = age.filter(|age| *age < MAX_AGE).map(Self::Age);
        let time = || DateTime::parse_from_rfc3339(text).ok().map(|time| Self::Time(time.to_utc()));
        age.or_else(time)
            .ok_or_else(|| "give an age such as 2h, or a time such as 2026-03-01T09:00:00Z".to_owned())
    }

    /// The time, by the clock of the database.
    pub(super) async fn time(self, app: &App) -> Result<DateTime<Utc>, Failure> {
        Ok(match self {
            Self::Age(age) => app.store.now().await? - age,
            Self::Time(time) => time,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_accepts_an_age_or_a_time() {
        assert_eq!(Since::parse("2h"), Ok(Since::Age(TimeDelta::hours(2))));
        let time = Since::Time(DateTime::UNIX_EPOCH);
        assert_eq!(Since::parse("1970-01-01T00:00:00Z"), Ok(time));
        assert_eq!(Since::parse("1970-01-01T01:00:00+01:00"), Ok(time));
        for wrong in ["", "2", "yesterday", "2026-03-01", "999999 years"] {
            assert!(Since::parse(wrong).is_err(), "{wrong}");
        }
    }
}
