//! The only module that reads the system clock. All other code receives a time or a [`Clock`].

use chrono::{DateTime, Utc};

/// The source of the current time, injected so that tests can set it.
pub trait Clock: Send + Sync {
    /// The current time, in UTC.
    fn now(&self) -> DateTime<Utc>;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the only place that reads the system clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
