//! The transaction of one page: first the fence, then the rows and their state, the outbox head last.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::lease::Fence;
use super::rates::{self, RateIds};
use super::session::Transaction;
use super::state::{self, CycleRow, WatermarkUpdate};
use super::table::{self, MirrorTable, ROWS_PER_STATEMENT};
use super::timeline_memory::{Position, TimelineMemory};
use super::{missing, outbox, projects, rejected};
use crate::roster::{AccountId, Change, Event, HoldReason, MirrorRow, Project, Resource, RowWrite};

/// An open transaction of the account's lease holder. If it is dropped without [`AccountTx::commit`], it rolls back.
pub struct AccountTx {
    pub(super) transaction: Transaction,
    pub(super) account: AccountId,
    stream: Uuid,
    now: DateTime<Utc>,
    timelines: TimelineMemory,
    last_event: Option<Position>,
}

impl Store {
    /// Opens a transaction, locks the account and checks that this process still holds its lease. A process that
    /// stalled and lost the lease cannot commit, and a take-over waits for this transaction.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process holds the lease.
    pub async fn begin(&self, fence: &Fence) -> Result<AccountTx, StoreError> {
        self.unless_load_is_lost(self.lock_account(fence)).await
    }

    async fn lock_account(&self, fence: &Fence) -> Result<AccountTx, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Local to the transaction, so that a pooler does not pass the settings on to other clients.
        sqlx::query!(
            "SELECT set_config('statement_timeout', '60s', true) AS a,
                    set_config('lock_timeout', '10s', true) AS b,
                    set_config('idle_in_transaction_session_timeout', '5s', true) AS c"
        )
        .fetch_one(&mut *transaction)
        .await?;
        let row = sqlx::query!(
            // The subquery takes the lock before the clock is read. So the versions of an account follow each other in
            // time as they do in commit order.
            r#"SELECT epoch AS "epoch!", stream_id AS "stream_id!", clock_timestamp() AS "now!"
                 FROM (SELECT account.epoch, head.stream_id
                         FROM roster.accounts AS account, roster.outbox_head AS head
                        WHERE account.account_id = $1
                          FOR UPDATE OF account) AS locked"#,
            fence.account.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        match row {
            Some(row) if row.epoch == fence.epoch => {
                let (account, timelines) = (fence.account, self.timelines.clone());
                let (stream, now) = (row.stream_id, row.now);
                Ok(AccountTx { transaction, account, stream, now, timelines, last_event: None })
            }
            _ => Err(StoreError::Fenced(fence.account)),
        }
    }

    /// Deletes the rejected records of a list that the last full read did not list any more. `is_listed` takes a
    /// record's id and fingerprint.
    pub(crate) async fn clear_unlisted_rejections(
        &self,
        fence: &Fence,
        resource: Resource,
        is_listed: impl Fn(Option<i64>, &str) -> bool,
    ) -> Result<(), StoreError> {
        let mut unlisted = self.rejection_keys(fence.account, resource).await?;
        unlisted.retain(|(id, fingerprint)| !is_listed(*id, fingerprint));
        if unlisted.is_empty() {
            return Ok(());
        }
        let unlisted: Vec<String> = unlisted.into_iter().map(|(_, fingerprint)| fingerprint).collect();
        let mut page = self.begin(fence).await?;
        rejected::delete(&mut page.transaction, page.account, resource, &unlisted).await?;
        page.commit().await
    }
}

impl AccountTx {
    /// The id of the outbox's stream, which is part of each event's id.
    pub fn stream(&self) -> Uuid {
        self.stream
    }

    /// When the account was locked, by the database's clock: the time of all versions and events of the transaction.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Reads rows; no other process writes them while the account is locked.
    pub async fn rows<R: MirrorTable>(
        &mut self,
        ids: &[i64],
    ) -> Result<HashMap<i64, MirrorRow<R>>, StoreError> {
        R::rows(&mut self.transaction, self.account, ids).await
    }

    pub(crate) async fn rates_of(&mut self, users: &[i64]) -> Result<RateIds, StoreError> {
        rates::live_ids(&mut self.transaction, self.account, users).await
    }

