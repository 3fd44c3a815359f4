//! Runs one cycle, request or rate read of an account under its lease, with heartbeats and a limit on stalls.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::limiter::HeartbeatStatus;
use super::schedule;
use crate::clock::Clock;
use crate::harvest::Client;
use crate::roster::AccountId;
use crate::store::state::AccountState;
use crate::store::{Fence, Store, StoreError};
use crate::sync::cycle::{Cycle, CycleMemory, ProgressFn, SyncRules};
use crate::sync::error::CycleError;
use crate::sync::mirror::PostgresMirror;
use crate::sync::report::{CycleMode, CycleReport};
use crate::sync::wake::ReadUntil;
use crate::sync::{rates, user};

/// How long a cycle may take to reach the end of its page after the daemon was asked to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Full reads that run at the same time in a process. More of them would wait for database connections so long that
/// they count as stalled.
pub(crate) const MAX_FULL_READS: usize = 16;
/// How long a scheduled full read waits for one of the [`MAX_FULL_READS`]. Then it runs anyway, because the others may
/// be long or blocked by a Harvest that does not respond.
const FULL_READ_WAIT: Duration = Duration::from_mins(1);
/// Time between heartbeats while a cycle runs.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time between heartbeats while the worker sleeps.
const SLEEP_STEP: Duration = Duration::from_mins(1);

pub(crate) struct CycleRunner {
    pub store: Store,
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub rules: SyncRules,
    /// The longest interval between two polls. A second 404 of a recently created record counts after this time.
    pub poll_interval: Duration,
    /// Shared by all accounts of the process.
    pub full_reads: Arc<Semaphore>,
    /// A cycle without progress for this long is ended.
    pub stall_limit: Duration,
    pub with_rates: bool,
    pub health: Health,
    /// After a repeated registration of this process, the lease may be lost.
    pub heartbeats: watch::Receiver<HeartbeatStatus>,
}

impl CycleRunner {
    /// Runs a cycle in the mode `requested`, or the one that is due. `None` if the lease is lost or the daemon stops.
    pub(super) async fn cycle(
        &self,
        fence: Fence,
        requested: Option<CycleMode>,
        memory: &mut CycleMemory,
        cancel: &CancellationToken,
    ) -> Option<CycleReport> {
        let (mode, known) = match cancel.run_until_cancelled(self.account_state(fence)).await? {
            Ok(None) => {
                self.log_lost_lease();
                return None;
            }
            Ok(Some(known)) => (requested.unwrap_or_else(|| schedule::mode(self.clock.now(), &known)), known),
            Err(error) => {
                let mut report = CycleReport::new(fence.account, CycleMode::Incremental, self.clock.now());
                report.outcome = Err(error.into());
                return Some(report);
            }
        };
        let page_stored = |_, _, _| {
            self.heartbeat();
            self.health.page_stored(self.account(), Instant::now());
        };
        self.set_next_poll(None);
        // A user who requests a full read suspects a difference: compare all fields.
        let mirror = self.mirror(fence, requested == Some(CycleMode::Full));
        let mut cycle = self.reader(&mirror, memory, &page_stored, cancel);
        let read = async {
            let _permit = match (mode, requested) {
                (CycleMode::Full, None) => {
                    self.client.progress().waits_for(self.full_read_permit(cancel)).await
                }
                _ => None,
            };
            cycle.run(mode, known).await
        };
        self.supervise(fence, mode, read, cancel).await
    }

    /// Reads one user and their assignments again; also returns whether the user is known.
    pub(super) async fn user(
        &self,
        fence: Fence,
        id: i64,
        memory: &mut CycleMemory,
        cancel: &CancellationToken,
    ) -> Option<(CycleReport, bool)> {
        let mirror = self.mirror(fence, true);
        let reader = self.reader(&mirror, memory, &|_, _, _| (), cancel);
        let mut is_known = true;
        let read = async {
            let report;
            (report, is_known) = user::read(reader, id, self.with_rates).await;
            report
        };
        let report = self.supervise(fence, CycleMode::Incremental, read, cancel).await?;
        Some((report, is_known))
    }

    /// Reads the rate histories that are due, in the time before the next poll.
    pub(super) async fn rates(
        &self,
        fence: Fence,
        until: ReadUntil<'_>,
        memory: &mut CycleMemory,
        cancel: &CancellationToken,
    ) {
        self.set_next_poll(Some(until.deadline));
        let mirror = self.mirror(fence, false);
        let reader = self.reader(&mirror, memory, &|_, _, _| (), cancel);
        let read = Box::pin(rates::read_due(reader, Some(until)));
        if let Some(report) = self.supervise(fence, CycleMode::Incremental, read, cancel).await
            && (report.wrote() || report.outcome.is_err())
        {
            report.log(None, false);
        }
    }

