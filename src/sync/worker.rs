//! One account: take it, sleep until due, run a cycle, note it; give it back on the way out.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::apply::Writer;
use super::budget::Standing;
use super::cycle::{Cycle, CycleError, Memory, Progress, Rules};
use super::health::Health;
use super::histories::Until;
use super::polls::{Polls, Wake};
use super::report::Report;
use super::schedule::{self, Interval, Mode};
use crate::clock::Clock;
use crate::harvest::Client;
use crate::store::lease::Lease;
use crate::store::requests::{Request, Wish};
use crate::store::state::AccountState;
use crate::store::{Fence, Store, StoreError};
use crate::telemetry::{chain, meters};

/// A quiet account says so once an hour.
const HEARTBEAT: Duration = Duration::from_hours(1);
/// How long a cycle may take to reach the end of its page once we are told to stop.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long giving the account back may take; the database may be away.
const FAREWELL: Duration = Duration::from_secs(1);
/// So many accounts of a process are read from the first to the last at once: with more, those that wait for the database
/// would take it for dead.
pub const TURNS: usize = 16;
/// How long an account waits for its turn. The others may be large, or have a Harvest that does not answer.
const TURN_LIMIT: Duration = Duration::from_mins(1);
/// A standby looks at least this often, so that it follows a silent holder within the lease's time and five seconds.
const LOOK: Duration = Duration::from_secs(3);

/// All that one account's worker needs.
pub struct Worker {
    /// The database.
    pub store: Store,
    /// Harvest.
    pub client: Client,
    /// This process.
    pub replica: Uuid,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules of reading.
    pub rules: Rules,
    /// From the start of one poll to the start of the next.
    pub interval: Interval,
    /// How long it waits before it begins, so that not all do so at once.
    pub begins: Duration,
    /// Shared by all accounts: one for each that may be read from the first to the last now.
    pub turns: Arc<Semaphore>,
    /// A silent process loses its accounts after this.
    pub lease_ttl: Duration,
    /// A cycle that makes no progress for this long is ended.
    pub stall_limit: Duration,
    /// Whether the histories of rates are read too.
    pub histories: bool,
    /// Where it shows itself.
    pub health: Health,
    /// Wakes the worker before its next poll.
    pub wake: Arc<Wake>,
    /// How this process stands: registered anew, it may have lost the account.
    pub standing: watch::Receiver<Standing>,
}

/// Gives the account back. If that fails, it is free once this process counts as gone.
pub async fn give_back(store: &Store, fence: &Fence, replica: Uuid) {
    let error = match timeout(FAREWELL, store.release(fence, replica)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => chain(&error),
        Err(_) => "the database does not answer".to_owned(),
    };
    tracing::warn!(account_id = fence.account.0, error, "could not give the account back");
}

impl Worker {
    /// Works until told to stop.
    pub async fn run(self, cancel: CancellationToken) {
        self.health.register(self.client.account(), Instant::now());
        meters::lease(self.account(), false);
        tokio::select! {
            () = self.sleep(self.begins, &cancel) => {}
            () = self.wake.notified() => {}
        }
        while let Some(fence) = self.take_over(&cancel).await {
            self.hold(fence, &cancel).await;
            meters::lease(self.account(), false);
            give_back(&self.store, &fence, self.replica).await;
        }
    }

    /// Stands by until the account is ours; `None` when told to stop.
    async fn take_over(&self, cancel: &CancellationToken) -> Option<Fence> {
        let (mut said, mut failing) = (None, false);
        loop {
            self.beat();
            let asked = self.store.acquire(self.client.account(), self.replica);
            let asked = cancel.run_until_cancelled(asked).await?;
            let failed = std::mem::replace(&mut failing, asked.is_err());
            match asked {
                Ok(Lease::Acquired(fence)) => {
                    self.health.standby(self.client.account(), false);
                    meters::lease(self.account(), true);
                    tracing::info!(
                        event = "lease.acquired",
                        account_id = self.account(),
                        epoch = fence.epoch,
                        "this process writes the account now"
                    );
                    return Some(fence);
                }
                Ok(Lease::Held { by }) => {
                    self.health.standby(self.client.account(), true);
                    if said.as_ref() != Some(&by) {
                        tracing::info!(
                            account_id = self.account(),
                            holder = by,
                            "standing by: another process writes the account"
                        );
                        said = Some(by);
                    }
                }
                Err(_) if failed => {}
                Err(error) => {
                    tracing::warn!(account_id = self.account(), error = %chain(&error), "cannot ask for the account; trying again");
                }
            }
            // A holder that gives it back notifies.
            let looked = Instant::now();
            tokio::select! {
                () = self.sleep(LOOK.min(self.lease_ttl / 3), cancel) => {}
                () = self.wake.notified_after(looked) => {}
            }
        }
    }

