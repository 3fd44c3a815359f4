//! The accounts that a command works on, and its result for each of them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::output;
use crate::app::{App, Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::harvest::Client;
use crate::settings::Settings;
use crate::sync::mirror::finding::Finding;

/// Refuses settings without accounts, and an account id that is not in the settings.
pub(super) fn require(settings: &Settings, only: Option<i64>) -> Result<(), Failure> {
    let configured = settings.require_accounts()?;
    match only {
        Some(id) if !configured.iter().any(|account| account.id == id) => {
            let advice = format!("account {id} is not in the settings; add it, or omit --account");
            Err(Failure::new(Exit::Settings, advice))
        }
        _ => Ok(()),
    }
}

#[derive(Serialize)]
pub(super) struct AccountResult {
    account_id: i64,
    #[serde(flatten)]
    fields: Value,
    /// By the name of their JSON field. As part of a `Value`, long amounts would lose digits.
    #[serde(flatten)]
    findings: BTreeMap<&'static str, Vec<Finding>>,
}

impl AccountResult {
    pub(super) fn with_findings(self, name: &'static str, findings: Vec<Finding>) -> Self {
        Self { findings: BTreeMap::from([(name, findings)]), ..self }
    }
}

impl From<Value> for AccountResult {
    fn from(fields: Value) -> Self {
        Self { account_id: 0, fields, findings: BTreeMap::new() }
    }
}

/// Does the work for each account of the settings, or for one of them, also after the failure of another account. Then
/// stops the limiter and, if `json`, prints the results. The first failure decides the exit code.
pub(super) async fn for_each<R: Into<AccountResult>>(
    app: &App,
    limiter: LimiterTask,
    only: Option<i64>,
    json: bool,
    work: impl AsyncFn(&Client) -> Result<R, Failure>,
) -> Result<(), Failure> {
    let (mut results, mut first_failure) = (Vec::new(), None);
    for account in app.settings.accounts() {
        if only.is_some_and(|only| only != account.id) {
            continue;
        }
        let work = async {
            let client = app.client(account, &limiter)?;
            client.set_next_poll(None);
            work(&client).await
        };
        let result = match work.await {
            Ok(result) => result.into(),
            Err(failure) => {
                let error = json!({ "error": failure.to_string() });
                if first_failure.is_some() {
                    output::message(format_args!("rosterd: {failure}"));
                } else {
                    first_failure = Some(failure);
                }
                error.into()
            }
        };
        results.push(AccountResult { account_id: account.id, ..result });
    }
    limiter.stop().await;
    if json && !results.is_empty() {
        output::json(&results)?;
    }
    first_failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{Change, CostRate, Field};

    #[test]
    fn findings_in_json_keep_all_digits_of_long_amounts() {
        let amount = "12345678901234567.123456789".parse().expect("an amount");
        let rate = CostRate { id: 1, amount: Field::Value(amount), ..CostRate::default() };
        let finding = Finding::change(&Change::creation(std::sync::Arc::new(rate), 1), true);
        let result = AccountResult::from(json!({ "summary": "" })).with_findings("changes", vec![finding]);
        let printed = serde_json::to_string(&result).expect("JSON");
        assert!(printed.contains(r#""harvest":12345678901234567.123456789"#), "{printed}");
    }
}
