//! When a change happens, and from when on it shows.

use chrono::{DateTime, Utc};

use crate::clock::Stamp;

/// The circumstances of one change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The second it is stamped with, however late it shows.
    pub now: Stamp,
    /// From when on it shows.
    pub shows: Shows,
    silent: bool,
}

/// From when on a change shows; the earlier is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shows {
    /// With the next look.
    AtOnce,
    /// Not before this instant of the simulator's clock.
    From(DateTime<Utc>),
}

impl Moment {
    /// A change that shows at once.
    pub fn at(now: Stamp) -> Self {
        Self { now, shows: Shows::AtOnce, silent: false }
    }

    /// The same change, showing later.
    pub fn showing(self, shows: Shows) -> Self {
        Self { shows, ..self }
    }

    /// The same change without a new `updated_at`: some changes in Harvest have none.
    pub fn silently(self) -> Self {
        Self { silent: true, ..self }
    }

    /// Silently, unless the switch is on.
    pub fn silently_unless(self, switch: bool) -> Self {
        if switch { self } else { self.silently() }
    }

    /// Moves a record's `updated_at`, as far as this change does.
    pub fn touch(self, updated_at: &mut Stamp) {
        if self.silent {
            return;
        }
        *updated_at = match self.shows {
            Shows::AtOnce => self.now,
            // The clock may have been turned back: what comes to light late never takes a stamp back with it.
            Shows::From(_) => self.now.max(*updated_at),
        };
    }
}
