//! What an hour of a person's costs the client, and what it costs the company: since when, until when.

use chrono::{DateTime, Days, NaiveDate, Utc};

use super::company::Company;
use super::moment::{Moment, Shows};
use super::records::{RateId, UserId};
use super::table::{Keyed, Table};
use super::verbs::known;
use crate::clock::Stamp;

/// Which of the two histories a rate belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateKind {
    /// What is billed; the one in force is the person's `default_hourly_rate`.
    Billable,
    /// What is paid; the one in force is the person's `cost_rate`.
    Cost,
}

/// A rate. It ends where the next one begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rate {
    pub id: RateId,
    pub amount: f64,
    /// Nothing when it holds since ever.
    pub start_date: Option<NaiveDate>,
    pub created_at: Stamp,
    pub updated_at: Stamp,
}

/// One person's rates of one kind, oldest first.
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
    /// Each rate and the last day it holds.
    pub fn rates(&self) -> impl Iterator<Item = (&Rate, Option<NaiveDate>)> {
        let next_starts = self.rates.iter().skip(1).map(|next| next.start_date).chain([None]);
        let ends = next_starts.map(|next| next.and_then(|day| day.checked_sub_days(Days::new(1))));
        self.rates.iter().zip(ends)
    }

    /// Replaces what began on that day or later, which without a start is everything.
    fn add(&mut self, rate: Rate, moment: Moment) {
        self.rates.retain(|held| held.start_date < rate.start_date);
        if let Some(ended) = self.rates.last_mut() {
            moment.touch(&mut ended.updated_at);
        }
        self.rates.push(rate);
    }

    /// Says whether there was such a rate. The one before it now ends later.
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

/// Everybody's rates of one kind. Ids are unique among them, and never used twice.
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

    pub fn surface(&mut self, now: DateTime<Utc>) {
        self.histories.surface(now);
    }

    fn edit<T>(&mut self, user: UserId, shows: Shows, edit: impl FnOnce(&mut History) -> T) -> Option<T> {
        if self.histories.newest(user.0).is_none() {
            // No rates is where everybody starts, so even a first one can show later.
            self.histories.put(History { user, rates: Vec::new() }, Shows::AtOnce);
        }
        let mut result = None;
        self.histories.edit(user.0, shows, |history| result = Some(edit(history)));
        result
    }
}

impl Company {
    /// A person's rates of this kind, as they show.
    pub(crate) fn rates(&self, kind: RateKind, user: UserId) -> Option<&History> {
        match kind {
            RateKind::Billable => self.billable_rates.histories.get(user.0),
            RateKind::Cost => self.cost_rates.histories.get(user.0),
        }
    }

    /// A new rate, as if entered by hand; `person` is how the person's own record takes it.
    pub(crate) fn add_rate(
        &mut self,
        kind: RateKind,
        user: UserId,
        amount: f64,
        start_date: Option<NaiveDate>,
        moment: Moment,
        person: Moment,
    ) -> RateId {
        known(self.users.newest(user.0), "person", user);
        let rates = self.rates_mut(kind);
        let id = RateId(rates.next_id);
        rates.next_id += 1;
        let rate = Rate { id, amount, start_date, created_at: moment.now, updated_at: moment.now };
        rates.edit(user, moment.shows, |history| history.add(rate, moment));
        self.put_in_force(kind, user, person);
        id
    }

    /// Another amount for a rate, and no other trace of it.
    pub(crate) fn change_rate(
        &mut self,
        kind: RateKind,
        user: UserId,
        id: RateId,
        amount: f64,
        moment: Moment,
        person: Moment,
    ) {
        known(self.users.newest(user.0), "person", user);
        let changed = self.rates_mut(kind).edit(user, moment.shows, |history| {
            let rate = history.rates.iter_mut().find(|rate| rate.id == id)?;
            rate.amount = amount;
            Some(())
        });
        known(changed.flatten(), "rate", id);
        self.put_in_force(kind, user, person);
    }

    /// Takes a rate out of the history, without a trace.
    pub(crate) fn remove_rate(
        &mut self,
        kind: RateKind,
        user: UserId,
        id: RateId,
        moment: Moment,
        person: Moment,
    ) {
        known(self.users.newest(user.0), "person", user);
        let removed = self.rates_mut(kind).edit(user, moment.shows, |history| history.remove(id, moment));
        known(removed.filter(|&removed| removed), "rate", id);
        self.put_in_force(kind, user, person);
    }

    /// The rate in force is the one that the person's own record shows.
    fn put_in_force(&mut self, kind: RateKind, user: UserId, moment: Moment) {
        let today = moment.now.datetime().date_naive();
        let amount =
            self.rates_mut(kind).histories.newest(user.0).and_then(|history| history.in_force(today));
        self.edit_user(user, moment, |user| match kind {
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
