//! Delivers the events of one endpoint: reads the next ones, sends them, acknowledges what the receiver accepted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Endpoint;
use super::message::{Message, STREAM_BEGUN};
use super::outcome::{Failure, Outcome, wait};
use super::sender::Sender;
use super::window::Window;
use crate::clock::Clock;
use crate::store::webhooks::{FailedAttempt, WebhookEvent, WebhookEvents, WebhookFence, WebhookState};
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// Events per read. After a crash at most so many are delivered again.
const WINDOW: i32 = 100;
/// The same after a read without a wanted event.
const UNWANTED_WINDOW: i32 = 1000;
/// How often the database is queried without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest time between queries that find nothing: any login of the database can notify.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// How often accepted events are acknowledged while others of the same read are being sent.
const ACK_INTERVAL: Duration = Duration::from_secs(1);
const ERROR_PAUSE: Duration = Duration::from_secs(5);
/// How long requests in flight may take when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often a failing endpoint is logged.
const LOG_INTERVAL: Duration = Duration::from_hours(1);

pub(crate) struct Dispatcher {
    pub endpoint: Arc<Endpoint>,
    pub store: Store,
    pub sender: Sender,
    pub clock: Arc<dyn Clock>,
    /// This process in `roster.replicas`.
    pub replica: Uuid,
    /// The time after which other processes consider this one dead.
    pub ttl: Duration,
    /// Whether this process has sent a heartbeat within `ttl`.
    pub is_alive: Arc<dyn Fn() -> bool + Send + Sync>,
    pub wake: Arc<Notify>,
}

struct Held {
    fence: WebhookFence,
    /// Accepted events after one that was not. They are not sent again by this process.
    delivered: BTreeSet<i64>,
    window: i32,
    failing_logged_at: Option<Instant>,
}

/// When the next turn begins.
enum Next {
    Now,
    /// Or after a notification.
    After(Duration),
    /// The lease is lost, or an operator has changed the endpoint.
    Fenced,
}

