//! The versions of PostgreSQL that rosterd works with.

use std::ops::RangeInclusive;

pub(super) const SUPPORTED: RangeInclusive<u32> = 15..=18;
