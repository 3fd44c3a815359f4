//! The versions of PostgreSQL that rosterd works with.

use std::ops::RangeInclusive;

/// The supported major versions.
pub(super) const SUPPORTED: RangeInclusive<u32> = 15..=18;
