//! The worker of one account: acquires the lease, waits until a cycle is due or requested, runs it, and releases the
//! lease at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cycle_runner::CycleRunner;
use super::polls::Polls;
use super::requests;
use super::schedule::Interval;
use crate::provision::WriteSender;
use crate::store::lease::Lease;
use crate::store::requests::{DaemonRequest, RequestKind};
use crate::store::{Fence, Store, StoreError};
use crate::sync::cycle::CycleMemory;
use crate::sync::error::CycleError;
use crate::sync::report::{CycleMode, CycleReport};
use crate::sync::wake::{ReadUntil, Wake};
use crate::telemetry::{chain, instruments};

/// An account without changes logs one cycle per hour.
const IDLE_LOG_INTERVAL: Duration = Duration::from_hours(1);
/// How often a standby tries to acquire the lease, at least. It takes over a dead process's lease within `lease.ttl`
/// and five seconds.
const STANDBY_INTERVAL: Duration = Duration::from_secs(3);

/// Limit of the release when the process stops: the database may be unavailable.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    pub runner: CycleRunner,
    pub replica: Uuid,
    /// Bounds of the time from the start of one poll to the start of the next.
    pub interval: Interval,
    /// Delay of the start, so that not all accounts start at the same time.
    pub start_delay: Duration,
    /// A process without heartbeats for this long loses its leases.
    pub lease_ttl: Duration,
    pub wake: Arc<Wake>,
    /// Sends writes while this process holds the lease; `None` if they are off.
    pub writes: Option<Arc<WriteSender>>,
}

/// Releases the lease. If that fails, another process can take the lease once this process counts as dead.
pub(crate) async fn give_back(store: &Store, fence: &Fence, replica: Uuid) {
    let error = match timeout(RELEASE_TIMEOUT, store.release(fence, replica)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => chain(&error),
        Err(_) => "the database does not answer".to_owned(),
    };
    tracing::warn!(account_id = fence.account.0, error, "could not release the account's lease");
}

