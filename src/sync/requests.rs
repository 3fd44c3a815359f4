//! What was asked of the process that writes an account: by `rosterd sync` beside a running daemon.

use tokio_util::sync::CancellationToken;

use super::cycle::{CycleError, Memory};
use super::report::Report;
use super::schedule::Mode;
use super::worker::Worker;
use crate::store::requests::{Outcome, Wish};
use crate::store::{Fence, StoreError};
use crate::telemetry::chain;

impl Worker {
    /// Does what was asked of the account meanwhile; false when it is no longer ours.
    pub(super) async fn serve(&self, fence: Fence, memory: &mut Memory, cancel: &CancellationToken) -> bool {
        while !cancel.is_cancelled() {
            let asked = self.store.next_request(fence.account);
            let request = match cancel.run_until_cancelled(asked).await {
                Some(Ok(Some(request))) => request,
                None | Some(Ok(None)) => break,
                Some(Err(error)) => {
                    tracing::debug!(account_id = self.account(), error = %chain(&error), "cannot look for requests");
                    break;
                }
            };
            let (report, known) = match request.wish {
                Wish::User(id) => self.person(fence, id, memory, cancel).await,
                Wish::Full => (self.cycle(fence, Some(Mode::Full), memory, cancel).await, true),
                Wish::Sync => (self.cycle(fence, None, memory, cancel).await, true),
            };
            let Some(report) = report else { return false };
            report.count();
            report.log(None, false);
            let (outcome, answer) = match &report.outcome {
                // Whoever has taken over does it.
                Err(CycleError::Store(StoreError::Fenced(_)) | CycleError::Stopped) => break,
                Ok(()) if known => (Outcome::Ok, report.summary()),
                Ok(()) => {
                    (Outcome::NoSuchRecord, "neither Harvest nor the mirror knows this user".to_owned())
                }
                Err(error) if error.is_credentials() => (Outcome::Refused, chain(error)),
                Err(error) => (Outcome::Unavailable, chain(error)),
            };
            if let Err(error) = self.store.answer(request.id, outcome, &answer).await {
                tracing::warn!(account_id = self.account(), error = %chain(&error), "could not answer a request");
                break;
            }
        }
        true
    }

    /// One person, read again on request.
    async fn person(
        &self,
        fence: Fence,
        id: i64,
        memory: &mut Memory,
        cancel: &CancellationToken,
    ) -> (Option<Report>, bool) {
        let (writer, mut known) = (self.writer(fence, true), true);
        let reader = self.reader(&writer, memory, &|_, _, _| (), cancel);
        let read = async {
            let (report, is_known) = reader.person(id, self.histories).await;
            known = is_known;
            report
        };
        let report = self.alive(fence, read, cancel).await;
        (report, known)
    }
}