    /// Cycles while the account is ours.
    async fn hold(&self, fence: Fence, cancel: &CancellationToken) {
        let mut memory = Memory { is_lasting: true, ..Memory::default() };
        let mut said = Instant::now();
        let mut polls = Polls::new(self.interval, said);
        let mut answered = true;
        while !cancel.is_cancelled() {
            let request = self.wait(fence, &mut polls, answered, cancel).await;
            if cancel.is_cancelled() {
                return;
            }
            self.beat();
            let began = Instant::now();
            let done = Box::pin(self.work(fence, request, &mut memory, cancel)).await;
            let Some((report, is_known)) = done else { return };
            report.count();
            let is_cycle = !matches!(request, Some(Request { wish: Wish::User(_), .. }));
            let next = is_cycle.then(|| polls.ended(began, Instant::now(), &report));
            let heartbeat = is_cycle && said.elapsed() >= HEARTBEAT;
            if report.log(next, heartbeat) && is_cycle {
                said = Instant::now();
            }
            if is_cycle {
                let error = report.outcome.as_ref().err().map(|error| chain(error));
                self.health.cycle(self.client.account(), Instant::now(), error);
            }
            if matches!(report.outcome, Err(CycleError::Store(StoreError::Fenced(_)))) {
                self.lost();
                return;
            }
            answered = match request {
                Some(request) => self.answer(request, &report, is_known).await,
                None => false,
            };
            if self.histories
                && let Some(until) = polls.histories_until()
            {
                Box::pin(self.histories(fence, until, &mut memory, cancel)).await;
            }
        }
    }

    /// One cycle, of what is due or of what was asked for; `None` when the account is no longer ours, or we are told to
    /// stop.
    pub(super) async fn cycle(
        &self,
        fence: Fence,
        asked: Option<Mode>,
        memory: &mut Memory,
        cancel: &CancellationToken,
    ) -> Option<Report> {
        let (mode, known) = match cancel.run_until_cancelled(self.states(fence)).await? {
            Ok(None) => {
                self.lost();
                return None;
            }
            Ok(Some(known)) => (asked.unwrap_or_else(|| schedule::mode(self.clock.now(), &known)), known),
            Err(error) => {
                let mut report = Report::new(fence.account, Mode::Incremental, self.clock.now());
                report.outcome = Err(error.into());
                return Some(report);
            }
        };
        let stored = |_, _, _| {
            self.beat();
            self.health.stored(self.client.account(), Instant::now());
        };
        // Somebody who asks for all of it has a doubt.
        let writer = self.writer(fence, asked == Some(Mode::Full));
        let cycle = self.reader(&writer, memory, &stored, cancel);
        let read = async {
            let _turn = match (mode, asked) {
                (Mode::Full, None) => self.client.progress().waits_for(self.turn(cancel)).await,
                _ => None,
            };
            cycle.run(mode, known).await
        };
        self.alive(fence, mode, read, cancel).await
    }