impl Dispatcher {
    /// Runs until `stop` is cancelled, then releases the lease.
    pub async fn run(self, stop: CancellationToken) {
        let (mut held, mut is_error_logged) = (None, false);
        while !stop.is_cancelled() {
            let began = Instant::now();
            let next = match self.turn(&mut held, &stop).await {
                Ok(next) => next,
                Err(error) => {
                    if !std::mem::replace(&mut is_error_logged, true) {
                        tracing::warn!(
                            event = "webhook.database_failed",
                            webhook = self.endpoint.name,
                            error = %chain(&error),
                            "the database failed, so a webhook is delayed; trying again"
                        );
                    }
                    let _ = timeout(ERROR_PAUSE, stop.cancelled()).await;
                    continue;
                }
            };
            is_error_logged = false;
            let pause = match next {
                Next::Now => continue,
                Next::After(pause) => pause,
                Next::Fenced => {
                    held = None;
                    Duration::ZERO
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => sleep_until(began + MIN_INTERVAL).await,
                () = sleep(pause.max(MIN_INTERVAL)) => {}
            }
        }
        if let Some(held) = held {
            let _ = self.store.release_webhook(&held.fence).await;
        }
    }

    async fn turn(&self, lease: &mut Option<Held>, stop: &CancellationToken) -> Result<Next, StoreError> {
        let name = &self.endpoint.name;
        let held = match lease {
            Some(held) => held,
            None => match self.store.acquire_webhook(name, self.replica).await? {
                Some(fence) => lease.insert(Held {
                    fence,
                    delivered: BTreeSet::new(),
                    window: WINDOW,
                    failing_logged_at: None,
                }),
                None => return Ok(Next::After(self.ttl / 3)),
            },
        };
        let Some(state) = self.store.webhook_state(name).await? else {
            self.store.register_webhook(name, self.endpoint.from_beginning).await?;
            return Ok(Next::Fenced);
        };
        if state.epoch != held.fence.epoch {
            return Ok(Next::Fenced);
        }
        if !state.is_on {
            return Ok(Next::After(POLL_INTERVAL));
        }
        if state.wait_secs > 0.0 {
            return Ok(Next::After(Duration::from_secs_f64(state.wait_secs).min(POLL_INTERVAL)));
        }
        if !(self.is_alive)() {
            return Ok(Next::After(ACK_INTERVAL));
        }
        if !state.knows_stream {
            return self.begin_stream(held, &state).await;
        }
        if state.behind == 0 {
            return Ok(Next::After(POLL_INTERVAL));
        }
        match self.store.webhook_events(name, &self.endpoint.filter, held.window).await? {
            WebhookEvents::Next(events) if events.is_empty() => Ok(Next::After(POLL_INTERVAL)),
            WebhookEvents::Next(events) => self.deliver(held, &state, events, stop).await,
            WebhookEvents::Lost => self.stopped(held, "lost", None).await,
        }
    }

    /// Says that another stream has begun, before its first event.
    async fn begin_stream(&self, held: &mut Held, state: &WebhookState) -> Result<Next, StoreError> {
        let name = &self.endpoint.name;
        let message = Message::control(STREAM_BEGUN, name, state.stream_id, self.clock.now());
        let attempt = self.sender.send(&self.endpoint, &message).await;
        if attempt.outcome != Outcome::Delivered {
            return self.failed(held, state.attempts, None, &message.r#type, &attempt.outcome).await;
        }
        self.recovered(held, state.attempts);
        // Versions and numbers begin again.
        held.delivered.clear();
        let is_stored = self.store.begin_webhook_stream(&held.fence, state.stream_id).await?;
        Ok(if is_stored { Next::Now } else { Next::Fenced })
    }

    async fn deliver(
        &self,
        held: &mut Held,
        state: &WebhookState,
        events: Vec<WebhookEvent>,
        stop: &CancellationToken,
    ) -> Result<Next, StoreError> {
        let window = Window::new(&events, std::mem::take(&mut held.delivered));
        let groups = window.groups(events, self.endpoint.in_flight);
        held.window = if groups.is_empty() { UNWANTED_WINDOW } else { WINDOW };
        let (window, mut attempts) = (Mutex::new(window), state.attempts);
        let is_held = self.send_window(held, &window, groups, &mut attempts, stop).await?;
        if !is_held {
            return Ok(Next::Fenced);
        }
        let window = window.into_inner();
        let is_done = window.is_done();
        let (failed, delivered) = window.into_rest();
        held.delivered = delivered;
        match failed {
            Some((event, outcome)) => {
                self.failed(held, attempts, Some(&event), &event.r#type, &outcome).await
            }
            None if is_done => Ok(Next::Now),
            // This process has sent no heartbeat, or stops.
            None => Ok(Next::After(ACK_INTERVAL)),
        }
    }

    /// Sends the events of a window, and acknowledges them meanwhile. False if the lease is lost.
    async fn send_window(
        &self,
        held: &mut Held,
        window: &Mutex<Window>,
        groups: Vec<Vec<WebhookEvent>>,
        attempts: &mut i32,
        stop: &CancellationToken,
    ) -> Result<bool, StoreError> {
        // Cancelled: no event begins any more, and those in flight end.
        let halt = stop.child_token();
        let sending = futures::stream::iter(groups)
            .for_each_concurrent(self.endpoint.in_flight, |group| self.send_group(group, window, &halt));
        let limit = async {
            stop.cancelled().await;
            sleep(STOP_LIMIT).await;
        };
        tokio::pin!(sending, limit);
        loop {
            let has_ended = tokio::select! {
                () = &mut sending => true,
                () = &mut limit => true,
                () = sleep(ACK_INTERVAL) => false,
            };
            let acked = self.acknowledge(held, window, attempts).await;
            if has_ended {
                return acked;
            }
            if !matches!(acked, Ok(true)) {
                // The requests in flight end first, because the receiver may accept them.
                halt.cancel();
                tokio::select! { () = &mut sending => {}, () = &mut limit => {} }
                return acked;
            }
        }
    }

    async fn send_group(&self, group: Vec<WebhookEvent>, window: &Mutex<Window>, halt: &CancellationToken) {
        for event in group {
            let Some(message) = Message::of(&event) else { continue };
            if halt.is_cancelled() || !(self.is_alive)() || window.lock().has_failed() {
                return;
            }
            let attempt = self.sender.send(&self.endpoint, &message).await;
            window.lock().note(event, attempt.outcome);
        }
    }

    /// Acknowledges what can be acknowledged. False if the lease is lost.
    async fn acknowledge(
        &self,
        held: &mut Held,
        window: &Mutex<Window>,
        attempts: &mut i32,
    ) -> Result<bool, StoreError> {
        let ack = window.lock().take_ack();
        let Some((seq, delivered)) = ack else { return Ok(true) };
        let is_held = self.store.webhook_delivered(&held.fence, seq, delivered).await?;
        if is_held && delivered > 0 {
            self.recovered(held, std::mem::take(attempts));
        }
        Ok(is_held)
    }

    /// Stores a failure after `attempts` earlier ones. `event`: the event, if the message is one.
    async fn failed(
        &self,
        held: &mut Held,
        attempts: i32,
        event: Option<&WebhookEvent>,
        r#type: &str,
        outcome: &Outcome,
    ) -> Result<Next, StoreError> {
        let Outcome::Failed(failure) = outcome else {
            return self.stopped(held, "gone", Some("status 410")).await;
        };
        let wait = wait(attempts + 1, failure.retry_after, rand::random());
        self.log_failure(held, attempts + 1, event.map(|event| event.seq), r#type, failure, wait);
        let failed = FailedAttempt {
            seq: event.map(|event| event.seq),
            refused_id: event.filter(|_| failure.is_refusal).map(|event| event.id),
            failure: &failure.text,
            wait_secs: wait.as_secs_f64(),
        };
        let Some(is_final) = self.store.webhook_failed(&held.fence, &failed).await? else {
            return Ok(Next::Fenced);
        };
        let Some(event) = event.filter(|_| is_final && self.endpoint.sets_aside) else {
            return Ok(Next::After(wait.min(POLL_INTERVAL)));
        };
        if !self.store.set_webhook_event_aside(&held.fence, event, &failure.text).await? {
            return Ok(Next::Fenced);
        }
        tracing::error!(
            event = "webhook.set_aside",
            webhook = self.endpoint.name,
            seq = event.seq,
            r#type,
            failure = failure.text,
            "the receiver keeps refusing an event, so it is passed over; send it with `rosterd webhooks replay --event`"
        );
        Ok(Next::Now)
    }

    /// Stops the delivery until an operator resumes it.
    async fn stopped(
        &self,
        held: &Held,
        state: &'static str,
        failure: Option<&str>,
    ) -> Result<Next, StoreError> {
        if !self.store.stop_webhook(&held.fence, state, failure).await? {
            return Ok(Next::Fenced);
        }
        let advice = match state {
            "gone" => "the receiver answered 410 (gone); when it is back, run `rosterd webhooks retry`",
            _ => "events were removed before they were delivered; run `rosterd webhooks replay`",
        };
        let webhook = &self.endpoint.name;
        tracing::error!(event = "webhook.stopped", webhook, cause = state, "a webhook has stopped: {advice}");
        Ok(Next::After(POLL_INTERVAL))
    }

    /// Logs the first failure, then one per hour.
    fn log_failure(
        &self,
        held: &mut Held,
        attempts: i32,
        seq: Option<i64>,
        r#type: &str,
        failure: &Failure,
        wait: Duration,
    ) {
        if held.failing_logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        held.failing_logged_at = Some(Instant::now());
        tracing::warn!(
            event = "webhook.failing",
            webhook = self.endpoint.name,
            origin = self.endpoint.origin(),
            seq,
            r#type,
            failure = failure.text,
            attempts,
            retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "a webhook was not delivered; later events wait until it is"
        );
    }

    fn recovered(&self, held: &mut Held, attempts: i32) {
        if held.failing_logged_at.take().is_some() || attempts > 0 {
            tracing::info!(
                event = "webhook.recovered",
                webhook = self.endpoint.name,
                attempts,
                "a webhook is delivered again"
            );
        }
    }
}
