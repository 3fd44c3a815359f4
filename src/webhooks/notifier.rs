//! Sends the notices of one endpoint: which concerns have begun and ended. It neither waits for events nor delays them.
//!
//! The process that holds the endpoint's lease sends. Each attempt is stored before the request, so that two processes do
//! not begin the same one; after a crash it is repeated with the same id.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Endpoint;
use super::message::Message;
use super::notices::{Notice, changes, due};
use super::outcome::{Outcome, wait};
use super::sender::Sender;
use crate::store::status::Status;
use crate::store::webhooks::notices::KnownNotice;
use crate::store::{Store, StoreError};
use crate::telemetry::instruments;

/// How often the concerns are looked at without a notification.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest time between two looks: any login of the database can notify.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long the request in flight may take when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

type Rule = dyn Fn(&Status) -> Vec<Notice> + Send + Sync;

/// The task of one endpoint with `notices = true`.
pub(crate) struct Notifier {
    pub endpoint: Arc<Endpoint>,
    pub store: Store,
    pub sender: Sender,
    /// This process in `roster.replicas`.
    pub replica: Uuid,
    /// Whether this process has sent a heartbeat recently.
    pub is_alive: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What is wrong, the most urgent first.
    pub concerns: Arc<Rule>,
    /// Notified of commands, and of events.
    pub wake: Arc<Notify>,
}

impl Notifier {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        instruments::expose_webhook_notices(&self.endpoint.name);
        let mut is_failing = false;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let limit = async {
                stop.cancelled().await;
                sleep(STOP_LIMIT).await;
            };
            tokio::select! {
                // The dispatcher and the workers log errors of the database.
                _ = self.look(&mut is_failing, &stop) => {}
                () = limit => return,
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => sleep_until(began + MIN_INTERVAL).await,
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Compares the concerns with what the receiver knows, and sends what is due.
    async fn look(&self, is_failing: &mut bool, stop: &CancellationToken) -> Result<(), StoreError> {
        let name = &self.endpoint.name;
        let Some(known) = self.store.webhook_notices(name, self.replica).await? else { return Ok(()) };
        let status = self.store.status_without_counts().await?;
        let changes = changes(&known, &self.wanted(&status), status.now);
        if !changes.is_empty() {
            self.store.change_webhook_notices(name, &changes, status.now).await?;
        }
        while !stop.is_cancelled() && (self.is_alive)() {
            let Some(known) = self.store.webhook_notices(name, self.replica).await? else { return Ok(()) };
            let Some(notice) = due(&known, status.now) else { return Ok(()) };
            let wait = wait(notice.attempts + 1, None, rand::random());
            if !self.store.begin_webhook_notice(name, notice, wait.as_secs_f64()).await?
                || !self.send(notice, is_failing).await?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The concerns of the endpoint's accounts. Another company's receiver does not see the others.
    fn wanted(&self, status: &Status) -> Vec<Notice> {
        let accounts = &self.endpoint.filter.accounts;
        let is_wanted =
            |it: &Notice| accounts.is_empty() || it.account_id.is_some_and(|id| accounts.contains(&id));
        (self.concerns)(status).into_iter().filter(is_wanted).collect()
    }

    /// Returns whether the receiver accepted the message.
    async fn send(&self, notice: &KnownNotice, is_failing: &mut bool) -> Result<bool, StoreError> {
        let webhook = &self.endpoint.name;
        let message = Message::notice(webhook, notice);
        let attempt = self.sender.send_notice(&self.endpoint, &message).await;
        let (failure, retry_after) = match attempt.outcome {
            Outcome::Delivered => {
                self.store.webhook_notice_accepted(webhook, notice).await?;
                *is_failing = false;
                let (concern, r#type) = (&notice.concern, &message.r#type);
                tracing::info!(
                    event = "webhook.notified",
                    webhook,
                    r#type,
                    concern,
                    "the receiver of a webhook was notified of a concern that began or ended"
                );
                return Ok(true);
            }
            Outcome::Gone => ("status 410".to_owned(), None),
            Outcome::Failed(failure) => (failure.text, failure.retry_after),
        };
        let wait = wait(notice.attempts + 1, retry_after, rand::random());
        if !std::mem::replace(is_failing, true) {
            tracing::warn!(
                event = "webhook.notice_failed",
                webhook,
                origin = self.endpoint.origin(),
                r#type = message.r#type,
                concern = notice.concern,
                failure,
                retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "the receiver of a webhook did not accept a notice; trying again, and events do not wait for it"
            );
        }
        self.store.webhook_notice_failed(webhook, notice, &failure, wait.as_secs_f64()).await?;
        Ok(false)
    }
}