    /// Waits until not too many others read everything, but not for long.
    async fn turn(&self, cancel: &CancellationToken) -> Option<SemaphorePermit<'_>> {
        let turn = timeout(TURN_LIMIT, self.turns.acquire());
        cancel.run_until_cancelled(turn).await?.ok()?.ok()
    }

    /// What is due of the histories of rates, in the time before the next poll.
    async fn histories(
        &self,
        fence: Fence,
        deadline: Instant,
        memory: &mut Memory,
        cancel: &CancellationToken,
    ) {
        let writer = self.writer(fence, false);
        let reader = self.reader(&writer, memory, &|_, _, _| (), cancel);
        let until = Until { deadline, wake: &self.wake };
        let read = Box::pin(reader.histories(Some(until)));
        if let Some(report) = self.alive(fence, Mode::Incremental, read, cancel).await
            && (report.wrote() || report.outcome.is_err())
        {
            report.log(None, false);
        }
    }

    pub(super) fn writer(&self, fence: Fence, thorough: bool) -> Writer<'_> {
        let again_after = TimeDelta::from_std(self.interval.slowest).unwrap_or(TimeDelta::MAX);
        Writer {
            store: &self.store,
            fence,
            order: self.client.order(),
            again_after,
            guard: self.rules.guard,
            thorough,
        }
    }

    pub(super) fn reader<'a>(
        &'a self,
        sink: &'a Writer<'a>,
        memory: &'a mut Memory,
        progress: Progress<'a>,
        cancel: &'a CancellationToken,
    ) -> Cycle<'a, Writer<'a>> {
        let (client, clock, rules) = (&self.client, &*self.clock, self.rules);
        Cycle { sink, client, clock, rules, memory, progress, cancel }
    }

    /// Runs it, showing life meanwhile; `None` when we were told to stop and it did not, or the account is no longer ours.
    /// A run without progress is dropped and reported as failed. If that is impossible, because the run keeps this task from
    /// turning, nothing shows life any more and `/livez` fails.
    pub(super) async fn alive(
        &self,
        fence: Fence,
        mode: Mode,
        run: impl Future<Output = Report>,
        cancel: &CancellationToken,
    ) -> Option<Report> {
        let mut beat = tokio::time::interval(Duration::from_secs(10));
        tokio::pin!(run);
        let give_up = async {
            cancel.cancelled().await;
            tokio::time::sleep(PATIENCE).await;
        };
        let deposed = self.deposed(fence);
        let progress = self.client.progress();
        progress.made();
        let stalled = progress.stalled(self.stall_limit);
        tokio::pin!(give_up, deposed, stalled);
        loop {
            tokio::select! {
                report = &mut run => return Some(report),
                () = &mut give_up => return None,
                () = &mut deposed => {
                    self.lost();
                    return None;
                }
                () = &mut stalled => {
                    let mut report = Report::new(fence.account, mode, self.clock.now());
                    report.outcome = Err(CycleError::Stalled(self.stall_limit));
                    return Some(report);
                }
                _ = beat.tick() => self.beat(),
            }
        }
    }

    /// Ends when a process that was silent for too long finds that another has the account: what it was about to ask is
    /// none of its business any more.
    async fn deposed(&self, fence: Fence) {
        let mut standing = self.standing.clone();
        let mut known = standing.borrow().registrations;
        loop {
            let registered = standing.wait_for(|standing| standing.registrations > known).await;
            let registered = registered.map(|standing| standing.registrations);
            // Where the keeper has ended, so will all of this.
            let Ok(registrations) = registered else { return std::future::pending().await };
            known = registrations;
            if matches!(self.store.holds(&fence).await, Ok(false)) {
                return;
            }
        }
    }

    /// How far the lists have been read; `None` when the account is no longer ours. The database may be another one than
    /// at the last look: a fail-over between two polls breaks idle connections alone, and no statement fails by it.
    async fn states(&self, fence: Fence) -> Result<Option<AccountState>, StoreError> {
        if !self.store.holds(&fence).await? {
            return Ok(None);
        }
        self.store.follow_history().await?;
        self.store.account_state(fence.account).await.map(Some)
    }

    fn lost(&self) {
        tracing::warn!(
            event = "lease.lost",
            account_id = self.account(),
            "another process has taken the account over"
        );
    }

    pub(super) fn account(&self) -> i64 {
        self.client.account().0
    }

    fn beat(&self) {
        self.health.beat(self.client.account(), Instant::now());
    }

    /// Sleeps in steps that show life, until told to stop.
    pub(super) async fn sleep(&self, wait: Duration, cancel: &CancellationToken) {
        let until = Instant::now() + wait;
        while !cancel.is_cancelled() && Instant::now() < until {
            self.beat();
            let step = (until - Instant::now()).min(Duration::from_mins(1));
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(step) => {}
            }
        }
    }
}
