//! Which accounts a command works on, one after the other.

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
