//! Writes of job roles. Harvest replaces the whole list of a role's users, so rosterd reads the role, changes the list, sends
//! it, and stores the answer. Writes of roles are sent one after the other.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::execute::{Decision, RETRY_PAUSE, Run};
use super::sender::Next;
use super::settle::{MAX_ATTEMPTS, look_again};
use super::trust::MAY_NOT_SEE;
use crate::harvest::rate_limit::Priority;
use crate::harvest::write::WriteAnswer;
use crate::roster::Role;
use crate::roster::role::{UNKNOWN_MEMBER, body};
use crate::roster::write::WriteKind;
use crate::store::AccountTx;
use crate::store::writes::{FinishedWrite, WriteOutcome};
use crate::sync::cycle::{CycleMemory, unless_stopped};
use crate::sync::error::CycleError;
use crate::sync::roles::read_users;
use crate::telemetry::chain;

impl Run<'_> {
    /// Decides about a role write, and sends it. A role gives no access, so no user loses any by it.
    pub(super) async fn execute_role(&self) -> Result<Next, CycleError> {
        if let Decision::Over = self.decide(None, false).await? {
            return Ok(Next::Finished);
        }
        // Before the role is read, so that a change of its users in between is not undone: a wait may be long.
        self.wait_for_capacity(2).await?;
        if self.write.kind.is_creation() && !self.shows_known_company().await? {
            return Ok(Next::After(RETRY_PAUSE));
        }
        let known = self.harvest_role().await?;
        match (self.write.kind, &known) {
            (WriteKind::RoleCreate, Some(role)) => {
                // The directory looks for the role next, and finds it.
                let refused = self.refused(None, format!("the name is taken by role {}", role.id));
                return self.store_role(role.clone(), &refused).await;
            }
            (WriteKind::RoleUpdate, None) => return self.finish(&self.no_role()).await,
            (WriteKind::RoleDelete, None) => return self.store_deletion(WriteOutcome::Unchanged).await,
            _ => {}
        }
        let body = body(self.write.kind, &self.write.fields, known.as_ref());
        if let (WriteKind::RoleUpdate, None, Some(role)) = (self.write.kind, &body, known) {
            return self.store_role(role, &self.ended(WriteOutcome::Unchanged)).await;
        }
        let marked = Instant::now();
        let decision = self.decide(None, true).await?;
        let (Decision::Send { .. }, Some(writer)) = (decision, &self.sender.writer) else {
            return Ok(Next::Finished);
        };
        match writer.send_role(self.write, body, marked).await {
            Ok(WriteAnswer::Stored(role, status)) => {
                let (record, status) = (Some(role.id), Some(status.as_u16()));
                let finished = FinishedWrite { record, status, ..self.ended(WriteOutcome::Done) };
                self.store_role(*role, &finished).await
            }
            // The mirror deletes a role only after a 404 to a request by id; and an unknown user is a 404 too.
            Ok(WriteAnswer::Deleted) => self.settle_role(Duration::ZERO).await,
            Ok(WriteAnswer::Unreadable(status)) => self.finish(&self.unreadable(status)).await,
            Ok(WriteAnswer::NotFound) => match self.harvest_role().await? {
                None if self.write.kind == WriteKind::RoleDelete => {
                    self.store_deletion(WriteOutcome::Done).await
                }
                None if self.write.kind == WriteKind::RoleUpdate => self.finish(&self.no_role()).await,
                _ => self.finish(&self.refused(Some(404), UNKNOWN_MEMBER)).await,
            },
            Ok(WriteAnswer::Refused { status, message }) => {
                self.finish(&self.refused(Some(status.as_u16()), message)).await
            }
            Err(error) => self.unanswered(&error).await,
        }
    }

    fn no_role(&self) -> FinishedWrite {
        self.refused(Some(404), "Harvest does not have the role")
    }

    /// The role as Harvest has it: by its id, or the one with the name of the role to create.
    async fn harvest_role(&self) -> Result<Option<Role>, CycleError> {
        let client = &self.sender.client;
        if let Some(id) = self.write.role {
            return unless_stopped(self.stop, client.role(id, Priority::Write)).await;
        }
        let roles = unless_stopped(self.stop, client.roles(Priority::Write)).await?;
        let name = self.write.fields.text("name").unwrap_or_default().to_lowercase();
        Ok(roles.readable.into_iter().find(|role| role.name.trim().to_lowercase() == name))
    }

    /// Looks at Harvest for the result of a write that was sent this long ago.
    pub(super) async fn settle_role(&self, ago: Duration) -> Result<Next, CycleError> {
        let is_certain = self.can_no_longer_arrive(ago);
        if self.write.kind.is_creation() && !self.shows_known_company().await? {
            return Ok(Next::After(RETRY_PAUSE));
        }
        let shown = self.harvest_role().await?;
        match (self.write.kind, shown) {
            (WriteKind::RoleDelete, None) => self.store_deletion(WriteOutcome::Done).await,
            (WriteKind::RoleUpdate, None) => self.finish(&self.no_role()).await,
            // If an administrator created it in these seconds, it is the answer all the same.
            (WriteKind::RoleCreate | WriteKind::RoleUpdate, Some(role))
                if self.write.kind.is_creation()
                    || body(self.write.kind, &self.write.fields, Some(&role)).is_none() =>
            {
                let done = FinishedWrite { record: Some(role.id), ..self.ended(WriteOutcome::Done) };
                self.store_role(role, &done).await
            }
            (kind, _) if is_certain && (kind.is_creation() || self.open.attempts >= MAX_ATTEMPTS) => {
                let error = "Harvest did not confirm the write, and does not show it; request it again";
                self.finish(&self.lost(error)).await
            }
            // The next step reads the role again, and computes the list of users from what it has then.
            _ if is_certain => {
                self.mark_unsent(None).await?;
                Ok(Next::After(Duration::ZERO))
            }
            _ => Ok(look_again(ago)),
        }
    }

    /// Stores a role and the end of the write with one transaction.
    async fn store_role(&self, role: Role, finished: &FinishedWrite) -> Result<Next, CycleError> {
        let are_read = self.read_affected(role.id, Some(&role)).await?;
        let mut tx = self.sender.store.begin(&self.fence).await?;
        tx.store_roles(&[role], None).await?;
        self.finish_role(tx, finished, are_read).await
    }

    /// Stores a deletion that a 404 confirmed, and the end of the write.
    async fn store_deletion(&self, outcome: WriteOutcome) -> Result<Next, CycleError> {
        if !self.sees_all().await? {
            return self.finish(&self.lost(MAY_NOT_SEE)).await;
        }
        let id = self.write.role.unwrap_or_default();
        let are_read = self.read_affected(id, None).await?;
        let mut tx = self.sender.store.begin(&self.fence).await?;
        tx.delete_roles(&[id], None).await?;
        self.finish_role(tx, &self.ended(outcome), are_read).await
    }

    async fn finish_role(
        &self,
        mut tx: AccountTx,
        finished: &FinishedWrite,
        users_are_read: bool,
    ) -> Result<Next, CycleError> {
        if !users_are_read {
            tx.request_full_read().await?;
        }
        self.finish_in(tx, finished).await?;
        Ok(Next::Finished)
    }

    /// Reads the users whose roles have changed, before the role is stored: afterwards no list shows that they were not read.
    /// Returns whether they were read.
    async fn read_affected(&self, id: i64, after: Option<&Role>) -> Result<bool, CycleError> {
        let known = self.sender.store.known_roles(self.fence.account).await?;
        let affected = Role::affected(known.roles.get(&id), after);
        // Also if the process stops, which then waits for some seconds.
        let (mirror, mut memory, cancel) =
            (self.mirror(None), CycleMemory::default(), CancellationToken::new());
        let (cycle, mut report) = (self.cycle(&mirror, &mut memory, &cancel), self.report());
        Ok(read_users(&cycle, &affected, Priority::Write, &mut report).await.unwrap_or_else(|error| {
            tracing::debug!(write_id = %self.open.id, error = %chain(&error), "the next full read reads the users");
            false
        }))
    }
}
