//! One write: decides, sends, and stores the answer.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checks::{impossible, is_so_already};
use super::sender::{Next, WriteSender};
use crate::harvest::Decode;
use crate::harvest::rate_limit::Priority;
use crate::harvest::write::{WriteAnswer, WriteError};
use crate::roster::write::{Write, WriteKind};
use crate::roster::write_policy::{Verdict, WriteFacts, WriteMode};
use crate::roster::{Assignment, Fetched, Field, Resource, User};
use crate::store::writes::{FinishedWrite, OpenWrite, WriteOutcome};
use crate::store::{AccountTx, Fence, MirrorTable, StoreError};
use crate::sync::cycle::{Cycle, CycleMemory, unless_stopped};
use crate::sync::error::CycleError;
use crate::sync::mirror::{Mirror, PageRead, PostgresMirror};
use crate::sync::read_list;
use crate::sync::report::{CycleMode, CycleReport};
use crate::telemetry::{chain, instruments};

/// A write that Harvest or the database could not take is tried again after this time.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Run<'a> {
    pub sender: &'a WriteSender,
    pub fence: Fence,
    pub open: &'a OpenWrite,
    pub write: &'a Write,
    pub stop: &'a CancellationToken,
}

impl WriteSender {
    pub(super) async fn step(&self, fence: Fence, open: &OpenWrite, stop: &CancellationToken) -> Next {
        let result = match &open.write {
            Ok(write) => {
                let run = Run { sender: self, fence, open, write, stop };
                Box::pin(async {
                    match (open.sent_ago, write.kind.resource()) {
                        (None, None) => run.execute_role().await,
                        (Some(ago), None) => run.settle_role(ago).await,
                        (None, Some(Resource::Users)) => run.execute::<User>().await,
                        (None, Some(_)) => run.execute::<Assignment>().await,
                        (Some(ago), Some(Resource::Users)) => run.settle::<User>(ago, false).await,
                        (Some(ago), Some(_)) => run.settle::<Assignment>(ago, false).await,
                    }
                })
                .await
            }
            Err(problem) => self.refuse_unreadable(fence, open, problem).await.map_err(CycleError::from),
        };
        match result {
            Ok(next) => next,
            Err(CycleError::Stopped | CycleError::Store(StoreError::Fenced(_))) => Next::After(RETRY_PAUSE),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    event = "write.delayed",
                    account_id = fence.account.0,
                    write_id = %open.id,
                    error,
                    "a write cannot continue; trying again"
                );
                // Who waits for the write sees the cause.
                let _ = self.store.note_write(open.id, &error).await;
                Next::After(RETRY_PAUSE)
            }
        }
    }

    async fn refuse_unreadable(
        &self,
        fence: Fence,
        open: &OpenWrite,
        problem: &str,
    ) -> Result<Next, StoreError> {
        let mut tx = self.store.begin(&fence).await?;
        let error = Some(problem.to_owned());
        tx.finish_write(&FinishedWrite { error, ..FinishedWrite::new(open.id, WriteOutcome::Refused) })
            .await?;
        tx.commit().await?;
        let (account_id, kind, outcome) = (fence.account.0, "unreadable", WriteOutcome::Refused.name());
        instruments::write(account_id, kind, outcome);
        tracing::info!(
            event = "write.finished",
            account_id,
            write_id = %open.id,
            kind,
            outcome,
            actor = open.actor,
            "a write to Harvest is refused, because its fields cannot be read"
        );
        Ok(Next::Finished)
    }
}

/// What the transaction before the request decided.
pub(super) enum Decision {
    Send {
        /// Whether the mirror says that it changes something.
        is_effective: bool,
    },
    /// Finished, held or withdrawn.
    Over,
}

