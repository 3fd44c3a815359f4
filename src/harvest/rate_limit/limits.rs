//! The limit, and what a request says about itself.

use std::time::Duration;

/// Harvest's limit and the part of it that rosterd may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests that Harvest accepts in any window.
    pub requests: u32,
    pub window: Duration,
    /// Requests of these that rosterd leaves to users and other programs.
    pub reserve: u32,
    /// The longest time between the grant of a permit and the arrival of its request at Harvest, also if the sender has
    /// given up: at least the client's timeout.
    pub grace: Duration,
}

impl RateLimits {
    /// Permits of the whole budget; at least one, because a budget without permits would block for ever.
    pub fn permits(&self) -> u32 {
        self.requests.saturating_sub(self.reserve).max(1)
    }

    /// The longest burst, a tenth of the limit.
    pub(super) fn burst(&self) -> u32 {
        (self.requests / 10).max(1)
    }

    /// How long a permit stays in use after the response to its request.
    pub(crate) fn cooldown(&self) -> Duration {
        with_slack(self.window)
    }

    /// How long after a permit was taken its request may be sent: an idle poll sends all its requests in this time, and
    /// after a 429 other processes use no permit that they took longer ago.
    pub(super) fn use_within(&self) -> Duration {
        self.window * 2 / 15
    }

    /// How long a permit stays in use without a response: its request may arrive so late, and then counts for one
    /// window.
    pub(crate) fn hold(&self) -> Duration {
        with_slack(self.use_within() + self.grace + self.window)
    }

    /// A waiting request tries again after this time at the latest.
    pub(super) fn retry_interval(&self) -> Duration {
        self.window / 15
    }
}

/// Adds 1.6 %, for clocks that run at different rates.
fn with_slack(span: Duration) -> Duration {
    span + span / 64
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Polls and other requests that are due now; may use all permits.
    Poll,
    /// Long reads; leave a third of the permits to polls, unless no poll is due within the next window.
    Background,
    /// Writes; leave the permits of one idle poll, unless no poll is due within the next window.
    Write,
}
