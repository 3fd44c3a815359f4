//! Leave to send a request.
//!
//! The law: at no time does Harvest see more than [`Limits::requests`] requests in any [`Limits::window`],
//! from all processes behind one database together. It stands on three things.
//!
//! 1. **The completion window** (`window.rs`). A permit is taken before a request is sent and is free
//!    again one window after its *response*. Suppose Harvest handled N + 1 requests within one window,
//!    and let k be the one sent last: all the others were handled less than a window before k was
//!    handled, hence answered less than a window before k was sent, or not yet: they still held all N
//!    permits, and k could not be sent. No assumption about delays is needed.
//! 2. **The budget** (`sync::budget`, `store::permits`). The N permits belong to a table that all
//!    processes share. A process uses what it holds only while its heartbeat is fresh
//!    ([`Pace::trust_until`]); the table takes a dead process's permits back when every request it may
//!    have sent has left the window.
//! 3. **The gate** (`gate.rs`). A 429, or a 503 that names a time, silences the whole budget.
//!
//! governor comes before these and only smooths; `smoother.rs` says why it cannot be the law.
//!
//! A permit is handed out in one step, when the gate is open, the heartbeat fresh and a slot free; the
//! waiting comes before. What passes between grant and send costs throughput and not the law: the slot
//! is held until the response. [`Limits::grace`] bounds how long after its grant a request whose sender
//! has given up, or died, may still reach Harvest. One thing no client can exclude: a machine that stands
//! still between grant and send, while its chunks pass to others, and then sends after all.

mod gate;
mod share;
#[cfg(test)]
mod simulation;
mod smoother;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

pub use gate::retry_after;
use smoother::Smoother;
pub use state::Needs;
use state::State;

/// What Harvest allows, and how carefully it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that Harvest accepts …
    pub requests: u32,
    /// … in any window of this length.
    pub window: Duration,
    /// Permits of these left to people and other tools.
    pub reserve: u32,
    /// How long after its grant a request that nobody waits for any more may still reach Harvest: the
    /// client's time-out at least.
    pub grace: Duration,
}

impl Limits {
    /// Permits of the whole budget. At least one: a limit that leaves none would be silence for ever.
    pub fn permits(&self) -> u32 {
        self.requests.saturating_sub(self.reserve).max(1)
    }

    /// About a tenth: permits come from the budget in chunks of this many, and as many leave at once.
    pub fn chunk(&self) -> u32 {
        (self.requests / 10).max(1)
    }

    /// How long a slot rests after its response.
    pub fn cooldown(&self) -> Duration {
        with_slack(self.window)
    }

    /// How long the budget keeps a chunk for a process it no longer hears of: the process may use it for
    /// `ttl` after its last heartbeat, its requests may arrive up to `grace` later, and count a window.
    pub fn hold(&self, ttl: Duration) -> Duration {
        with_slack(ttl + self.grace + self.window)
    }
}

/// 1.6 % more, for clocks that do not run at the same rate.
fn with_slack(span: Duration) -> Duration {
    span + span / 64
}

/// Which permits a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Whatever is due now; may use every permit.
    Poll,
    /// Long reads beside the polls; leaves them a third of the permits.
    Background,
}

/// How Harvest asked for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// 429. As we keep below the limit ourselves, somebody else uses it too.
    TooMany,
    /// 503 with `Retry-After`: nothing to do with our rate.
    Unavailable,
}

/// One budget's leave to send, shared by everything in this process that talks to Harvest.
#[derive(Clone)]
pub struct Pace {
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    state: StdMutex<State>,
    /// Rung when those who wait should look again.
    changed: Notify,
    /// Rung when the keeper of the budget should look.
    bell: Arc<Notify>,
    /// The queue of each lane. tokio's mutex is fair, and a lane's first alone competes for smoothing and
    /// slots: governor by itself wakes waiters in no order.
    turns: [Mutex<()>; 2],
    smoother: Smoother,
}

impl Pace {
    /// A pace that owns no permits: its keeper [adds](Self::add) them and rings back on `bell`. `jitter` is
    /// how much later than told this process leaves the gate, so that not all processes do so at once.
    pub fn new(limits: Limits, jitter: Duration, bell: Arc<Notify>) -> Self {
        Self::with_state(limits, State::new(limits, jitter, Instant::now()), bell)
    }

    /// A pace that owns the whole budget by itself, for where there is no table to share it through.
    pub fn local(limits: Limits) -> Self {
        Self::with_state(limits, State::local(limits), Arc::default())
    }