    /// Writes rows: those of `rows` are updated, others are added.
    pub async fn write<R: MirrorTable>(
        &mut self,
        rows: &HashMap<i64, MirrorRow<R>>,
        writes: &[RowWrite<'_, R>],
    ) -> Result<(), StoreError> {
        let (known, new): (Vec<_>, Vec<_>) =
            writes.iter().partition(|write| rows.contains_key(&write.record.id()));
        table::insert(&mut self.transaction, self.account, self.now, &new).await?;
        let replaced = known.iter().filter(|write| write.change.is_some());
        let replaced: Vec<i64> = replaced.map(|write| write.record.id()).collect();
        if !replaced.is_empty() {
            R::end_versions(&mut self.transaction, self.account, &replaced, self.now).await?;
        }
        for writes in known.chunks(ROWS_PER_STATEMENT) {
            R::update(&mut self.transaction, self.account, writes, self.now).await?;
        }
        Ok(())
    }

    pub(crate) async fn write_projects(&mut self, named: &[Project]) -> Result<(), StoreError> {
        if named.is_empty() {
            return Ok(());
        }
        projects::upsert(&mut self.transaction, self.account, named).await
    }

    /// Stores records that could not be read or that PostgreSQL refused.
    pub async fn reject(
        &mut self,
        resource: Resource,
        records: &[rejected::RejectedRecord],
    ) -> Result<(), StoreError> {
        rejected::upsert(&mut self.transaction, self.account, resource, records).await
    }

    /// Deletes the rejections of records that have been stored since.
    pub(crate) async fn clear_rejections(
        &mut self,
        resource: Resource,
        ids: &[i64],
    ) -> Result<(), StoreError> {
        let fingerprints: Vec<String> = ids.iter().map(ToString::to_string).collect();
        rejected::delete(&mut self.transaction, self.account, resource, &fingerprints).await
    }

    pub async fn tombstone<R: MirrorTable>(&mut self, deletions: &[Change<R>]) -> Result<(), StoreError> {
        if deletions.is_empty() {
            return Ok(());
        }
        let (ids, versions): (Vec<i64>, Vec<i64>) = deletions.iter().map(|it| (it.id(), it.version)).unzip();
        R::end_versions(&mut self.transaction, self.account, &ids, self.now).await?;
        R::tombstone(&mut self.transaction, self.account, &ids, &versions, self.now).await
    }

    pub async fn hold(&mut self, resource: Resource, held: &[(i64, HoldReason)]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        missing::hold(&mut self.transaction, self.account, resource, held).await
    }

    /// Records the first 404 of recently created records, which need two.
    pub(crate) async fn record_first_404(
        &mut self,
        resource: Resource,
        ids: &[i64],
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        missing::record_first_404(&mut self.transaction, self.account, resource, ids).await
    }

    /// Deletes what is stored about the absence of records.
    pub(crate) async fn clear_absences(&mut self, resource: Resource, ids: &[i64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        missing::clear_absences(&mut self.transaction, self.account, resource, ids).await
    }

    /// Deletes the first 404s of these users' assignments, because Harvest lists the users again.
    pub(crate) async fn clear_first_404s_of_assignments(&mut self, users: &[i64]) -> Result<(), StoreError> {
        if users.is_empty() {
            return Ok(());
        }
        missing::clear_first_404s_of_assignments(&mut self.transaction, self.account, users).await
    }

    /// Moves the watermark; only with the last page of a complete read.
    pub(crate) async fn set_watermark(
        &mut self,
        resource: Resource,
        update: &WatermarkUpdate,
    ) -> Result<(), StoreError> {
        state::set_watermark(&mut self.transaction, self.account, resource, update).await
    }

    pub(crate) async fn record_cycle(&mut self, cycle: &CycleRow) -> Result<(), StoreError> {
        state::upsert_cycle(&mut self.transaction, self.account, cycle).await
    }

    /// Records at the account how its cycle ended.
    pub(crate) async fn record_cycle_end(&mut self, end: &state::AccountUpdate) -> Result<(), StoreError> {
        state::record_cycle_end(&mut self.transaction, self.account, end).await
    }

    /// Emits the events. Only the commit may follow, because the outbox head is locked from here on.
    pub(crate) async fn emit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.last_event =
            outbox::append(&mut self.transaction, self.account, self.stream, self.now, events).await?;
        Ok(())
    }

    /// Checks deferred constraints and constraint triggers now instead of at the commit.
    pub(crate) async fn check_deferred(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *self.transaction).await?;
        Ok(())
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        if let Some(event) = self.last_event {
            self.timelines.commits(event);
        }
        Ok(self.transaction.commit().await?)
    }
}
