//! The options. The defaults follow Harvest's documents. If the documents say nothing, the default is the most
//! likely behaviour; the README lists these guesses.

use std::time::Duration;

/// Behaviour that Harvest changed over time, that is undocumented, or that Harvest can configure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pagination of lists that support cursors.
    pub paging: Paging,
    /// The maximum and the default of `per_page`: 2000 today, 100 until 2022.
    pub max_per_page: usize,
    /// Whether `updated_since` includes records with exactly this `updated_at`.
    pub updated_since_inclusive: bool,
    /// The rate limit; `None` disables it.
    pub limit: Option<Limit>,
    /// The maximum number of active users; `None` disables it.
    pub seats: Option<usize>,
    /// The record format.
    pub records: Records,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            paging: Paging::Cursor,
            max_per_page: 2000,
            updated_since_inclusive: false,
            limit: Some(Limit::default()),
            seats: None,
            records: Records::Current,
        }
    }
}

/// The pagination of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// By opaque cursors, which contain an id. Only the first and the last page have page numbers.
    Cursor,
    /// By page number, as in all lists before 2023.
    Number,
}

/// A rate limit: at most `requests` in each sliding `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The maximum number of requests.
    pub requests: usize,
    /// The length of the window.
    pub window: Duration,
}

impl Default for Limit {
    /// The documented general limit: 100 requests in 15 seconds.
    fn default() -> Self {
        Self { requests: 100, window: Duration::from_secs(15) }
    }
}

/// Record formats. Harvest added and removed fields without a new API version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// As recorded from November 2022 to 2024: `access_roles` and `permissions_claims`.
    Current,
    /// As recorded in January 2019: with `is_admin` and four similar flags, without `use_default_rates`.
    Of2019,
}
