//! JSON of rates. Unlike other lists, the list of a user's rates is in the order of dates, oldest first.

use chrono::NaiveDate;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::state::{Company, History, Keyed, Rate, RateId, RateKind, UserId};

/// The key in the envelope, which is also the last segment of the path.
pub(super) fn resource(kind: RateKind) -> &'static str {
    match kind {
        RateKind::Billable => "billable_rates",
        RateKind::Cost => "cost_rates",
    }
}

pub(super) fn kind(resource: &str) -> Option<RateKind> {
    match resource {
        "billable_rates" => Some(RateKind::Billable),
        "cost_rates" => Some(RateKind::Cost),
        _ => None,
    }
}

/// A rate with its position in the list. Lists return rows from the highest key down, so the key is the negative
/// position. The documents do not say what a cursor of this list contains; here it contains the key.
pub(super) struct PositionedRate<'a> {
    key: i64,
    rate: &'a Rate,
    end_date: Option<NaiveDate>,
}

impl Keyed for PositionedRate<'_> {
    fn key(&self) -> i64 {
        self.key
    }
    fn id(&self) -> i64 {
        self.rate.id.0
    }
}

impl PositionedRate<'_> {
    pub fn view(&self) -> RateView {
        let &Rate { id, amount, start_date, created_at, updated_at } = self.rate;
        RateView { id, amount, start_date, end_date: self.end_date, created_at, updated_at }
    }
}

#[derive(Serialize)]
pub(super) struct RateView {
    id: RateId,
    amount: f64,
    start_date: Option<NaiveDate>,
    end_date: Option<NaiveDate>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A user's rates in the order of their keys, which is newest first.
pub(super) fn placed(company: &Company, kind: RateKind, user: UserId) -> Vec<PositionedRate<'_>> {
    let rates = company.rates(kind, user).into_iter().flat_map(History::rates);
    let mut placed: Vec<_> = rates
        .zip(1..)
        .map(|((rate, end_date), place)| PositionedRate { key: -place, rate, end_date })
        .collect();
    placed.reverse();
    placed
}
