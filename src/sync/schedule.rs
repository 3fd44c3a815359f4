//! When an account is read next, and how much of it. Pure: time comes in as an argument.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::roster::Resource;
use crate::store::state::AccountState;

/// How much a cycle reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What changed since the watermark.
    Incremental,
    /// Everything.
    Full,
}

impl Mode {
    /// As tables, events and logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Incremental => "incremental",
            Self::Full => "full",
        }
    }
}

/// After so many failures in a row the wait no longer grows.
const MOST_DOUBLINGS: u32 = 6;
/// The longest wait between tries.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// Full when a list has never been read to its end, when a full read is due, or when there are records that an older
/// rosterd could not read.
pub fn mode(now: DateTime<Utc>, known: &AccountState) -> Mode {
    let due = |resource: Resource| {
        let list = known.list(resource);
        list.watermark.is_none() || list.next_full_at.is_none_or(|at| at <= now) || list.has_old_rejections
    };
    if Resource::LISTS.into_iter().any(due) { Mode::Full } else { Mode::Incremental }
}

/// How long to wait after a cycle that took so long. After a good one: until the next beat of the interval; after
/// failures: doubling, so that a source in trouble is left alone, but never longer than five minutes or one
/// interval, whichever is more.
pub fn wait(poll_interval: Duration, took: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return poll_interval.saturating_sub(took);
    }
    let doubled = poll_interval.saturating_mul(1 << (failures - 1).min(MOST_DOUBLINGS));
    doubled.min(LONGEST_WAIT.max(poll_interval))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::roster::watermark::Watermark;
    use crate::store::state::ListState;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).expect("a time")
    }

    fn read(next_full_at: i64) -> ListState {
        ListState {
            watermark: Some(Watermark { at: at(0), offset: None }),
            last_success_at: Some(at(0)),
            next_full_at: Some(at(next_full_at)),
            ..ListState::default()
        }
    }

    fn account(lists: impl IntoIterator<Item = (Resource, ListState)>) -> AccountState {
        AccountState { lists: HashMap::from_iter(lists), owner: None }
    }

    #[test]
    fn an_account_that_was_never_read_to_its_end_is_read_fully() {
        assert_eq!(mode(at(1), &account([])), Mode::Full);
        assert_eq!(mode(at(1), &account([(Resource::Users, read(3600))])), Mode::Full);
    }

    #[test]
    fn a_full_read_is_due_by_the_clock() {
        let states = account([(Resource::Users, read(3600)), (Resource::Assignments, read(3600))]);
        assert_eq!(mode(at(3599), &states), Mode::Incremental);
        assert_eq!(mode(at(3600), &states), Mode::Full);
    }

    #[test]
    fn what_an_older_rosterd_could_not_read_is_tried_again() {
        let old = ListState { has_old_rejections: true, ..read(3600) };
        let known = account([(Resource::Users, read(3600)), (Resource::Assignments, old)]);
        assert_eq!(mode(at(1), &known), Mode::Full);
    }

    #[test]
    fn polls_keep_their_beat_and_failures_back_off() {
        let minute = Duration::from_mins(1);
        assert_eq!(wait(minute, Duration::from_secs(10), 0), Duration::from_secs(50));
        assert_eq!(wait(minute, Duration::from_secs(90), 0), Duration::ZERO);
        assert_eq!(wait(minute, Duration::ZERO, 1), minute);
        assert_eq!(wait(minute, Duration::ZERO, 2), Duration::from_mins(2));
        assert_eq!(wait(minute, Duration::ZERO, 99), Duration::from_mins(5));
        assert_eq!(wait(Duration::from_hours(1), Duration::ZERO, 3), Duration::from_hours(1));
    }
}
