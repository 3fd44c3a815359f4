//! Which accounts a command works on, one after the other.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

use super::output;
use crate::app::{App, Exit, Failure};
use crate::settings::{Account, Settings};
use crate::sync::finding::Finding;

/// Refuses an account that the settings do not know, and settings without any.
pub(super) fn require(settings: &Settings, only: Option<i64>) -> Result<(), Failure> {
    let known = settings.require_accounts()?;
    match only {
        Some(id) if !known.iter().any(|account| account.id == id) => {
            let advice = format!("account {id} is not in the settings; leave --account away, or add it");
            Err(Failure::new(Exit::Settings, advice))
        }
        _ => Ok(()),
    }
}

/// What a command did with an account.
#[derive(Serialize)]
pub(super) struct Document {
    account_id: i64,
    #[serde(flatten)]
    told: Value,
    /// By the name of their list. A `Value` would round long amounts.
    #[serde(flatten)]
    findings: BTreeMap<&'static str, Vec<Finding>>,
}

impl Document {
    /// With findings, under this name.
    pub fn with(self, name: &'static str, findings: Vec<Finding>) -> Self {
        Self { findings: BTreeMap::from([(name, findings)]), ..self }
    }
}

impl From<Value> for Document {
    fn from(told: Value) -> Self {
        Self { account_id: 0, told, findings: BTreeMap::new() }
    }
}

/// What a command did, an object for each account, where JSON is wanted.
pub(super) struct Documents(Option<Mutex<Vec<Document>>>);

impl Documents {
    pub fn new(wanted: bool) -> Self {
        Self(wanted.then(Mutex::default))
    }

    /// A line for people: on stdout, unless JSON goes there.
    pub fn tell(&self, text: impl Display) -> Result<(), Failure> {
        match self.0 {
            Some(_) => {
                output::say(text);
                Ok(())
            }
            None => output::line(text),
        }
    }

    /// [`each`], keeping what the work returns, or why it failed.
    pub async fn each<D: Into<Document>>(
        &self,
        app: &App,
        only: Option<i64>,
        work: impl AsyncFn(&Account) -> Result<D, Failure>,
    ) -> Result<(), Failure> {
        each(app, only, async |account| {
            let (document, done) = match work(account).await {
                Ok(document) => (document.into(), Ok(())),
                Err(failure) => (json!({ "error": failure.to_string() }).into(), Err(failure)),
            };
            if let Some(documents) = &self.0 {
                let document = Document { account_id: account.id, ..document };
                documents.lock().unwrap_or_else(PoisonError::into_inner).push(document);
            }
            done
        })
        .await
    }

    /// Prints them, unless the command failed before the first account.
    pub fn print(self) -> Result<(), Failure> {
        let Some(documents) = self.0 else { return Ok(()) };
        let documents = documents.into_inner().unwrap_or_else(PoisonError::into_inner);
        if documents.is_empty() { Ok(()) } else { output::json(&documents) }
    }
}

/// Does the work for each account, or for that one. The first failure decides the exit code; the other accounts still
/// run.
pub(super) async fn each(
    app: &App,
    only: Option<i64>,
    work: impl AsyncFn(&Account) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failed = None;
    for account in app.settings.accounts() {
        if only.is_some_and(|only| only != account.id) {
            continue;
        }
        match (work(account).await, &failed) {
            (Ok(()), _) => {}
            (Err(failure), None) => failed = Some(failure),
            (Err(failure), Some(_)) => output::say(format_args!("rosterd: {failure}")),
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{Change, CostRate, Field};

    #[test]
    fn findings_keep_the_digits_of_long_amounts() {
        let amount = "12345678901234567.123456789".parse().expect("an amount");
        let rate = CostRate { id: 1, amount: Field::Value(amount), ..CostRate::default() };
        let finding = Finding::change(&Change::creation(rate, 1), true);
        let document = Document::from(json!({ "summary": "" })).with("changes", vec![finding]);
        let printed = serde_json::to_string(&document).expect("JSON");
        assert!(printed.contains(r#""harvest":12345678901234567.123456789"#), "{printed}");
    }
}