impl Run<'_> {
    async fn execute<R: Decode + MirrorTable>(&self) -> Result<Next, CycleError> {
        let owner = self.sender.owner.get_or_try_init(async || {
            let me = unless_stopped(self.stop, self.sender.client.me(Priority::Write)).await?;
            Ok::<i64, CycleError>(me.id)
        });
        let owner = *owner.await?;
        if let Decision::Over = self.decide(Some(owner), false).await? {
            return Ok(Next::Finished);
        }
        // Before the look, because a wait may be long.
        self.wait_for_capacity(1).await?;
        if self.write.kind.is_creation() {
            if !self.shows_known_company().await? {
                return Ok(Next::After(RETRY_PAUSE));
            }
            if !self.is_first_read_complete().await? {
                self.sender.store.note_write(self.open.id, "waiting for the first full read").await?;
                return Ok(Next::After(RETRY_PAUSE));
            }
            if let Some(existing) = self.look().await? {
                return self.finish_existing(existing).await;
            }
        }
        self.wait_for_capacity(1).await?;
        let marked = Instant::now();
        match self.decide(Some(owner), true).await? {
            Decision::Over => Ok(Next::Finished),
            Decision::Send { is_effective } => self.send::<R>(marked, is_effective).await,
        }
    }

    /// Before the journal says that the write is sent: then it must be sent soon.
    pub(super) async fn wait_for_capacity(&self, requests: u32) -> Result<(), CycleError> {
        let capacity = async {
            self.sender.client.wait_for_capacity(Priority::Write, requests).await;
            Ok(())
        };
        unless_stopped(self.stop, capacity).await
    }

    /// Decides under the account's lock, so that writes at the same time do not pass the guard together. With `and_mark`,
    /// the write counts as sent from then on. `owner`: the owner of the token, for a write that concerns a user.
    pub(super) async fn decide(&self, owner: Option<i64>, and_mark: bool) -> Result<Decision, StoreError> {
        let (rules, write) = (&self.sender.rules, self.write);
        let mut tx = self.sender.store.begin(&self.fence).await?;
        let ids: Vec<i64> = write.user.into_iter().collect();
        let user = tx.rows::<User>(&ids).await?.into_values().next();
        let ids: Vec<i64> = write.assignment.into_iter().collect();
        let assignment = tx.rows::<Assignment>(&ids).await?.into_values().next();
        if let Some(problem) = impossible(write, user.as_ref(), assignment.as_ref()) {
            return self.finish_in(tx, &self.refused(None, problem)).await;
        }
        if self.open.is_old && !write.kind.is_loss() {
            let error = "it was requested more than a day ago; request it again";
            return self.finish_in(tx, &self.refused(None, error)).await;
        }
        let is_archived = user.as_ref().is_some_and(|row| row.record.is_active == Field::Value(false));
        let is_effective = !(write.kind == WriteKind::UserDeactivate && is_archived);
        let counts_losses = write.kind.is_loss() && is_effective && !self.open.is_deliberate;
        let (active_users, recent_losses) =
            if counts_losses { tx.losses(self.sender.guard_window).await? } else { (0, 0) };
        let facts = WriteFacts {
            user: user.as_ref().map(|row| &row.record),
            owners: [owner, tx.token_owner().await?],
            active_users,
            recent_losses,
            // No user loses access by it.
            is_deliberate: self.open.is_deliberate || !is_effective,
        };
        match rules.decide(write, &facts) {
            Verdict::Refuse(reason) => return self.finish_in(tx, &self.refused(None, reason)).await,
            Verdict::Hold => {
                tx.hold_write(self.open.id).await?;
                tx.commit().await?;
                self.log_held();
                return Ok(Decision::Over);
            }
            Verdict::Allow => {}
        }
        if is_so_already(write, user.as_ref(), assignment.as_ref()) {
            return self.finish_in(tx, &self.ended(WriteOutcome::Unchanged)).await;
        }
        if rules.mode != WriteMode::On || self.sender.writer.is_none() {
            return self.finish_in(tx, &self.ended(WriteOutcome::Planned)).await;
        }
        if !and_mark {
            return Ok(Decision::Send { is_effective });
        }
        let is_open = tx.mark_write_sent(self.open.id).await?;
        tx.commit().await?;
        Ok(if is_open { Decision::Send { is_effective } } else { Decision::Over })
    }

    async fn send<R: Decode + MirrorTable>(
        &self,
        marked: Instant,
        is_effective: bool,
    ) -> Result<Next, CycleError> {
        let Some(writer) = &self.sender.writer else { return Ok(Next::Finished) };
        match writer.send::<R>(self.write, marked).await {
            Ok(WriteAnswer::Stored(fetched, status)) => {
                let id = self.write.kind.is_creation().then(|| fetched.id());
                let differing = self.write.fields.differing(self.write.kind, &*fetched.record);
                if differing.iter().any(|field| field == "is_active") {
                    self.log_unanswered("Harvest's answer says that is_active has not changed", true);
                    return Ok(Next::After(Duration::from_secs(1)));
                }
                let note = format!("Harvest has other values of {}", differing.join(", "));
                let error = (!differing.is_empty()).then_some(note);
                let outcome = if is_effective { WriteOutcome::Done } else { WriteOutcome::Unchanged };
                let (record, status) = (id, Some(status.as_u16()));
                let finished = FinishedWrite { record, status, error, ..self.ended(outcome) };
                self.store_record(*fetched, &finished).await
            }
            Ok(WriteAnswer::Unreadable(status)) => self.finish(&self.unreadable(status)).await,
            Ok(WriteAnswer::NotFound) if self.write.kind.is_creation() => {
                self.finish(&self.refused(Some(404), "Harvest does not have the project")).await
            }
            // The mirror deletes a record only after a 404 to a request by id.
            Ok(WriteAnswer::Deleted) => self.settle::<R>(Duration::ZERO, true).await,
            Ok(WriteAnswer::NotFound) => self.settle::<R>(Duration::ZERO, false).await,
            Ok(WriteAnswer::Refused { status, message }) => {
                self.finish(&self.refused(Some(status.as_u16()), message)).await
            }
            Err(error) => self.unanswered(&error).await,
        }
    }

    /// Harvest may have carried out the write, or certainly has not.
    pub(super) async fn unanswered(&self, error: &WriteError) -> Result<Next, CycleError> {
        let (is_unknown, error) = (matches!(error, WriteError::Unknown(_)), chain(error.error()));
        self.log_unanswered(&error, is_unknown);
        if is_unknown {
            self.sender.store.note_write(self.open.id, &error).await?;
            return Ok(Next::After(Duration::from_secs(1)));
        }
        self.mark_unsent(Some(&error)).await?;
        Ok(Next::After(RETRY_PAUSE))
    }

    /// Harvest certainly has not carried it out: it may be sent again.
    pub(super) async fn mark_unsent(&self, error: Option<&str>) -> Result<(), StoreError> {
        let mut tx = self.sender.store.begin(&self.fence).await?;
        tx.mark_write_unsent(self.open.id, error).await?;
        tx.commit().await
    }

    /// Stores Harvest's answer in mirror, outbox and journal with one transaction; then reads what the write changed
    /// in other records.
    pub(super) async fn store_record<R: Decode + MirrorTable>(
        &self,
        fetched: Fetched<R>,
        finished: &FinishedWrite,
    ) -> Result<Next, CycleError> {
        let mut report = self.report();
        let mirror = self.mirror(Some(finished));
        if !mirror.apply(PageRead::from(fetched), None, &mut report).await? {
            let mut tx = self.sender.store.begin(&self.fence).await?;
            tx.finish_write(finished).await?;
            tx.commit().await?;
        }
        self.log_finished(finished);
        // Harvest archives the assignments of a user with the user.
        if matches!(self.write.kind, WriteKind::UserDeactivate | WriteKind::UserReactivate)
            // Also if the process stops, which then waits for some seconds.
            && let Err(error) = self.read_assignments(&mut report, &CancellationToken::new()).await
        {
            tracing::debug!(write_id = %self.open.id, error = %chain(&error), "the next poll reads the assignments");
        }
        Ok(Next::Finished)
    }

    pub(super) async fn read_assignments(
        &self,
        report: &mut CycleReport,
        cancel: &CancellationToken,
    ) -> Result<(), CycleError> {
        let Some(user) = self.write.user else { return Ok(()) };
        let mirror = self.mirror(None);
        let mut memory = CycleMemory::default();
        let cycle = self.cycle(&mirror, &mut memory, cancel);
        let pages = || self.sender.client.assignments_of(user, Priority::Write);
        read_list::short_list(&cycle, pages, user, report).await.map(|_| ())
    }

    pub(super) fn mirror<'a>(&'a self, write: Option<&'a FinishedWrite>) -> PostgresMirror<'a> {
        PostgresMirror {
            store: &self.sender.store,
            fence: self.fence,
            order: self.sender.client.order(),
            again_after: self.sender.again_after,
            guard: self.sender.sync.guard,
            compare_all_fields: true,
            write,
        }
    }

    pub(super) fn cycle<'a, 'm>(
        &'a self,
        mirror: &'a PostgresMirror<'m>,
        memory: &'a mut CycleMemory,
        cancel: &'a CancellationToken,
    ) -> Cycle<'a, PostgresMirror<'m>> {
        let (client, clock, rules) = (&self.sender.client, &*self.sender.clock, self.sender.sync);
        Cycle { mirror, client, clock, rules, memory, progress: &|_, _, _| (), cancel }
    }

    /// The cycle of the write: its events name it.
    pub(super) fn report(&self) -> CycleReport {
        let now = self.sender.clock.now();
        let report = CycleReport::new(self.fence.account, CycleMode::Write, now);
        CycleReport { id: self.open.id, finished_at: Some(now), requests: 1, ..report }
    }

    /// The end of the write.
    pub(super) fn ended(&self, outcome: WriteOutcome) -> FinishedWrite {
        FinishedWrite::new(self.open.id, outcome)
    }

    /// The end of the write because of an error. `status`: Harvest's answer.
    pub(super) fn refused(&self, status: Option<u16>, error: impl Into<String>) -> FinishedWrite {
        FinishedWrite { status, error: Some(error.into()), ..self.ended(WriteOutcome::Refused) }
    }

    /// The end of a write that Harvest carried out, if its answer cannot be read.
    pub(super) fn unreadable(&self, status: StatusCode) -> FinishedWrite {
        let note = "rosterd cannot read Harvest's answer; the next poll reads the record";
        let (status, error) = (Some(status.as_u16()), Some(note.to_owned()));
        FinishedWrite { status, error, ..self.ended(WriteOutcome::Done) }
    }

    /// Ends the write without a change of the mirror.
    pub(super) async fn finish(&self, finished: &FinishedWrite) -> Result<Next, CycleError> {
        let tx = self.sender.store.begin(&self.fence).await?;
        self.finish_in(tx, finished).await?;
        Ok(Next::Finished)
    }

    /// Commits the end of the write together with what the transaction has stored.
    pub(super) async fn finish_in(
        &self,
        mut tx: AccountTx,
        finished: &FinishedWrite,
    ) -> Result<Decision, StoreError> {
        tx.finish_write(finished).await?;
        tx.commit().await?;
        self.log_finished(finished);
        Ok(Decision::Over)
    }
}
