//! Looks whether Harvest already has the record that a write would create. Harvest has no search by e-mail address, and a
//! second POST would make a second record.

use uuid::Uuid;

use super::execute::Run;
use super::sender::Next;
use crate::harvest::rate_limit::Priority;
use crate::roster::write::WriteKind;
use crate::roster::{Assignment, Resource, User};
use crate::store::StoreError;
use crate::store::writes::{FinishedWrite, WriteOutcome};
use crate::sync::cycle::CycleMemory;
use crate::sync::error::CycleError;
use crate::sync::mirror::Mirror;
use crate::sync::report::{CycleMode, CycleReport};

pub(super) struct Existing {
    /// `None` if rosterd cannot read it.
    pub id: Option<i64>,
    pub is_as_wanted: bool,
}

impl Run<'_> {
    /// Without a complete list, the look misses users who existed before.
    pub(super) async fn is_first_read_complete(&self) -> Result<bool, StoreError> {
        let state = self.sender.store.account_state(self.fence.account).await?;
        Ok(Resource::LISTS.into_iter().all(|list| state.list(list).watermark.is_some()))
    }

    /// The active record that Harvest has instead of the one to create. Reads what changed since the last poll into the
    /// mirror, and then asks the mirror.
    pub(super) async fn look(&self) -> Result<Option<Existing>, CycleError> {
        let (store, account) = (&self.sender.store, self.fence.account);
        if self.write.kind == WriteKind::UserCreate {
            let email = self.write.fields.text("email").unwrap_or_default();
            let mut found = store.live_users_by_email(account, email).await?;
            if found.is_empty() {
                self.read_changed_users().await?;
                found = store.live_users_by_email(account, email).await?;
            }
            let is_unreadable = found.is_empty() && store.rejected_user_has(account, email).await?;
            let existing = found.first().map(|id| Existing { id: Some(*id), is_as_wanted: false });
            return Ok(existing.or(is_unreadable.then_some(Existing { id: None, is_as_wanted: false })));
        }
        self.read_assignments(&mut self.poll_report(), self.stop).await?;
        let (Some(user), Some(project)) = (self.write.user, self.write.project) else { return Ok(None) };
        let assignments = store.assignments_to(account, user, project).await?;
        let Some(&(id, _)) = assignments.iter().find(|(_, is_active)| *is_active) else { return Ok(None) };
        let mut tx = store.begin(&self.fence).await?;
        let row = tx.rows::<Assignment>(&[id]).await?.remove(&id);
        let differing = row.map(|row| self.write.fields.differing(self.write.kind, &row.record));
        Ok(Some(Existing { id: Some(id), is_as_wanted: differing.is_some_and(|fields| fields.is_empty()) }))
    }

    /// Reads the users who changed since the last poll. The watermark stays.
    async fn read_changed_users(&self) -> Result<(), CycleError> {
        let mut report = self.poll_report();
        let state = self.sender.store.account_state(self.fence.account).await?;
        let watermark = state.list(Resource::Users).watermark;
        let since = watermark.map(|mark| mark.updated_since(self.sender.sync.skew_buffer));
        let mirror = self.mirror(None);
        let mut memory = CycleMemory::default();
        let cycle = self.cycle(&mirror, &mut memory, self.stop);
        let mut pages = self.sender.client.list::<User>(since, Priority::Write);
        while let Some(page) = cycle.unless_stopped(pages.next()).await? {
            mirror.apply(page.into(), None, &mut report).await?;
        }
        Ok(())
    }

    /// Another cycle than the write's, because others made these changes.
    fn poll_report(&self) -> CycleReport {
        let report = self.report();
        CycleReport { id: Uuid::new_v4(), mode: CycleMode::Incremental, ..report }
    }

    /// Ends a creation whose record existed before.
    pub(super) async fn finish_existing(&self, existing: Existing) -> Result<Next, CycleError> {
        let Existing { id, is_as_wanted } = existing;
        if is_as_wanted {
            return self.finish(&FinishedWrite { record: id, ..self.ended(WriteOutcome::Unchanged) }).await;
        }
        let error = match (self.write.kind, id) {
            (WriteKind::UserCreate, Some(id)) => format!("user {id} has this e-mail address"),
            (_, Some(id)) => format!("the user has assignment {id} to this project; update it"),
            (_, None) => {
                "a user whom rosterd cannot read has this e-mail address (roster.rejected_records)".to_owned()
            }
        };
        self.finish(&FinishedWrite { record: id, ..self.refused(None, error) }).await
    }
}
