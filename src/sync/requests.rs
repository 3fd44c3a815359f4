//! What was asked of the process that writes an account: by `rosterd sync` beside a running daemon.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cycle::{CycleError, Memory};
use super::polls::Polls;
use super::report::Report;
use super::schedule::Mode;
use super::worker::Worker;
use crate::store::Fence;
use crate::store::requests::{Outcome, Request, Wish};
use crate::telemetry::chain;

impl Worker {
    /// Waits for a request, or until the next poll is due (`None`). If the last request was `answered`, there may be more:
    /// it looks at once.
    pub(super) async fn wait(
        &self,
        fence: Fence,
        polls: &mut Polls,
        answered: bool,
        cancel: &CancellationToken,
    ) -> Option<Request> {
        let mut is_woken = false;
        if !answered {
            is_woken = self.woken(polls, cancel).await;
        }
        loop {
            polls.looked = Instant::now();
            if let Some(request) = self.look(fence, cancel).await {
                return Some(request);
            }
            if is_woken {
                polls.hasten(&self.wake, Instant::now());
            }
            if cancel.is_cancelled() || polls.due() <= Instant::now() {
                return None;
            }
            is_woken = self.woken(polls, cancel).await;
        }
    }

    /// Sleeps until the next poll is due; true if the worker was woken before.
    async fn woken(&self, polls: &Polls, cancel: &CancellationToken) -> bool {
        tokio::select! {
            () = self.sleep(polls.due().saturating_duration_since(Instant::now()), cancel) => false,
            () = self.wake.notified_after(polls.looked) => true,
        }
    }

    async fn look(&self, fence: Fence, cancel: &CancellationToken) -> Option<Request> {
        match cancel.run_until_cancelled(self.store.next_request(fence.account)).await? {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(account_id = self.account(), error = %chain(&error), "cannot look for requests");
                None
            }
        }
    }

    /// Does what was requested, or what is due; also returns whether the user of the request is known. `None` if the account
    /// is no longer ours, or the worker must stop.
    pub(super) async fn work(
        &self,
        fence: Fence,
        request: Option<Request>,
        memory: &mut Memory,
        cancel: &CancellationToken,
    ) -> Option<(Report, bool)> {
        let mode = match request.map(|request| request.wish) {
            Some(Wish::User(id)) => {
                let (report, is_known) = self.person(fence, id, memory, cancel).await;
                return report.map(|report| (report, is_known));
            }
            Some(Wish::Full) => Some(Mode::Full),
            Some(Wish::Sync) | None => None,
        };
        self.cycle(fence, mode, memory, cancel).await.map(|report| (report, true))
    }

    /// Answers a request; false if that failed, or another process has to answer.
    pub(super) async fn answer(&self, request: Request, report: &Report, is_known: bool) -> bool {
        let (outcome, answer) = match &report.outcome {
            Err(CycleError::Stopped) => return false,
            Ok(()) if is_known => (Outcome::Ok, report.summary()),
            Ok(()) => (Outcome::NoSuchRecord, "neither Harvest nor the mirror knows this user".to_owned()),
            Err(error) if error.is_credentials() => (Outcome::Refused, chain(error)),
            Err(error) => (Outcome::Unavailable, chain(error)),
        };
        if let Err(error) = self.store.answer(request.id, outcome, &answer).await {
            tracing::warn!(account_id = self.account(), error = %chain(&error), "could not answer a request");
            return false;
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
        let report = self.alive(fence, Mode::Incremental, read, cancel).await;
        (report, known)
    }
}
