//! The options. The defaults follow Harvest's documents. If the documents say nothing, the default is the most
//! likely behaviour; the README lists these guesses.

use std::time::Duration;

/// Behaviour that Harvest changed over time, that is undocumented, or that Harvest can configure.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each option is one independent fact about Harvest")]
pub struct Options {
    /// The pagination of lists that support cursors.
    pub paging: Paging,
    /// The maximum and the default of `per_page`: 2000 today, 100 until 2022.
    pub max_per_page: usize,
    /// Whether `updated_since` includes records with exactly this `updated_at`.
    pub updated_since_inclusive: bool,
    /// The rate limit; `None` disables it.
    pub limit: Option<Limit>,
    /// Whether refused requests count against the rate limit, as they did in v1.
    pub refused_requests_count: bool,
    /// Whether requests to Harvest ID count against the rate limit.
    pub identity_requests_count: bool,
    /// Whether archiving a user sets the `updated_at` of the user's assignments.
    pub archiving_touches_assignments: bool,
    /// Whether a change of rates sets the `updated_at` of the user.
    pub rates_touch_users: bool,
    /// Whether a change of job roles sets the `updated_at` of the user.
    pub roles_touch_users: bool,
    /// Whether a write request is refused if another user has the same e-mail address.
    pub unique_emails: bool,
    /// Whether e-mail addresses that differ only in case are different addresses.
    pub case_sensitive_emails: bool,
    /// Whether the e-mail address of an archived user is free for other users.
    pub archived_users_free_emails: bool,
    /// Whether a write request ignores a new name or e-mail address of an archived user. Without this option, the
    /// request is refused.
    pub archived_names_are_ignored: bool,
    /// Whether a user who is created as archived gets an invitation.
    pub archived_users_are_invited: bool,
    /// The maximum number of active users; `None` disables it.
    pub seats: Option<usize>,
    /// Whether a request to delete an assignment with time entries archives it, as in v1. Without this option, the
    /// request is refused.
    pub assignments_with_time_are_archived: bool,
    /// Whether assigning a user again restores the archived assignment. Without this option, it creates another one.
    pub assigning_again_restores: bool,
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
            refused_requests_count: false,
            identity_requests_count: false,
            archiving_touches_assignments: true,
            rates_touch_users: false,
            roles_touch_users: false,
            unique_emails: true,
            case_sensitive_emails: false,
            archived_users_free_emails: false,
            archived_names_are_ignored: false,
            archived_users_are_invited: true,
            seats: None,
            assignments_with_time_are_archived: false,
            assigning_again_restores: false,
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