    fn with_state(limits: Limits, state: State, bell: Arc<Notify>) -> Self {
        let smoother = Smoother::new(&limits);
        let (state, changed, turns) = (StdMutex::new(state), Notify::new(), Default::default());
        Self { shared: Arc::new(Shared { limits, state, changed, bell, turns, smoother }) }
    }

    /// What this pace was made with.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// Waits for leave to send one request. Send it at once, and tell the permit how it ended. Safe to drop.
    pub async fn permit(&self, lane: Lane) -> Permit {
        let _turn = self.shared.turns[lane as usize].lock().await;
        self.shared.smoother.pass().await;
        let granted = self.wait(|state, now| state.grant(now, lane)).await;
        Permit { pace: self.clone(), lane, granted, ended: false }
    }

    /// Waits until so many requests could leave. Safe to drop, at no cost.
    pub async fn room(&self, lane: Lane, requests: u32) {
        let _turn = self.shared.turns[lane as usize].lock().await;
        self.wait(|state, now| state.room(now, lane, requests)).await;
    }

    /// Looks again with each change until it is good; tells when that was.
    async fn wait(
        &self,
        mut look: impl FnMut(&mut State, Instant) -> (Result<(), Instant>, bool),
    ) -> Instant {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable(); // before the look, so that no change falls between
            let now = Instant::now();
            let (outcome, ring) = look(&mut self.state(), now);
            if ring {
                self.shared.bell.notify_one();
            }
            match outcome {
                Ok(()) => return now,
                Err(look_again) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(look_again) => {}
                },
            }
        }
    }

    /// The keeper took more permits from the budget.
    pub fn add(&self, permits: u32) {
        self.state().add(permits);
        self.shared.changed.notify_waiters();
    }

    /// Withdraws idle permits, so that the keeper can give them back; false when that many are not idle.
    pub fn withdraw(&self, permits: u32) -> bool {
        self.state().withdraw(permits, Instant::now())
    }

    /// Whether all that counts at Harvest was sent with permits that are still ours.
    pub fn is_within(&self) -> bool {
        self.state().is_within(Instant::now())
    }

    /// The budget no longer knows of these permits, or they are about to be given back.
    pub fn lose(&self, permits: u32) {
        self.state().lose(permits);
    }

    /// A heartbeat succeeded: the permits may be used until `until`.
    pub fn trust_until(&self, until: Instant) {
        self.state().trust_until(until);
        self.shared.changed.notify_waiters();
    }

    /// Another process of the budget was told to be silent.
    pub fn pause_until(&self, until: Instant) {
        self.state().pause_until(until);
    }

    /// What the keeper should do now. Being asked clears the wish for permits; a pause stays until
    /// [recorded](Self::pause_recorded).
    pub fn needs(&self) -> Needs {
        self.state().needs()
    }

    /// The other processes of the budget will learn of this pause.
    pub fn pause_recorded(&self, until: Instant) {
        self.state().pause_recorded(until);
    }

    /// Permits that nobody needed since this was last asked.
    pub fn surplus(&self) -> u32 {
        self.state().surplus(Instant::now())
    }

    /// Grants nothing from here on. Returns for how long the permits used so far must rest.
    pub fn close(&self) -> Duration {
        self.state().close(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code path panics half-way through a change of the state.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send one request. Dropping it means that the request failed or was given up, and that
/// Harvest may still see it for [`Limits::grace`].
#[must_use = "a permit dropped at once counts as a request that was given up"]
pub struct Permit {
    pace: Pace,
    lane: Lane,
    granted: Instant,
    ended: bool,
}

impl Permit {
    /// The response's status line is here: Harvest has counted the request, and will not count it later.
    pub fn answered(mut self) {
        self.ended = true;
        self.pace.state().answered(self.lane, Instant::now());
        self.pace.shared.changed.notify_waiters();
    }

    /// The response asks for silence: nothing of this budget leaves until `retry_after` (where absent: one
    /// window; five minutes at most) has passed.
    pub fn throttled(self, throttle: Throttle, retry_after: Option<Duration>) {
        let now = Instant::now();
        let paused = self.pace.state().throttled(throttle, retry_after, self.granted, now);
        if let Some(pause) = paused {
            let retry_after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            warn!(event = "harvest.throttled", retry_after_ms, "harvest asks for silence: all requests wait");
        }
        self.pace.shared.bell.notify_one();
        self.answered();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.pace.state().abandoned(self.lane, Instant::now());
            self.pace.shared.changed.notify_waiters();
        }
    }
}
