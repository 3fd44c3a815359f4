//! Requests a write and waits for its end.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::calls::{Call, RETRY_SECONDS, unavailable};
use super::outcome::refusal;
use crate::roster::write::{Write, WriteKind};
use crate::scim::ScimError;
use crate::store::scim::{AskError, ScimOutcome};

/// The journal is asked this often without a notification, which may be lost.
const MIN_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// For a client that changes more than Harvest takes. In this time Harvest takes about as many changes as one token may
/// have in flight. The status is 503, because Entra ID stops after 429.
pub(super) const EXCESS_RETRY_SECONDS: u32 = 10;
/// While a write that creates the same user is open or in doubt.
const CREATION_RETRY_SECONDS: u32 = 60;
/// Bounds of the time that a client waits for the end of Harvest's back-off.
const THROTTLED_RETRY_SECONDS: (i32, i32) = (5, 300);

impl Call {
    /// Requests a write and waits for its end. Returns the id of the user or role, if Harvest has carried out the write or had it so.
    pub async fn carry_out(&mut self, write: &Write) -> Result<Option<i64>, ScimError> {
        // Before the request, so that no notification is missed.
        let written = self.service.written.subscribe();
        let store = &self.service.store;
        let id = match store.scim_ask(self.account(), &self.token.name, write).await {
            Ok(id) => id,
            Err(AskError::TooMany) => {
                let detail = "too many changes of this account are waiting; try again later";
                return Err(ScimError::unavailable(EXCESS_RETRY_SECONDS, detail));
            }
            Err(AskError::Conflict) => {
                let detail = "another request creates a user with this e-mail address; try again later";
                return Err(ScimError::unavailable(CREATION_RETRY_SECONDS, detail));
            }
            Err(AskError::Store(error)) => return Err(unavailable(error)),
        };
        self.writes.push(id);
        if let Some(outcome) = self.ended(id, written).await? {
            return self.result(id, write, &outcome);
        }
        // Withdrawn, or sent meanwhile: then it may have ended too.
        let is_withdrawn =
            self.service.store.scim_withdraw(id, &self.token.name).await.map_err(unavailable)?;
        let outcome = self.service.store.scim_outcome(id).await.map_err(unavailable)?;
        if !is_withdrawn && (outcome.outcome.is_some() || outcome.held) {
            return self.result(id, write, &outcome);
        }
        Err(self.late(write, &outcome).await)
    }

    fn result(&mut self, id: Uuid, write: &Write, outcome: &ScimOutcome) -> Result<Option<i64>, ScimError> {
        match outcome.outcome.as_deref() {
            Some("done" | "unchanged") => {
                if matches!(write.kind, WriteKind::UserCreate | WriteKind::UserReactivate) {
                    self.answered = Some(id);
                }
                Ok(outcome.user_id.or(outcome.role_id))
            }
            _ => Err(refusal(write, outcome)),
        }
    }

    /// Waits until the write is finished or held. `None` if it is neither at the deadline.
    async fn ended(&self, id: Uuid, mut written: Receiver<Uuid>) -> Result<Option<ScimOutcome>, ScimError> {
        let mut pause = MIN_PAUSE;
        loop {
            // An outage of the database may end in time.
            if let Ok(outcome) = self.service.store.scim_outcome(id).await
                && (outcome.outcome.is_some() || outcome.held)
            {
                return Ok(Some(outcome));
            }
            let remaining = self.deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Ok(None);
            }
            tokio::select! {
                () = notified(id, &mut written) => {}
                () = sleep(pause.min(remaining)) => pause = (pause * 2).min(MAX_PAUSE),
            }
        }
    }

    /// The response for a write that is not finished in time.
    async fn late(&self, write: &Write, outcome: &ScimOutcome) -> ScimError {
        let account = self.service.store.scim_account(self.account()).await;
        let pause = account.as_ref().map_or(0, |account| account.pause_seconds);
        let (least, most) = THROTTLED_RETRY_SECONDS;
        let retry_after = match (outcome.sent, pause) {
            (true, _) if write.kind.is_creation() => CREATION_RETRY_SECONDS,
            (_, 0) => RETRY_SECONDS,
            (_, pause) => pause.clamp(least, most).unsigned_abs(),
        };
        let detail = if outcome.outcome.is_none() {
            "Harvest has not confirmed the change in time; rosterd continues with it, and the same request finds the result"
        } else if account.is_ok_and(|account| !account.has_holder) {
            "no rosterd process sends changes to Harvest at present, so the change was withdrawn; try again later"
        } else {
            "rosterd could not send the change to Harvest in time, so it was withdrawn; try again later"
        };
        ScimError::unavailable(retry_after, detail)
    }
}

/// Waits for the notification of this write, or until notifications may be lost.
async fn notified(id: Uuid, written: &mut Receiver<Uuid>) {
    while written.recv().await.is_ok_and(|ended| ended != id) {}
}
