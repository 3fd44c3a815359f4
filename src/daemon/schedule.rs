//! When the next cycle of an account starts, and whether it is a full one. Pure functions: the caller passes the time.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::roster::Resource;
use crate::store::state::AccountState;
use crate::sync::report::CycleMode;

/// Requests of an idle poll: two lists and their totals.
pub(crate) const IDLE_REQUESTS: u64 = 4;
/// All polls of a request budget together use at most one part in this many of the budget.
const POLL_SHARE_DIVISOR: u32 = 5;

/// Bounds of the time from the start of one poll to the start of the next. Equal bounds mean a fixed interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// The interval while polls find changes, if the request budget allows it.
    pub quickest: Duration,
    /// The interval after several polls without changes.
    pub slowest: Duration,
    /// Minimum time between polls per request that a poll sends.
    pub per_request: Duration,
}

impl Interval {
    /// `accounts` is the number of accounts that share a budget of `requests` per `window`. Their polls together use at
    /// most a fifth of the budget, unless `slowest` requires more.
    pub(crate) fn within(
        quickest: Duration,
        slowest: Duration,
        requests: u32,
        window: Duration,
        accounts: u32,
    ) -> Self {
        let per_request =
            window.saturating_mul(POLL_SHARE_DIVISOR.saturating_mul(accounts)) / requests.max(1);
        Self { quickest, slowest, per_request }
    }

    /// The interval after a successful poll: the quickest if the poll found changes, else 1.5 times the `last`
    /// interval. `cost` is the number of requests of a poll.
    pub(crate) fn next(&self, last: Duration, cost: u64, has_changes: bool) -> Duration {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let quickest = self.per_request.saturating_mul(cost).clamp(self.quickest, self.slowest);
        if has_changes { quickest } else { (last.saturating_mul(3) / 2).clamp(quickest, self.slowest) }
    }
}

/// Delay between the starts of two accounts. Accounts that start at the same time compete for the database in their
/// first reads, and poll at the same time from then on.
const STAGGER: Duration = Duration::from_millis(50);

/// When the account number `index` of `accounts` starts. All of them start within one interval.
pub(crate) fn start_delay(index: u32, accounts: u32, slowest: Duration) -> Duration {
    STAGGER.min(slowest / accounts.max(1)) * index
}

/// The back-off stops growing after this many failures in a row.
const MAX_DOUBLINGS: u32 = 6;
/// Maximum of the back-off, unless the slowest interval is longer.
const MAX_BACKOFF: Duration = Duration::from_mins(5);

/// Full if a list has never been read completely, if a full read is due, or if there are records that an older version
/// of rosterd rejected.
pub fn mode(now: DateTime<Utc>, known: &AccountState) -> CycleMode {
    let due = |resource: Resource| {
        let list = known.list(resource);
        list.watermark.is_none() || list.next_full_at.is_none_or(|at| at <= now) || list.has_old_rejections
    };
    if Resource::LISTS.into_iter().any(due) { CycleMode::Full } else { CycleMode::Incremental }
}

/// The wait after `failures` failed cycles in a row, one at least: the slowest interval, doubled with each failure, at
/// most five minutes or the slowest interval, whichever is longer.
pub(crate) fn backoff(slowest: Duration, failures: u32) -> Duration {
    let doubled = slowest.saturating_mul(1 << failures.saturating_sub(1).min(MAX_DOUBLINGS));
    doubled.min(MAX_BACKOFF.max(slowest))
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
    fn account_without_a_complete_read_is_read_fully() {
        assert_eq!(mode(at(1), &account([])), CycleMode::Full);
        assert_eq!(mode(at(1), &account([(Resource::Users, read(3600))])), CycleMode::Full);
    }

    #[test]
    fn full_read_is_due_at_its_time() {
        let states = account([(Resource::Users, read(3600)), (Resource::Assignments, read(3600))]);
        assert_eq!(mode(at(3599), &states), CycleMode::Incremental);
        assert_eq!(mode(at(3600), &states), CycleMode::Full);
    }

    #[test]
    fn records_rejected_by_an_older_version_cause_a_full_read() {
        let old = ListState { has_old_rejections: true, ..read(3600) };
        let known = account([(Resource::Users, read(3600)), (Resource::Assignments, old)]);
        assert_eq!(mode(at(1), &known), CycleMode::Full);
    }

    const MINUTE: Duration = Duration::from_mins(1);
    const WINDOW: Duration = Duration::from_secs(15);

    /// The interval of `"auto"` with Harvest's limit.
    fn auto(accounts: u32) -> Interval {
        Interval::within(Duration::from_secs(5), MINUTE, 100, WINDOW, accounts)
    }

    #[test]
    fn accounts_start_one_after_another_within_one_interval() {
        assert_eq!(start_delay(0, 1, MINUTE), Duration::ZERO);
        assert_eq!(start_delay(1, 2, MINUTE), Duration::from_millis(50));
        assert_eq!(start_delay(999, 1000, MINUTE), Duration::from_millis(49_950));
        assert!(start_delay(9999, 10_000, MINUTE) < MINUTE);
        assert!(start_delay(99, 100, Duration::from_secs(1)) < Duration::from_secs(1));
    }

    #[test]
    fn backoff_doubles_up_to_five_minutes_or_the_interval() {
        assert_eq!(backoff(MINUTE, 1), MINUTE);
        assert_eq!(backoff(MINUTE, 2), Duration::from_mins(2));
        assert_eq!(backoff(MINUTE, 99), Duration::from_mins(5));
        assert_eq!(backoff(Duration::from_hours(1), 3), Duration::from_hours(1));
    }

    #[test]
    fn fixed_interval_never_changes() {
        let fixed = Interval::within(MINUTE, MINUTE, 1, WINDOW, 1000);
        for (last, cost, has_changes) in
            [(MINUTE, 4, true), (Duration::ZERO, 4, false), (MINUTE, u64::MAX, true)]
        {
            assert_eq!(fixed.next(last, cost, has_changes), MINUTE);
        }
    }

    #[test]
    fn interval_is_quickest_after_changes_and_grows_without_changes() {
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
    fn polls_of_all_accounts_together_use_at_most_a_fifth_of_the_budget() {
        // At the slowest interval, twenty accounts fit in a fifth of the budget.
        for accounts in 1..=20 {
            let (auto, window) = (auto(accounts), WINDOW.as_secs_f64());
            let quickest = auto.next(MINUTE, IDLE_REQUESTS, true).as_secs_f64();
            let spent = 4.0 * f64::from(accounts) * window / quickest;
            assert!(spent <= 20.001, "{accounts} accounts use {spent} requests per window");
        }
        assert_eq!(auto(2).next(MINUTE, IDLE_REQUESTS, true), Duration::from_secs(6));
        assert_eq!(
            auto(2).next(MINUTE, 6, true),
            Duration::from_secs(9),
            "a poll with more requests needs a longer interval"
        );
        assert_eq!(auto(1000).next(MINUTE, IDLE_REQUESTS, true), MINUTE);
    }
}
