//! Who writes an account: rows, not session locks, so that it works through any pooler (behind a transaction-mode
//! pooler two daemons both get the same session advisory lock).
//!
//! A process is alive while its row in `roster.replicas` has not expired by the database's clock; the heartbeat
//! that keeps it alive also keeps its permits (see [`super::permits`]).

use uuid::Uuid;

use super::requests::BELL;
use super::{Store, StoreError};
use crate::roster::AccountId;

/// Proof that this process took the account over: every page's transaction checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The account.
    pub account: AccountId,
    /// Its epoch at that take-over.
    pub epoch: i64,
}

/// The outcome of asking for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It is ours.
    Acquired(Fence),
    /// A living process has it.
    Held {
        /// Its name: host and process id.
        by: String,
    },
}

impl Store {
    /// Whether no other living process is registered, and so none shares the budget of requests.
    pub async fn is_only_process(&self, replica: Uuid) -> Result<bool, StoreError> {
        let others = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM roster.replicas
                               WHERE id <> $1 AND expires_at > clock_timestamp()) AS "others!""#,
            replica,
        );
        Ok(!others.fetch_one(&self.pool).await?)
    }

    /// Takes an account that nobody living holds. Waits for a page in flight, and cycles that the former holder
    /// left open are marked abandoned.
    pub async fn acquire(&self, account: AccountId, replica: Uuid) -> Result<Lease, StoreError> {
        // Those who stand by come again and again: one statement, and no lock.
        if let Some(by) = self.holder(account, replica).await? {
            return Ok(Lease::Held { by });
        }
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("SELECT set_config('lock_timeout', '10s', true) AS a")
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query!(
            // The first epoch is a time: an account that was forgotten and comes back has none that it had before.
            "INSERT INTO roster.accounts (account_id, epoch) VALUES ($1, extract(epoch FROM clock_timestamp())::bigint)
             ON CONFLICT DO NOTHING",
            account.0
        )
        .execute(&mut *transaction)
        .await?;
        let taken = sqlx::query!(
            "UPDATE roster.accounts AS account SET holder = $2, epoch = epoch + 1
              WHERE account_id = $1
                AND NOT EXISTS (SELECT FROM roster.replicas
                                 WHERE id = account.holder AND id <> $2 AND expires_at > clock_timestamp())
             RETURNING epoch",
            account.0,
            replica,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        // Another one was quicker.
        let Some(taken) = taken else {
            transaction.rollback().await?;
            let by = self.holder(account, replica).await?;
            return Ok(Lease::Held { by: by.unwrap_or_else(|| "a process that has just left".to_owned()) });
        };
        sqlx::query!(
            "UPDATE roster.cycles SET outcome = 'abandoned', finished_at = now()
              WHERE account_id = $1 AND outcome IS NULL",
            account.0
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Lease::Acquired(Fence { account, epoch: taken.epoch }))
    }

    /// The name of another process that is alive and has the account.
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

    /// Whether the account is still ours: asked before each cycle, since one that finds nothing never locks the
    /// account, and a process that slept through a take-over must not go on asking Harvest.
    pub async fn holds(&self, fence: &Fence) -> Result<bool, StoreError> {
        let row = sqlx::query!("SELECT epoch FROM roster.accounts WHERE account_id = $1", fence.account.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some_and(|row| row.epoch == fence.epoch))
    }

    /// Gives the account back at once, so that another process need not wait for the lease to run out, and rings for
    /// those who stand by.
    pub async fn release(&self, fence: &Fence, replica: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH released AS (
                 UPDATE roster.accounts SET holder = NULL WHERE account_id = $1 AND holder = $2 AND epoch = $3
                 RETURNING account_id)
             SELECT pg_notify($4, account_id::text) AS rung FROM released",
            fence.account.0,
            replica,
            fence.epoch,
            BELL,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(())
    }
}
