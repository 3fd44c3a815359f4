//! The time of a change, and the time from which clients see it.

use chrono::{DateTime, Utc};

use crate::clock::Timestamp;

/// The timing of one change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The time of the change: `created_at` and `updated_at` get this value even if the change becomes visible
    /// later.
    pub now: Timestamp,
    pub visible_from: VisibleFrom,
    keeps_updated_at: bool,
}

/// When a change becomes visible. Earlier values compare as smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VisibleFrom {
    /// The next request sees the change.
    Now,
    /// The change is visible from this time of the simulator's clock.
    Time(DateTime<Utc>),
}

impl Moment {
    /// A change that is visible immediately.
    pub fn at(now: Timestamp) -> Self {
        Self { now, visible_from: VisibleFrom::Now, keeps_updated_at: false }
    }

    pub fn visible_from(self, visible_from: VisibleFrom) -> Self {
        Self { visible_from, ..self }
    }

    /// The same change without a new `updated_at`. Harvest has such changes, for example of rates.
    pub fn keeping_updated_at(self) -> Self {
        Self { keeps_updated_at: true, ..self }
    }

    /// Sets `updated_at` to the time of this change, unless the change keeps it.
    pub fn touch(self, updated_at: &mut Timestamp) {
        if self.keeps_updated_at {
            return;
        }
        *updated_at = match self.visible_from {
            VisibleFrom::Now => self.now,
            // A test may have set the clock back. A delayed change must not decrease `updated_at`.
            VisibleFrom::Time(_) => self.now.max(*updated_at),
        };
    }
}
