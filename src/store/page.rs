//! One page's transaction: fenced first, then the rows, then what goes with them, the outbox head last.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::rates::{self, RateIds};
use super::state::{self, CycleRow, Mark};
use super::{Fence, Store, StoreError, Table, Transaction, deletions, lost, outbox, projects, rejected};
use crate::roster::{AccountId, Change, Event, Mirrored, Project, Reason, Resource, Write};

/// So many rows a statement: a page of 2,000 in one takes a dozen megabytes of texts, and saves nothing.
pub(super) const AT_A_TIME: usize = 500;

/// An open transaction of the account's writer. Dropped without [`Page::commit`], nothing of it happened.
pub struct Page {
    transaction: Transaction,
    account: AccountId,
    stream: Uuid,
    now: DateTime<Utc>,
}

impl Store {
    /// Opens a transaction, locks the account and checks that it is still ours: a stalled writer that comes back
    /// cannot commit, and a take-over waits for the transaction in flight.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process has taken over.
    pub async fn begin(&self, fence: &Fence) -> Result<Page, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Local to the transaction, so that it works through any pooler and leaks to nobody.
        sqlx::query!(
            "SELECT set_config('statement_timeout', '60s', true) AS a,
                    set_config('lock_timeout', '10s', true) AS b,
                    set_config('idle_in_transaction_session_timeout', '5s', true) AS c"
        )
        .fetch_one(&mut *transaction)
        .await?;
        let row = sqlx::query!(
            r#"SELECT account.epoch, head.stream_id, now() AS "now!"
                 FROM roster.accounts AS account, roster.outbox_head AS head
                WHERE account.account_id = $1
                  FOR UPDATE OF account"#,
            fence.account.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        match row {
            Some(row) if row.epoch == fence.epoch => {
                Ok(Page { transaction, account: fence.account, stream: row.stream_id, now: row.now })
            }
            _ => Err(StoreError::Fenced(fence.account)),
        }
    }

    /// Those of the projects that the mirror does not have so.
    pub async fn project_news(
        &self,
        account: AccountId,
        named: Vec<Project>,
    ) -> Result<Vec<Project>, StoreError> {
        projects::news(&self.pool, account, named).await
    }
}

impl Page {
    /// The outbox's history, part of each event's id.
    pub fn stream(&self) -> Uuid {
        self.stream
    }

    /// The transaction's time, by the database's clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Reads rows; nobody else writes them while the account is locked.
    pub async fn rows<R: Table>(&mut self, ids: &[i64]) -> Result<HashMap<i64, Mirrored<R>>, StoreError> {
        R::rows(&mut self.transaction, self.account, ids).await
    }

    /// The live rates of these people.
    pub async fn rates_of(&mut self, users: &[i64]) -> Result<RateIds, StoreError> {
        rates::of(&mut self.transaction, self.account, users).await
    }

    /// Restores rows that were deleted by hand; see [`Store::restore_lost`].
    pub async fn restore_lost(&mut self, resource: Resource) -> Result<u64, StoreError> {
        lost::restore(&mut self.transaction, self.account, resource).await
    }

    /// Writes rows.
    pub async fn write<R: Table>(&mut self, writes: &[Write<R>]) -> Result<(), StoreError> {
        for writes in writes.chunks(AT_A_TIME) {
            R::upsert(&mut self.transaction, self.account, writes).await?;
        }
        Ok(())
    }

    /// Writes names of projects.
    pub async fn write_projects(&mut self, named: &[Project]) -> Result<(), StoreError> {
        if named.is_empty() {
            return Ok(());
        }
        projects::upsert(&mut self.transaction, self.account, named).await
    }

    /// Keeps records that could not be read.
    pub async fn reject(
        &mut self,
        resource: Resource,
        records: &[rejected::Rejection],
    ) -> Result<(), StoreError> {
        rejected::put(&mut self.transaction, self.account, resource, records).await
    }

    /// Forgets rejected records that have been read well since.
    pub async fn forgive(&mut self, resource: Resource, ids: &[i64]) -> Result<(), StoreError> {
        let fingerprints: Vec<String> = ids.iter().map(ToString::to_string).collect();
        self.forget_rejections(resource, &fingerprints).await
    }

    /// Forgets rejected records by their fingerprints.
    pub async fn forget_rejections(
        &mut self,
        resource: Resource,
        fingerprints: &[String],
    ) -> Result<(), StoreError> {
        rejected::forget(&mut self.transaction, self.account, resource, fingerprints).await
    }

    /// Makes tombstones.
    pub async fn bury<R: Table>(&mut self, deletions: &[Change<R>]) -> Result<(), StoreError> {
        if deletions.is_empty() {
            return Ok(());
        }
        let (ids, versions): (Vec<i64>, Vec<i64>) = deletions.iter().map(|it| (it.id(), it.version)).unzip();
        R::bury(&mut self.transaction, self.account, &ids, &versions).await
    }

    /// Holds deletions for a person.
    pub async fn hold(&mut self, resource: Resource, held: &[(i64, Reason)]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        deletions::hold(&mut self.transaction, self.account, resource, held).await
    }

    /// Notes the first 404 of records that are too young for one.
    pub async fn miss(&mut self, resource: Resource, ids: &[i64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        deletions::miss(&mut self.transaction, self.account, resource, ids).await
    }

    /// Forgets that records were missing.
    pub async fn release(&mut self, resource: Resource, ids: &[i64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        deletions::release(&mut self.transaction, self.account, resource, ids).await
    }

    /// Forgets that the assignments of these users waited with them for a second 404: they are back.
    pub async fn release_places(&mut self, users: &[i64]) -> Result<(), StoreError> {
        if users.is_empty() {
            return Ok(());
        }
        deletions::release_places(&mut self.transaction, self.account, users).await
    }

    /// Moves the watermark; only with the last page of a complete read.
    pub async fn mark(&mut self, resource: Resource, mark: &Mark) -> Result<(), StoreError> {
        state::mark(&mut self.transaction, self.account, resource, mark).await
    }

    /// Writes the cycle as it stands.
    pub async fn cycle(&mut self, cycle: &CycleRow) -> Result<(), StoreError> {
        state::put_cycle(&mut self.transaction, self.account, cycle).await
    }

    /// Notes on the account how its cycle ended.
    pub async fn account(&mut self, end: &state::AccountEnd) -> Result<(), StoreError> {
        state::end_account(&mut self.transaction, self.account, end).await
    }

    /// Tells the events; nothing may follow but the commit, for the outbox head is locked from here on.
    pub async fn emit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        outbox::append(&mut self.transaction, self.account, self.stream, events).await
    }

    /// Checks what is checked at the end of the transaction otherwise: deferred constraints and constraint triggers.
    pub async fn check_deferred(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *self.transaction).await?;
        Ok(())
    }

    /// Makes it all true at once.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}
