//! What `/api/v2/accounts` lists: everything a Harvest ID may enter, of either product.

use serde::Serialize;

use crate::state::Company;

/// An account as Harvest ID lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// What `Harvest-Account-Id` says, if it is one of Harvest's.
    pub id: i64,
    /// The company's name.
    pub name: String,
    /// `harvest` or `forecast`, whose ids have nothing to do with each other.
    pub product: String,
    /// Sent in 2018, absent from the documents' example.
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

    /// What is listed unless a test says otherwise: Forecast first, so that the first one is the wrong one.
    pub(crate) fn usual(company: &Company) -> Vec<Self> {
        vec![Self::forecast(88_888, company.name()), Self::harvest(company.account_id(), company.name())]
    }

    /// The scope that lets into this account.
    pub(crate) fn scope(&self) -> String {
        format!("{}:{}", self.product, self.id)
    }
}
