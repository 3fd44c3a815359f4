//! The transaction of one page: first the fence, then the rows and their state, the outbox head last.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::lease::Fence;
use super::rates::{self, RateIds};
use super::session::Transaction;
use super::table::{self, MirrorTable, ROWS_PER_STATEMENT};
use super::timeline_memory::{Position, TimelineMemory};
use crate::roster::{AccountId, Change, MirrorRow, RowWrite};

/// An open transaction of the account's lease holder. If it is dropped without [`AccountTx::commit`], it rolls back.
pub struct AccountTx {
    pub(super) transaction: Transaction,
    pub(super) account: AccountId,
    pub(super) stream: Uuid,
    pub(super) now: DateTime<Utc>,
    timelines: TimelineMemory,
    /// The last event; `None` if there is none or its timeline is not known.
    pub(super) last_event: Option<Position>,
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
            table::end_versions::<R>(&mut self.transaction, self.account, self.now, &replaced).await?;
        }
        for writes in known.chunks(ROWS_PER_STATEMENT) {
            table::update(&mut self.transaction, self.account, self.now, writes).await?;
        }
        Ok(())
    }

    pub async fn tombstone<R: MirrorTable>(&mut self, deletions: &[Change<R>]) -> Result<(), StoreError> {
        if deletions.is_empty() {
            return Ok(());
        }
        let (ids, versions): (Vec<i64>, Vec<i64>) = deletions.iter().map(|it| (it.id(), it.version)).unzip();
        table::end_versions::<R>(&mut self.transaction, self.account, self.now, &ids).await?;
        table::tombstone::<R>(&mut self.transaction, self.account, self.now, &ids, &versions).await
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
