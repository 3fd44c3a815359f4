//! Changes of rates. The user record shows the current rate. The user's `updated_at` does not
//! change.

use chrono::NaiveDate;
use serde_json::Value;

use crate::http::rate_values;
use crate::sim::Sim;
use crate::state::{RateId, RateKind, UserId};

impl Sim {
    /// Adds a billable rate with the start date (`2024-02-29`). It replaces the rates that begin on the same day or
    /// later, and the previous rate ends on the day before. Without a start date, it replaces all rates.
    pub fn add_billable_rate(&self, user: UserId, amount: f64, start_date: Option<&str>) -> RateId {
        self.add_rate(RateKind::Billable, user, amount, start_date)
    }

    /// Adds a cost rate; see [`add_billable_rate`](Self::add_billable_rate).
    pub fn add_cost_rate(&self, user: UserId, amount: f64, start_date: Option<&str>) -> RateId {
        self.add_rate(RateKind::Cost, user, amount, start_date)
    }

    /// Changes the amount of a billable rate. The rate's `updated_at` does not change.
    pub fn change_billable_rate(&self, user: UserId, rate: RateId, amount: f64) {
        self.change_rate(RateKind::Billable, user, rate, amount);
    }

    /// Changes the amount of a cost rate. The rate's `updated_at` does not change.
    pub fn change_cost_rate(&self, user: UserId, rate: RateId, amount: f64) {
        self.change_rate(RateKind::Cost, user, rate, amount);
    }

    /// Removes a billable rate. The previous rate now ends where the next rate begins.
    pub fn remove_billable_rate(&self, user: UserId, rate: RateId) {
        self.remove_rate(RateKind::Billable, user, rate);
    }

    /// Removes a cost rate. The previous rate now ends where the next rate begins.
    pub fn remove_cost_rate(&self, user: UserId, rate: RateId) {
        self.remove_rate(RateKind::Cost, user, rate);
    }

    /// A user's billable rates as an administrator sees them, oldest first.
    pub fn billable_rates_json(&self, user: UserId) -> Vec<Value> {
        self.read(|company, _| rate_values(company, RateKind::Billable, user))
    }

    /// A user's cost rates as an administrator sees them, oldest first.
    pub fn cost_rates_json(&self, user: UserId) -> Vec<Value> {
        self.read(|company, _| rate_values(company, RateKind::Cost, user))
    }

    fn add_rate(&self, kind: RateKind, user: UserId, amount: f64, start_date: Option<&str>) -> RateId {
        let start_date = start_date.map(day);
        self.change(|company, moment| company.add_rate(kind, user, amount, start_date, moment))
    }

    fn change_rate(&self, kind: RateKind, user: UserId, rate: RateId, amount: f64) {
        self.change(|company, moment| company.change_rate(kind, user, rate, amount, moment));
    }

    fn remove_rate(&self, kind: RateKind, user: UserId, rate: RateId) {
        self.change(|company, moment| company.remove_rate(kind, user, rate, moment));
    }
}

#[expect(clippy::panic, reason = "a test that names an invalid date is wrong and must fail")]
fn day(text: &str) -> NaiveDate {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a date"))
}