    /// Lets long reads use all permits unless a poll is due soon. If other accounts use the same budget, their polls may
    /// come at any time.
    fn set_next_poll(&self, at: Option<Instant>) {
        if self.rules.alone {
            self.client.set_next_poll(at);
        }
    }

    fn mirror(&self, fence: Fence, compare_all_fields: bool) -> PostgresMirror<'_> {
        PostgresMirror {
            store: &self.store,
            fence,
            order: self.client.order(),
            again_after: TimeDelta::from_std(self.poll_interval).unwrap_or(TimeDelta::MAX),
            guard: self.rules.guard,
            compare_all_fields,
            write: None,
        }
    }

    fn reader<'a>(
        &'a self,
        mirror: &'a PostgresMirror<'a>,
        memory: &'a mut CycleMemory,
        progress: ProgressFn<'a>,
        cancel: &'a CancellationToken,
    ) -> Cycle<'a, PostgresMirror<'a>> {
        let (client, clock, rules) = (&self.client, &*self.clock, self.rules);
        Cycle { mirror, client, clock, rules, memory, progress, cancel }
    }

    async fn full_read_permit(&self, cancel: &CancellationToken) -> Option<SemaphorePermit<'_>> {
        let permit = timeout(FULL_READ_WAIT, self.full_reads.acquire());
        cancel.run_until_cancelled(permit).await?.ok()?.ok()
    }

    /// Runs `read` with heartbeats. `None` if the lease is lost, or if `read` does not end in time after the daemon was
    /// asked to stop. A read without progress is dropped and reported as failed. If it blocks this task instead, the
    /// heartbeats stop and `/livez` fails.
    async fn supervise(
        &self,
        fence: Fence,
        mode: CycleMode,
        read: impl Future<Output = CycleReport>,
        cancel: &CancellationToken,
    ) -> Option<CycleReport> {
        let mut heartbeats = tokio::time::interval(HEARTBEAT_INTERVAL);
        let stop_timeout = async {
            cancel.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        let lease_lost = self.lease_lost(fence);
        let progress = self.client.progress();
        progress.made();
        let stalled = progress.stalled(self.stall_limit);
        tokio::pin!(read, stop_timeout, lease_lost, stalled);
        loop {
            tokio::select! {
                report = &mut read => return Some(report),
                () = &mut stop_timeout => return None,
                () = &mut lease_lost => {
                    self.log_lost_lease();
                    return None;
                }
                () = &mut stalled => {
                    let mut report = CycleReport::new(fence.account, mode, self.clock.now());
                    report.outcome = Err(CycleError::Stalled(self.stall_limit));
                    return Some(report);
                }
                _ = heartbeats.tick() => self.heartbeat(),
            }
        }
    }

    /// Ends if this process was registered again and another process has taken the lease meanwhile. Pending requests to
    /// Harvest are then dropped before they are sent.
    async fn lease_lost(&self, fence: Fence) {
        let mut heartbeats = self.heartbeats.clone();
        let mut known = heartbeats.borrow().registrations;
        loop {
            let registered = heartbeats.wait_for(|heartbeats| heartbeats.registrations > known).await;
            let registered = registered.map(|heartbeats| heartbeats.registrations);
            // If the limiter task has ended, the daemon stops.
            let Ok(registrations) = registered else { return std::future::pending().await };
            known = registrations;
            if matches!(self.store.holds_lease(&fence).await, Ok(false)) {
                return;
            }
        }
    }

    /// `None` if the lease is lost. The database may be another one than at the last poll: a fail-over between two
    /// polls breaks only idle connections, and no statement fails.
    async fn account_state(&self, fence: Fence) -> Result<Option<AccountState>, StoreError> {
        if !self.store.holds_lease(&fence).await? {
            return Ok(None);
        }
        self.store.check_timeline().await?;
        self.store.account_state(fence.account).await.map(Some)
    }

    pub(super) fn log_lost_lease(&self) {
        tracing::warn!(
            event = "lease.lost",
            account_id = self.account().0,
            "another process has taken over the account's lease"
        );
    }

    pub(crate) fn account(&self) -> AccountId {
        self.client.account()
    }

    pub(super) fn heartbeat(&self) {
        self.health.heartbeat(self.account(), Instant::now());
    }

    /// Sleeps with heartbeats until the time has passed or the daemon stops.
    pub(super) async fn sleep(&self, duration: Duration, cancel: &CancellationToken) {
        let until = Instant::now() + duration;
        while !cancel.is_cancelled() && Instant::now() < until {
            self.heartbeat();
            let step = (until - Instant::now()).min(SLEEP_STEP);
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(step) => {}
            }
        }
    }
}
