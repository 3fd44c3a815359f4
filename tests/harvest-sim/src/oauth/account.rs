//! The accounts of a Harvest ID, which `/api/v2/accounts` lists.

use serde::Serialize;

use crate::state::Company;

/// An account as Harvest ID lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// For an account of Harvest, the value of `Harvest-Account-Id`.
    pub id: i64,
    /// The company's name.
    pub name: String,
    /// `harvest` or `forecast`. The ids of the two products are unrelated.
    pub product: String,
    /// Recorded in 2018, but absent from the documents' example.
    pub google_sign_in_required: bool,
}

impl Account {
    /// An account of Harvest.
    pub fn harvest(id: i64, name: impl Into<String>) -> Self {
        Self::of("harvest", id, name)
    }

    /// An account of Forecast, which has another API.
    pub fn forecast(id: i64, name: impl Into<String>) -> Self {
        Self::of("forecast", id, name)
    }

    /// An account of any product.
    pub fn of(product: impl Into<String>, id: i64, name: impl Into<String>) -> Self {
        Self { id, name: name.into(), product: product.into(), google_sign_in_required: false }
    }

    /// The default list. It begins with a Forecast account, so that a client that takes the first account fails.
    pub(crate) fn defaults(company: &Company) -> Vec<Self> {
        vec![Self::forecast(88_888, company.name()), Self::harvest(company.account_id(), company.name())]
    }

    /// The OAuth2 scope of this account.
    pub(crate) fn scope(&self) -> String {
        format!("{}:{}", self.product, self.id)
    }
}
