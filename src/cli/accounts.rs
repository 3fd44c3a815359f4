//! Which accounts a command works on, one after the other.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::output;
use crate::app::{App, Exit, Failure};
use crate::settings::{Account, Settings};

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

/// What a command did, an object for each account, where JSON is wanted.
pub(super) struct Documents(Option<Mutex<Vec<Value>>>);

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
    pub async fn each(
        &self,
        app: &App,
        only: Option<i64>,
        work: impl AsyncFn(&Account) -> Result<Value, Failure>,
    ) -> Result<(), Failure> {
        each(app, only, async |account| {
            let done = work(account).await;
            if let Some(documents) = &self.0 {
                let mut document = match &done {
                    Ok(document) => document.clone(),
                    Err(failure) => json!({ "error": failure.to_string() }),
                };
                document["account_id"] = account.id.into();
                documents.lock().unwrap_or_else(PoisonError::into_inner).push(document);
            }
            done.map(drop)
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
