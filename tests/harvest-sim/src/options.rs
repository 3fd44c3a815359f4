//! The switches. The default of each is what the documents say, or, where they say nothing, what the
//! evidence makes likely; the README lists which of them are guesses.

use std::time::Duration;

/// How this Harvest behaves where Harvest's own behaviour changed, is undocumented or can be set.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each switch is one independent fact about Harvest")]
pub struct Options {
    /// How the lists that know cursors are paged.
    pub paging: Paging,
    /// The largest `per_page`, and its default: 2000 today, 100 until 2022.
    pub max_per_page: usize,
    /// `updated_since` also finds what was updated in that very second.
    pub updated_since_inclusive: bool,
    /// How many requests are let through; `None` lets everything through.
    pub limit: Option<Limit>,
    /// A refused request counts against the window too, as it did in v1.
    pub refused_requests_count: bool,
    /// Requests to the identity host count against the window too.
    pub identity_requests_count: bool,
    /// The assignments that archiving a person archives get a new `updated_at`.
    pub archiving_touches_assignments: bool,
    /// A change of rate moves the `updated_at` of the person.
    pub rates_touch_users: bool,
    /// A change of job roles moves the `updated_at` of the person.
    pub roles_touch_users: bool,
    /// A request cannot give a person the address of another one, archived people included.
    pub unique_emails: bool,
    /// Which generation of records is sent.
    pub records: Records,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            paging: Paging::Cursor,
            max_per_page: 2000,
            updated_since_inclusive: false,
            limit: Some(Limit::default()),
            refused_requests_count: false,
            identity_requests_count: false,
            archiving_touches_assignments: true,
            rates_touch_users: false,
            roles_touch_users: false,
            unique_emails: true,
            records: Records::Current,
        }
    }
}

/// How a list leads on to its next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// By an opaque cursor, a keyset on the id; middle pages have no numbers.
    Cursor,
    /// By the page's number, as everywhere before 2023.
    Number,
}

/// At most `requests` in any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many requests pass.
    pub requests: usize,
    /// In how long a window.
    pub window: Duration,
}

impl Default for Limit {
    /// The documented general limit: 100 requests in 15 seconds.
    fn default() -> Self {
        Self { requests: 100, window: Duration::from_secs(15) }
    }
}

/// Generations of records: fields came and went without a change of version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// As recorded from November 2022 to 2024: `access_roles` and `permissions_claims`.
    Current,
    /// As recorded in January 2019: `is_admin` and its kin, no `use_default_rates`.
    Of2019,
}
