//! The rate limiter: permits to send requests.
//!
//! Invariant: Harvest never sees more than [`RateLimits::requests`] requests in any [`RateLimits::window`], from all
//! processes that share a database together. Two parts ensure this.
//!
//! 1. **The permit table** (`store::permits`). Before a request is sent, a process takes a permit: a row that counts
//!    until one window after the response ([`RateLimits::cooldown`]), or, without a response, until one window after the
//!    latest time at which the request may arrive ([`RateLimits::hold`]). At most N rows count at a time. Proof: suppose
//!    N + 1 requests arrived within one window, and the permit of request k was taken last. All others arrived less than
//!    a window before k arrived, so less than a window before k's permit was taken, or later. So all N rows still
//!    counted when k's permit was taken, and it could not be taken. The proof assumes nothing about delays, and the rows
//!    outlive the process.
//! 2. **The pause** (`backoff.rs`). A 429, or a 503 with `Retry-After`, stops all requests of the budget.
//!
//! The token bucket (`token_bucket.rs`) comes before these. It only smooths bursts and cannot ensure the invariant.
//!
//! [`RateLimits::grace`] limits how long after the grant a request may arrive at Harvest if its sender gave up or died.
//! No client can exclude one case: a machine that is suspended between grant and send, and sends after its row is free.

mod backoff;
mod limits;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod token_bucket;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use reqwest::StatusCode;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use uuid::Uuid;

pub use limits::{Priority, RateLimits};
use state::{State, Wait};
use table::LocalTable;
pub(crate) use table::PermitTable;
use token_bucket::TokenBucket;

use crate::roster::permits::Returned;
use crate::telemetry::instruments;

/// The permits of one budget, shared by everything in this process that sends requests to Harvest.
#[derive(Clone)]
pub struct RateLimiter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    table: Box<dyn PermitTable>,
    /// Notified of a new [pause](RateLimiter::unrecorded_pause).
    paused: Arc<Notify>,
    /// A queue for each priority. tokio's mutex is fair, and only the first of each queue competes for the token bucket
    /// and for permits; governor alone wakes its waiters in no order.
    queues: [tokio::sync::Mutex<()>; 3],
    token_bucket: TokenBucket,
}

impl RateLimiter {
    /// A rate limiter that takes its permits from `table`. `jitter` delays the end of each pause, so that not all
    /// processes continue at once.
    pub(crate) fn new(
        limits: RateLimits,
        jitter: Duration,
        table: Box<dyn PermitTable>,
        paused: Arc<Notify>,
    ) -> Self {
        let state = Mutex::new(State::new(limits, jitter, Instant::now()));
        let (queues, token_bucket) = (Default::default(), TokenBucket::new(&limits));
        Self { shared: Arc::new(Shared { state, table, paused, queues, token_bucket }) }
    }

    /// A rate limiter with the whole budget, for a process that cannot share it by a table.
    pub fn local(limits: RateLimits) -> Self {
        Self::new(limits, Duration::ZERO, Box::<LocalTable>::default(), Arc::default())
    }

    /// Waits for a permit to send one request. Send it at once, and report its end to the permit.
    pub async fn permit(&self, priority: Priority) -> Permit {
        let _turn = self.shared.queues[priority as usize].lock().await;
        self.shared.token_bucket.pass().await;
        let (id, granted) = self.wait(priority, |state, now| state.grant(now, priority)).await;
        Permit { limiter: self.clone(), id, granted }
    }

    /// Waits until this many requests could be sent. Their permits are returned if no request uses them soon.
    pub async fn wait_for_capacity(&self, priority: Priority, requests: u32) {
        let _turn = self.shared.queues[priority as usize].lock().await;
        self.wait(priority, |state, now| state.check(now, priority, requests)).await;
    }

    /// Repeats `check` until it succeeds; returns the time of the success too.
    async fn wait<T>(
        &self,
        priority: Priority,
        check: impl Fn(&mut State, Instant) -> Result<T, Wait>,
    ) -> (T, Instant) {
        loop {
            let now = Instant::now();
            let checked = check(&mut self.state(), now);
            let until = match checked {
                Ok(value) => return (value, now),
                Err(Wait::Until(at)) => at,
                Err(Wait::Take(request)) => {
                    let taken = self.shared.table.take(&request).await;
                    self.state().add(priority, now, request.ids, taken)
                }
            };
            sleep_until(until).await;
        }
    }

    /// Sets when the next poll is due, so that long reads leave permits to it; `None` if no poll can be waiting. Without
    /// a call, polls may come at any time.
    pub(crate) fn set_next_poll(&self, at: Option<Instant>) {
        self.state().next_poll = at;
    }

    /// The permits that this process does not need any more. The next request for permits includes them too.
    pub(crate) fn take_returned(&self) -> Returned {
        self.state().take_returned(Instant::now())
    }

    /// The end of a pause that the other processes do not know yet.
    pub(crate) fn unrecorded_pause(&self) -> Option<Instant> {
        self.state().backoff.unrecorded
    }

    /// Reports that the database has this pause, for the other processes of the budget.
    pub(crate) fn pause_recorded(&self, until: Instant) {
        self.state().backoff.recorded(until);
    }

    /// See [`RateLimits::grace`].
    pub(crate) fn grace(&self) -> Duration {
        self.state().limits.grace
    }

    /// Stops granting permits.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

/// Permission to send one request. Dropping it means that the request failed or was given up, and that Harvest may
/// still receive it for [`RateLimits::grace`].
#[must_use = "a permit dropped at once counts as a request that was given up"]
pub struct Permit {
    limiter: RateLimiter,
    id: Uuid,
    granted: Instant,
}

impl Permit {
    /// Reports that the status line of the response arrived: Harvest has counted the request and does not count it
    /// later. After a 429, or a 503 with `Retry-After`, the budget sends nothing until `retry_after` has passed (without
    /// it: one window; at most five minutes).
    pub fn answered(self, status: StatusCode, retry_after: Option<Duration>) {
        let is_429 = status == StatusCode::TOO_MANY_REQUESTS;
        if is_429 {
            instruments::throttled();
        }
        if is_429 || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some()) {
            self.pause(status, retry_after);
        }
        self.limiter.state().answered(self.id);
    }

    fn pause(&self, status: StatusCode, retry_after: Option<Duration>) {
        let pause = {
            let mut state = self.limiter.state();
            let pause = retry_after.unwrap_or(state.limits.window);
            state.backoff.throttled(status, pause, self.granted, Instant::now())
        };
        if let Some(pause) = pause {
            let status = status.as_u16();
            let retry_after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            warn!(
                event = "harvest.throttled",
                retry_after_ms,
                "Harvest answered {status}; all requests are paused for {} s",
                pause.as_secs_f64()
            );
        }
        self.limiter.shared.paused.notify_one();
    }
}
