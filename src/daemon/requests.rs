//! Requests in `roster.requests`, which commands such as `rosterd sync` send to a running daemon.

use tokio_util::sync::CancellationToken;

use crate::roster::AccountId;
use crate::store::Store;
use crate::store::requests::{DaemonRequest, Outcome};
use crate::sync::error::CycleError;
use crate::sync::report::CycleReport;
use crate::telemetry::chain;

/// The oldest request of the account; `None` also if the query failed.
pub(super) async fn next(
    store: &Store,
    account: AccountId,
    cancel: &CancellationToken,
) -> Option<DaemonRequest> {
    match cancel.run_until_cancelled(store.next_request(account)).await? {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(account_id = account.0, error = %chain(&error), "cannot query requests");
            None
        }
    }
}

/// Answers a request with the result of its cycle. Returns false if that failed, or if another process has to answer.
pub(super) async fn answer(store: &Store, request: i64, report: &CycleReport, is_known: bool) -> bool {
    let (outcome, answer) = match &report.outcome {
        Err(CycleError::Stopped) => return false,
        Ok(()) if is_known => (Outcome::Ok, report.summary()),
        Ok(()) => (Outcome::NoSuchRecord, "this user exists neither at Harvest nor in the mirror".to_owned()),
        Err(error) if error.is_credentials() => (Outcome::Refused, chain(error)),
        Err(error) => (Outcome::Unavailable, chain(error)),
    };
    if let Err(error) = store.answer(request, outcome, &answer).await {
        tracing::warn!(account_id = report.account.0, error = %chain(&error), "could not answer a request");
        return false;
    }
    true
}
