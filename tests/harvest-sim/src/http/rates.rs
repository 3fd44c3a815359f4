//! A person's rates as they are sent: their list alone is in the order of dates, oldest first.

use chrono::NaiveDate;
use serde::Serialize;

use crate::clock::Stamp;
use crate::state::{Company, History, Keyed, Rate, RateId, RateKind, UserId};

/// The key of the rates in their envelope, and the end of their path.
pub(super) fn resource(kind: RateKind) -> &'static str {
    match kind {
        RateKind::Billable => "billable_rates",
        RateKind::Cost => "cost_rates",
    }
}

/// The kind that is named so in a path.
pub(super) fn kind(resource: &str) -> Option<RateKind> {
    match resource {
        "billable_rates" => Some(RateKind::Billable),
        "cost_rates" => Some(RateKind::Cost),
        _ => None,
    }
}

/// A rate with its place in its list. Lists are walked from the highest key down; what a cursor of this one
/// holds no document says, so here it is the place, counted downwards.
pub(super) struct Placed<'a> {
    key: i64,
    rate: &'a Rate,
    end_date: Option<NaiveDate>,
}

impl Keyed for Placed<'_> {
    fn key(&self) -> i64 {
        self.key
    }
    fn id(&self) -> i64 {
        self.rate.id.0
    }
}

impl Placed<'_> {
    pub fn view(&self) -> RateView {
        let &Rate { id, amount, start_date, created_at, updated_at } = self.rate;
        RateView { id, amount, start_date, end_date: self.end_date, created_at, updated_at }
    }
}

/// A rate.
#[derive(Serialize)]
pub(super) struct RateView {
    id: RateId,
    amount: f64,
    start_date: Option<NaiveDate>,
    end_date: Option<NaiveDate>,
    created_at: Stamp,
    updated_at: Stamp,
}

/// A person's rates in the order of their keys, which is newest first.
pub(super) fn placed(company: &Company, kind: RateKind, user: UserId) -> Vec<Placed<'_>> {
    let rates = company.rates(kind, user).into_iter().flat_map(History::rates);
    let mut placed: Vec<_> =
        rates.zip(1..).map(|((rate, end_date), place)| Placed { key: -place, rate, end_date }).collect();
    placed.reverse();
    placed
}
