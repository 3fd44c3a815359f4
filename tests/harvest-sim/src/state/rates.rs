//! Billable rates and cost rates of users, with their start and end dates.

use chrono::{DateTime, Days, NaiveDate, Utc};

use super::changes::known;
use super::company::Company;
use super::moment::{Moment, VisibleFrom};
use super::records::{RateId, UserId};
use super::table::{Keyed, Table};
use crate::clock::Timestamp;

/// The kind of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateKind {
    /// What clients pay for an hour. The current rate is the user's `default_hourly_rate`.
    Billable,
    /// What an hour costs the company. The current rate is the user's `cost_rate`.
    Cost,
}

/// A rate. It ends on the day before the next one begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rate {
    pub id: RateId,
    pub amount: f64,
    /// `None` if the rate has no first day.
    pub start_date: Option<NaiveDate>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The rates of one user and one kind, oldest first.
#[derive(Clone)]
pub(crate) struct History {
    user: UserId,
    rates: Vec<Rate>,
}

impl Keyed for History {
    fn key(&self) -> i64 {
        self.user.0
    }
}

impl History {
    /// Each rate with its last day.
    pub fn rates(&self) -> impl Iterator<Item = (&Rate, Option<NaiveDate>)> {
        let next_starts = self.rates.iter().skip(1).map(|next| next.start_date).chain([None]);
        let ends = next_starts.map(|next| next.and_then(|day| day.checked_sub_days(Days::new(1))));
        self.rates.iter().zip(ends)
    }

    /// Replaces the rates that begin on the same day or later. A rate without a start date replaces all rates.
    fn add(&mut self, rate: Rate, moment: Moment) {
        self.rates.retain(|earlier| earlier.start_date < rate.start_date);
        if let Some(ended) = self.rates.last_mut() {
            moment.touch(&mut ended.updated_at);
        }
        self.rates.push(rate);
    }

    /// Returns false if the rate does not exist. The previous rate now ends later.
    fn remove(&mut self, id: RateId, moment: Moment) -> bool {
        let Some(index) = self.rates.iter().position(|rate| rate.id == id) else { return false };
        self.rates.remove(index);
        if let Some(before) = index.checked_sub(1).and_then(|before| self.rates.get_mut(before)) {
            moment.touch(&mut before.updated_at);
        }
        true
    }

    fn in_force(&self, day: NaiveDate) -> Option<f64> {
        let begun = self.rates.iter().rev().find(|rate| rate.start_date <= Some(day));
        begun.map(|rate| rate.amount)
    }
}

/// The rates of all users of one kind. Ids are unique within the kind and are never reused.
pub(super) struct Rates {
    histories: Table<History>,
    next_id: i64,
}

impl Rates {
    pub fn starting_at(first_id: i64) -> Self {
        Self { histories: Table::starting_at(0), next_id: first_id }
    }

    pub fn remove(&mut self, user: UserId) {
        self.histories.remove(user.0);
    }

    pub fn apply_pending(&mut self, now: DateTime<Utc>) {
        self.histories.apply_pending(now);
    }

    fn edit<T>(
        &mut self,
        user: UserId,
        visible_from: VisibleFrom,
        edit: impl FnOnce(&mut History) -> T,
    ) -> Option<T> {
        if self.histories.newest(user.0).is_none() {
            // Every user starts without rates, so that the first rate can be a pending version too.
            self.histories.put(History { user, rates: Vec::new() }, VisibleFrom::Now);
        }
        let mut result = None;
        self.histories.edit(user.0, visible_from, |history| result = Some(edit(history)));
        result
    }
}

impl Company {
    /// The visible rates of a user.
    pub(crate) fn rates(&self, kind: RateKind, user: UserId) -> Option<&History> {
        match kind {
            RateKind::Billable => self.billable_rates.histories.get(user.0),
            RateKind::Cost => self.cost_rates.histories.get(user.0),
        }
    }

    /// Adds a rate. The user record, which shows the current rate, keeps its `updated_at`.
    pub(crate) fn add_rate(
        &mut self,
        kind: RateKind,
        user: UserId,
        amount: f64,
        start_date: Option<NaiveDate>,
        moment: Moment,
    ) -> RateId {
        known(self.users.newest(user.0), "user", user);
        let rates = self.rates_mut(kind);
        let id = RateId(rates.next_id);
        rates.next_id += 1;
        let rate = Rate { id, amount, start_date, created_at: moment.now, updated_at: moment.now };
        rates.edit(user, moment.visible_from, |history| history.add(rate, moment));
        self.put_in_force(kind, user, moment);
        id
    }

    /// Changes the amount of a rate. The rate's `updated_at` does not change.
    pub(crate) fn change_rate(
        &mut self,
        kind: RateKind,
        user: UserId,
        id: RateId,
        amount: f64,
        moment: Moment,
    ) {
        known(self.users.newest(user.0), "user", user);
        let changed = self.rates_mut(kind).edit(user, moment.visible_from, |history| {
            let rate = history.rates.iter_mut().find(|rate| rate.id == id)?;
            rate.amount = amount;
            Some(())
        });
        known(changed.flatten(), "rate", id);
        self.put_in_force(kind, user, moment);
    }

    pub(crate) fn remove_rate(&mut self, kind: RateKind, user: UserId, id: RateId, moment: Moment) {
        known(self.users.newest(user.0), "user", user);
        let removed =
            self.rates_mut(kind).edit(user, moment.visible_from, |history| history.remove(id, moment));
        known(removed.filter(|&removed| removed), "rate", id);
        self.put_in_force(kind, user, moment);
    }

    /// Copies the current rate to the user record, which keeps its `updated_at`.
    fn put_in_force(&mut self, kind: RateKind, user: UserId, moment: Moment) {
        let today = moment.now.datetime().date_naive();
        let amount =
            self.rates_mut(kind).histories.newest(user.0).and_then(|history| history.in_force(today));
        self.edit_user(user, moment.keeping_updated_at(), |user| match kind {
            RateKind::Billable => user.default_hourly_rate = amount,
            RateKind::Cost => user.cost_rate = amount,
        });
    }

    fn rates_mut(&mut self, kind: RateKind) -> &mut Rates {
        match kind {
            RateKind::Billable => &mut self.billable_rates,
            RateKind::Cost => &mut self.cost_rates,
        }
    }
}
