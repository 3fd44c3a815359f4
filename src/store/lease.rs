//! The lease of an account: only the lease holder changes the account.
//!
//! Leases are rows. Session locks would not work behind a pooler in transaction mode, where two daemons can both get
//! the same session advisory lock. A process is alive while its row in `roster.replicas` has not expired by the
//! database's clock (see [`super::permits`]).

use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::notifications::DAEMON_CHANNEL;
use crate::roster::AccountId;

/// Proof that this process acquired the lease. The transaction of each page checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub account: AccountId,
    /// The account's epoch when the lease was acquired. Each take-over raises it.
    pub epoch: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    Acquired(Fence),
    Held {
        /// The process: host and process id.
        by: String,
    },
}

impl Store {
    /// Acquires the lease, unless another running process holds it. Waits for a page transaction in flight, and marks
    /// the former holder's open cycles as abandoned.
    pub async fn acquire(&self, account: AccountId, replica: Uuid) -> Result<Lease, StoreError> {
        self.unless_load_is_lost(self.try_acquire(account, replica)).await
    }

    async fn try_acquire(&self, account: AccountId, replica: Uuid) -> Result<Lease, StoreError> {
        // Standbys try often, so the first check is one statement without a lock.
        if let Some(by) = self.holder(account, replica).await? {
            return Ok(Lease::Held { by });
        }
        match self.check_timeline().await {
            Err(StoreError::Undecided) => {
                return Ok(Lease::Held { by: "a process that is reconnecting after a failover".to_owned() });
            }
            checked => checked?,
        }
        self.insert_account(account, replica).await?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("SELECT set_config('lock_timeout', '10s', true) AS a")
            .fetch_one(&mut *transaction)
            .await?;
        let taken = sqlx::query!(
            "UPDATE roster.accounts AS account
                SET holder = $2, epoch = epoch + 1, free_at = coalesce(free_at, clock_timestamp())
              WHERE account_id = $1
                AND NOT EXISTS (SELECT FROM roster.replicas
                                 WHERE id = account.holder AND id <> $2 AND expires_at > clock_timestamp())
                AND (free_at <= clock_timestamp()
                     OR NOT EXISTS (SELECT FROM roster.replicas AS other JOIN roster.accounts AS held ON held.holder = other.id
                                     WHERE other.id <> $2 AND other.expires_at > clock_timestamp()))
             RETURNING epoch",
            account.0,
            replica,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        // Another process acquired the lease in between.
        let Some(taken) = taken else {
            transaction.rollback().await?;
            let by = self.holder(account, replica).await?;
            return Ok(Lease::Held {
                by: by.unwrap_or_else(|| "another process that has just stopped".to_owned()),
            });
        };
        sqlx::query!(
            "UPDATE roster.cycles SET outcome = 'abandoned', finished_at = now()
              WHERE account_id = $1 AND outcome IS NULL",
            account.0
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        // Otherwise a failover before the next heartbeat would begin a new stream.
        let _ = self.observe_timeline(replica).await;
        Ok(Lease::Acquired(Fence { account, epoch: taken.epoch }))
    }

    /// Inserts the row of a new account. The leases of other processes must expire, or be renewed by a process that can
    /// see the row, before the account's first event is written (see [`super::timeline`]). So their latest end is read
    /// after the row was committed.
    async fn insert_account(&self, account: AccountId, replica: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            // The first epoch is a time, so that an erased account that is added again never repeats an epoch.
            "INSERT INTO roster.accounts (account_id, epoch) VALUES ($1, extract(epoch FROM clock_timestamp())::bigint)
             ON CONFLICT DO NOTHING",
            account.0
        )
        .execute(&self.pool)
        .await?;
        sqlx::query!(
            "UPDATE roster.accounts SET free_at = latest.expires_at
               FROM (SELECT max(expires_at) AS expires_at FROM roster.replicas AS other
                       JOIN roster.accounts AS held ON held.holder = other.id
                      WHERE other.id <> $2) AS latest
              WHERE account_id = $1 AND free_at IS NULL AND latest.expires_at IS NOT NULL",
            account.0,
            replica
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The name of another running process that holds the lease.
    async fn holder(&self, account: AccountId, replica: Uuid) -> Result<Option<String>, StoreError> {
        let row = sqlx::query!(
            "SELECT replica.name FROM roster.accounts AS account
               JOIN roster.replicas AS replica ON replica.id = account.holder
              WHERE account.account_id = $1 AND replica.id <> $2 AND replica.expires_at > clock_timestamp()",
            account.0,
            replica,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.name))
    }

    /// Whether this process still holds the lease. Checked before each cycle: a cycle without changes locks no account,
    /// and a process that was suspended during a take-over must send no more requests to Harvest.
    pub(crate) async fn holds_lease(&self, fence: &Fence) -> Result<bool, StoreError> {
        let row = sqlx::query!("SELECT epoch FROM roster.accounts WHERE account_id = $1", fence.account.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some_and(|row| row.epoch == fence.epoch))
    }

    /// Releases the lease, so that a standby need not wait until it expires, and notifies the standbys.
    pub async fn release(&self, fence: &Fence, replica: Uuid) -> Result<(), StoreError> {
        let _releasing = self.timelines.releasing();
        sqlx::query!(
            "WITH released AS (
                 UPDATE roster.accounts SET holder = NULL WHERE account_id = $1 AND holder = $2 AND epoch = $3
                 RETURNING account_id)
             SELECT pg_notify($4, account_id::text) AS notified FROM released",
            fence.account.0,
            replica,
            fence.epoch,
            DAEMON_CHANNEL,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(())
    }
}