impl Worker {
    /// Runs until `cancel` is cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        self.runner.health.register(self.runner.account(), Instant::now());
        instruments::lease(self.account_id(), false);
        tokio::select! {
            () = self.runner.sleep(self.start_delay, &cancel) => {}
            () = self.wake.notified() => {}
        }
        while let Some(fence) = self.acquire_lease(&cancel).await {
            let end_of_cycles = cancel.child_token();
            let cycles = async {
                self.run_cycles(fence, &cancel).await;
                end_of_cycles.cancel();
            };
            // While cycles run: a write does not wait for the end of a long read.
            let writes = async {
                if let Some(writes) = &self.writes {
                    Box::pin(writes.run(fence, &end_of_cycles)).await;
                }
            };
            tokio::join!(cycles, writes);
            instruments::lease(self.account_id(), false);
            give_back(&self.runner.store, &fence, self.replica).await;
        }
    }

    pub(crate) fn write_wake(&self) -> Option<Arc<Notify>> {
        self.writes.as_ref().map(|writes| writes.wake.clone())
    }

    fn account_id(&self) -> i64 {
        self.runner.account().0
    }

    /// Waits as a standby until this process holds the lease. `None` if the daemon stops.
    async fn acquire_lease(&self, cancel: &CancellationToken) -> Option<Fence> {
        let (mut logged_holder, mut is_failing) = (None, false);
        loop {
            self.runner.heartbeat();
            let result = self.runner.store.acquire(self.runner.account(), self.replica);
            let result = cancel.run_until_cancelled(result).await?;
            let has_failed = std::mem::replace(&mut is_failing, result.is_err());
            match result {
                Ok(Lease::Acquired(fence)) => {
                    self.lease_acquired(fence);
                    return Some(fence);
                }
                Ok(Lease::Held { by }) => {
                    self.runner.health.set_standby(self.runner.account(), true);
                    if logged_holder.as_ref() != Some(&by) {
                        tracing::info!(
                            account_id = self.account_id(),
                            holder = by,
                            "standby: another process holds the account's lease"
                        );
                        logged_holder = Some(by);
                    }
                }
                Err(_) if has_failed => {}
                Err(error) => {
                    tracing::warn!(
                        account_id = self.account_id(),
                        error = %chain(&error),
                        "cannot acquire the account's lease; trying again"
                    );
                }
            }
            // A process that releases the lease sends a notification.
            let attempted = Instant::now();
            tokio::select! {
                () = self.runner.sleep(STANDBY_INTERVAL.min(self.lease_ttl / 3), cancel) => {}
                () = self.wake.notified_after(attempted) => {}
            }
        }
    }

    fn lease_acquired(&self, fence: Fence) {
        self.runner.health.set_standby(self.runner.account(), false);
        instruments::lease(self.account_id(), true);
        tracing::info!(
            event = "lease.acquired",
            account_id = self.account_id(),
            epoch = fence.epoch,
            "this process holds the account's lease now"
        );
    }

    /// Runs cycles until the lease is lost or the daemon stops.
    async fn run_cycles(&self, fence: Fence, cancel: &CancellationToken) {
        let mut memory = CycleMemory::lasting();
        let mut last_logged = Instant::now();
        let mut polls = Polls::new(self.interval, last_logged);
        let mut was_answered = true;
        while !cancel.is_cancelled() {
            let request = self.next_request(&mut polls, was_answered, cancel).await;
            if cancel.is_cancelled() {
                return;
            }
            self.runner.heartbeat();
            let started = Instant::now();
            let result = Box::pin(self.execute(fence, request, &mut memory, cancel)).await;
            let Some((report, is_known)) = result else { return };
            report.count();
            if matches!(request, Some(DaemonRequest { kind: RequestKind::User(_), .. })) {
                report.log(None, false);
            } else {
                let next = polls.cycle_ended(started, Instant::now(), &report);
                if report.log(Some(next), last_logged.elapsed() >= IDLE_LOG_INTERVAL) {
                    last_logged = Instant::now();
                }
                let error = report.outcome.as_ref().err().map(|error| chain(error));
                self.runner.health.cycle_ended(self.runner.account(), Instant::now(), error);
            }
            if matches!(report.outcome, Err(CycleError::Store(StoreError::Fenced(_)))) {
                self.runner.log_lost_lease();
                return;
            }
            was_answered = match request {
                Some(request) => requests::answer(&self.runner.store, request.id, &report, is_known).await,
                None => false,
            };
            if self.runner.with_rates
                && let Some(deadline) = polls.rates_until()
            {
                let until = ReadUntil { deadline, wake: &self.wake };
                Box::pin(self.runner.rates(fence, until, &mut memory, cancel)).await;
            }
        }
    }

    /// Waits for a request, or until the next poll is due (`None`). If the last request `was_answered`, another one may
    /// wait: queries at once.
    async fn next_request(
        &self,
        polls: &mut Polls,
        was_answered: bool,
        cancel: &CancellationToken,
    ) -> Option<DaemonRequest> {
        let mut is_woken = false;
        if !was_answered {
            is_woken = self.sleep_until_due(polls, cancel).await;
        }
        loop {
            polls.queried = Instant::now();
            let request = requests::next(&self.runner.store, self.runner.account(), cancel).await;
            if request.is_some() {
                return request;
            }
            if is_woken {
                polls.advance(&self.wake, Instant::now());
            }
            if cancel.is_cancelled() || polls.due() <= Instant::now() {
                return None;
            }
            is_woken = self.sleep_until_due(polls, cancel).await;
        }
    }

    /// Sleeps until the next poll is due. Returns true if the worker was woken earlier.
    async fn sleep_until_due(&self, polls: &Polls, cancel: &CancellationToken) -> bool {
        let wait = polls.due().saturating_duration_since(Instant::now());
        tokio::select! {
            () = self.runner.sleep(wait, cancel) => false,
            () = self.wake.notified_after(polls.queried) => true,
        }
    }

    /// Executes `request`, or the cycle that is due. Also returns whether the user of the request is known. `None` if
    /// the lease is lost or the daemon stops.
    async fn execute(
        &self,
        fence: Fence,
        request: Option<DaemonRequest>,
        memory: &mut CycleMemory,
        cancel: &CancellationToken,
    ) -> Option<(CycleReport, bool)> {
        let mode = match request.map(|request| request.kind) {
            Some(RequestKind::User(id)) => return self.runner.user(fence, id, memory, cancel).await,
            Some(RequestKind::Full) => Some(CycleMode::Full),
            Some(RequestKind::Sync) | None => None,
        };
        self.runner.cycle(fence, mode, memory, cancel).await.map(|report| (report, true))
    }
}
