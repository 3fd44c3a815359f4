//! What happens to people's rates. The one in force is also in the person's own record, where it changes
//! silently, unless [`Options::rates_touch_users`](crate::Options::rates_touch_users).

use chrono::NaiveDate;
use serde_json::Value;

use crate::http::rate_values;
use crate::sim::Sim;
use crate::state::{RateId, RateKind, UserId};

impl Sim {
    /// A new billable rate from this day (`2024-02-29`) on, or since ever. It replaces those that began on
    /// the same day or later, which without a day is all of them; the one before it ends the day before.
    pub fn add_billable_rate(&self, user: UserId, amount: f64, start_date: Option<&str>) -> RateId {
        self.add_rate(RateKind::Billable, user, amount, start_date)
    }

    /// A new cost rate; see [`add_billable_rate`](Self::add_billable_rate).
    pub fn add_cost_rate(&self, user: UserId, amount: f64, start_date: Option<&str>) -> RateId {
        self.add_rate(RateKind::Cost, user, amount, start_date)
    }

    /// Another amount for a billable rate, whose `updated_at` stays.
    pub fn change_billable_rate(&self, user: UserId, rate: RateId, amount: f64) {
        self.change_rate(RateKind::Billable, user, rate, amount);
    }

    /// Another amount for a cost rate, whose `updated_at` stays.
    pub fn change_cost_rate(&self, user: UserId, rate: RateId, amount: f64) {
        self.change_rate(RateKind::Cost, user, rate, amount);
    }

    /// Removes a billable rate without a trace; the one before it holds on until the next one.
    pub fn remove_billable_rate(&self, user: UserId, rate: RateId) {
        self.remove_rate(RateKind::Billable, user, rate);
    }

    /// Removes a cost rate without a trace; the one before it holds on until the next one.
    pub fn remove_cost_rate(&self, user: UserId, rate: RateId) {
        self.remove_rate(RateKind::Cost, user, rate);
    }

    /// A person's billable rates exactly as an administrator sees them, oldest first.
    pub fn billable_rates_json(&self, user: UserId) -> Vec<Value> {
        self.read(|company, _| rate_values(company, RateKind::Billable, user))
    }

    /// A person's cost rates exactly as an administrator sees them, oldest first.
    pub fn cost_rates_json(&self, user: UserId) -> Vec<Value> {
        self.read(|company, _| rate_values(company, RateKind::Cost, user))
    }

    fn add_rate(&self, kind: RateKind, user: UserId, amount: f64, start_date: Option<&str>) -> RateId {
        let start_date = start_date.map(day);
        self.change(|company, moment, options| {
            let person = moment.silently_unless(options.rates_touch_users);
            company.add_rate(kind, user, amount, start_date, moment, person)
        })
    }

    fn change_rate(&self, kind: RateKind, user: UserId, rate: RateId, amount: f64) {
        self.change(|company, moment, options| {
            let person = moment.silently_unless(options.rates_touch_users);
            company.change_rate(kind, user, rate, amount, moment, person);
        });
    }

    fn remove_rate(&self, kind: RateKind, user: UserId, rate: RateId) {
        self.change(|company, moment, options| {
            let person = moment.silently_unless(options.rates_touch_users);
            company.remove_rate(kind, user, rate, moment, person);
        });
    }
}

#[expect(clippy::panic, reason = "a test that names a day which is not there is wrong and must hear of it")]
fn day(text: &str) -> NaiveDate {
    text.parse().unwrap_or_else(|_| panic!("there is no day {text:?}"))
}
