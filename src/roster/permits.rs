//! Messages between a process and the permit table of a request budget.

use std::time::Duration;

use uuid::Uuid;

#[derive(Clone, Debug, Default)]
pub struct PermitRequest {
    /// New random ids, one for each permit.
    pub ids: Vec<Uuid>,
    /// How many permits of the budget may be in use.
    pub of: u32,
    /// How many of them long reads, or these and writes, may use while a poll may come; `None` for polls.
    pub background: Option<u32>,
    /// Whether this process polls soon.
    pub polls_soon: bool,
    /// How long a permit counts without a response.
    pub hold: Duration,
    /// Permits that the process does not need any more.
    pub returned: Returned,
}

/// The answer to a [`PermitRequest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many of the ids, from the first, are permits now.
    pub permits: usize,
    /// The rest of the budget's pause; zero if there is none.
    pub pause: Duration,
    /// When the next permit in use becomes free at the latest.
    pub next_free: Option<Duration>,
}

/// Permits that a process does not need any more. If a message with them is lost, they count for the time of
/// [`PermitRequest::hold`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Returned {
    /// Permits whose requests were answered.
    pub answered: Vec<Uuid>,
    /// In how many seconds each of them becomes free; negative if that has passed.
    pub free_in: Vec<f64>,
    /// Permits that no request has used.
    pub unused: Vec<Uuid>,
}
