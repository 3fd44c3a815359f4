//! Looks whether Harvest already has the record that a write would create. Harvest has no search by e-mail address, and a
//! second POST would make a second record.

use super::execute::Run;
use super::sender::Next;
use crate::harvest::rate_limit::Priority;
use crate::roster::write::WriteKind;
use crate::roster::{Assignment, Resource, User};
use crate::store::StoreError;
use crate::store::writes::WriteOutcome;
use crate::sync::cycle::CycleMemory;
use crate::sync::error::CycleError;
use crate::sync::mirror::Mirror;
use crate::sync::report::CycleReport;

/// A record that Harvest has already.
pub(super) struct Existing {
    pub id: i64,
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
        let mut report = self.report();
        if self.write.kind == WriteKind::UserCreate {
            let email = self.write.fields.text("email").unwrap_or_default();
            let mut found = store.live_users_by_email(account, email).await?;
            if found.is_empty() {
                self.read_changed_users(&mut report).await?;
                found = store.live_users_by_email(account, email).await?;
            }
            return Ok(found.first().map(|id| Existing { id: *id, is_as_wanted: false }));
        }
        self.read_assignments(&mut report, self.stop).await?;
        let (Some(user), Some(project)) = (self.write.user, self.write.project) else { return Ok(None) };
        let assignments = store.assignments_to(account, user, project).await?;
        let Some(&(id, _)) = assignments.iter().find(|(_, is_active)| *is_active) else { return Ok(None) };
        let mut tx = store.begin(&self.fence).await?;
        let row = tx.rows::<Assignment>(&[id]).await?.remove(&id);
        let differing = row.map(|row| self.write.fields.differing(self.write.kind, &row.record));
        Ok(Some(Existing { id, is_as_wanted: differing.is_some_and(|fields| fields.is_empty()) }))
    }

    /// Reads the users who changed since the last poll. The watermark stays.
    async fn read_changed_users(&self, report: &mut CycleReport) -> Result<(), CycleError> {
        let state = self.sender.store.account_state(self.fence.account).await?;
        let watermark = state.list(Resource::Users).watermark;
        let since = watermark.map(|mark| mark.updated_since(self.sender.sync.skew_buffer));
        let mirror = self.mirror(None);
        let mut memory = CycleMemory::default();
        let cycle = self.cycle(&mirror, &mut memory, self.stop);
        let mut pages = self.sender.client.list::<User>(since, Priority::Write);
        while let Some(page) = cycle.unless_stopped(pages.next()).await? {
            mirror.apply(page.into(), None, report).await?;
        }
        Ok(())
    }

    /// Ends a creation whose record existed before.
    pub(super) async fn finish_existing(&self, existing: Existing) -> Result<Next, CycleError> {
        let Existing { id, is_as_wanted } = existing;
        if is_as_wanted {
            return self.finish(WriteOutcome::Unchanged, Some(id), None, None).await;
        }
        let error = match self.write.kind {
            WriteKind::UserCreate => format!("user {id} has this e-mail address"),
            _ => format!("the user has assignment {id} to this project; update it"),
        };
        self.finish(WriteOutcome::Refused, Some(id), None, Some(error)).await
    }
}
