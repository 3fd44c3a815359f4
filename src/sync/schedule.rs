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

/// What an idle poll asks: two lists and their totals.
pub const IDLE_REQUESTS: u64 = 4;
/// All polls of a budget together shall leave so many times as much to everything else.
const SHARE: u32 = 5;

/// From the start of one poll to the start of the next: always the same, or by what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// While things change, where the budget allows it.
    pub quickest: Duration,
    /// When nothing has changed for a while.
    pub slowest: Duration,
    /// How much time between polls each request of a poll asks for.
    pub per_request: Duration,
}

impl Interval {
    /// Between these bounds, and slow enough that `accounts` that share a budget of `requests` in each `window` spend
    /// no more than a fifth of it on polls, as far as the slowest allows it.
    pub fn within(
        quickest: Duration,
        slowest: Duration,
        requests: u32,
        window: Duration,
        accounts: u32,
    ) -> Self {
        let per_request = window.saturating_mul(SHARE.saturating_mul(accounts)) / requests.max(1);
        Self { quickest, slowest, per_request }
    }

    /// The interval after a good poll: the quickest where it found something, else half as much again as the `last`
    /// one. `cost` is what a poll asks, in requests.
    pub fn next(&self, last: Duration, cost: u64, found: bool) -> Duration {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let quickest = self.per_request.saturating_mul(cost).clamp(self.quickest, self.slowest);
        if found { quickest } else { (last.saturating_mul(3) / 2).clamp(quickest, self.slowest) }
    }
}

/// How much later than the one before it an account begins, where there are many: their first reads together would keep
/// each other waiting for the database, and whoever begins together polls together ever after.
const STAGGER: Duration = Duration::from_millis(50);

/// When the `nth` of so many accounts begins: all of them within an interval.
pub fn begins(nth: u32, of: u32, slowest: Duration) -> Duration {
    STAGGER.min(slowest / of.max(1)) * nth
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

/// How long to wait after so many failures in a row, one at least: doubling, so that a source in trouble is left alone,
/// but never longer than five minutes or the slowest interval, whichever is more.
pub fn retry(slowest: Duration, failures: u32) -> Duration {
    let doubled = slowest.saturating_mul(1 << failures.saturating_sub(1).min(MOST_DOUBLINGS));
    doubled.min(LONGEST_WAIT.max(slowest))
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
        AccountState { lists: HashMap::from_iter(lists), ..AccountState::default() }
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

    const MINUTE: Duration = Duration::from_mins(1);
    const WINDOW: Duration = Duration::from_secs(15);

    /// What `"auto"` is with Harvest's limit.
    fn auto(accounts: u32) -> Interval {
        Interval::within(Duration::from_secs(5), MINUTE, 100, WINDOW, accounts)
    }

    #[test]
    fn many_accounts_begin_one_after_the_other_and_all_within_an_interval() {
        assert_eq!(begins(0, 1, MINUTE), Duration::ZERO);
        assert_eq!(begins(1, 2, MINUTE), Duration::from_millis(50));
        assert_eq!(begins(999, 1000, MINUTE), Duration::from_millis(49_950));
        assert!(begins(9999, 10_000, MINUTE) < MINUTE);
        assert!(begins(99, 100, Duration::from_secs(1)) < Duration::from_secs(1));
    }

    #[test]
    fn failures_back_off() {
        assert_eq!(retry(MINUTE, 1), MINUTE);
        assert_eq!(retry(MINUTE, 2), Duration::from_mins(2));
        assert_eq!(retry(MINUTE, 99), Duration::from_mins(5));
        assert_eq!(retry(Duration::from_hours(1), 3), Duration::from_hours(1));
    }

    #[test]
    fn a_set_interval_stays_whatever_happens() {
        let set = Interval::within(MINUTE, MINUTE, 1, WINDOW, 1000);
        for (last, cost, found) in [(MINUTE, 4, true), (Duration::ZERO, 4, false), (MINUTE, u64::MAX, true)] {
            assert_eq!(set.next(last, cost, found), MINUTE);
        }
    }

    #[test]
    fn polls_are_quick_while_something_is_found_and_slower_with_each_that_finds_nothing() {
        let auto = auto(1);
        let mut interval = auto.next(MINUTE, IDLE_REQUESTS, true);
        let mut seen = vec![interval.as_millis()];
        while interval < auto.slowest {
            interval = auto.next(interval, IDLE_REQUESTS, false);
            seen.push(interval.as_millis());
        }
        assert_eq!(seen, [5000, 7500, 11_250, 16_875, 25_312, 37_968, 56_953, 60_000]);
        assert_eq!(auto.next(interval, IDLE_REQUESTS, false), MINUTE);
        assert_eq!(auto.next(interval, IDLE_REQUESTS, true), auto.quickest);
    }

    #[test]
    fn polls_of_all_accounts_together_leave_four_fifths_of_the_budget_to_others() {
        // Up to the twenty that fit in a fifth of the budget at the slowest.
        for accounts in 1..=20 {
            let (auto, window) = (auto(accounts), WINDOW.as_secs_f64());
            let quickest = auto.next(MINUTE, IDLE_REQUESTS, true).as_secs_f64();
            let spent = 4.0 * f64::from(accounts) * window / quickest;
            assert!(spent <= 20.001, "{accounts} accounts spend {spent} requests a window");
        }
        assert_eq!(auto(2).next(MINUTE, IDLE_REQUESTS, true), Duration::from_secs(6));
        assert_eq!(auto(2).next(MINUTE, 6, true), Duration::from_secs(9), "a poll that asks more costs more");
        assert_eq!(auto(1000).next(MINUTE, IDLE_REQUESTS, true), MINUTE);
    }
}
