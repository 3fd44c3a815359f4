//! The only place that reads the wall clock. Everything else is handed a time or a [`Clock`].

use chrono::{DateTime, Utc};

/// Where the time of day comes from.
pub trait Clock: Send + Sync {
    /// The time now, UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// This machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one door through which the time comes in")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
