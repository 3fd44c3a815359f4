//! Deletes old events, versions, cycles, rejected records, writes and links.

use std::time::Duration;

use super::database::Store;
use super::error::StoreError;

/// Rows per transaction: few, so that a lease holder waits only shortly for the outbox head.
const ROWS_PER_TRANSACTION: i64 = 2000;

/// The key of the advisory lock under which one process trims the outbox: an arbitrary number, the same in every
/// version of rosterd.
const TRIM_LOCK: i64 = 0x7472_696d;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    pub events: u64,
    pub floor_seq: i64,
}

/// A consumer that will soon lose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaggingConsumer {
    pub consumer: String,
    /// Events that it will lose soon or has lost.
    pub events: i64,
}

impl Store {
    /// Deletes a batch of events that are older than `older_than`, acknowledged or not. `None` if there are none, or if
    /// another process is deleting. The head is locked last, to store the number of the last deleted event.
    pub async fn trim_outbox(&self, older_than: Duration) -> Result<Option<Trimmed>, StoreError> {
        let mut transaction = self.pool.for_slow_statements().begin().await?;
        let mine = sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, TRIM_LOCK)
            .fetch_one(&mut *transaction)
            .await?
            .mine;
        if !mine {
            return Ok(None);
        }
        // Only events before the first recent one, so that no gap arises.
        let trimmed = sqlx::query!(
            r#"WITH oldest AS MATERIALIZED (
                   SELECT seq, recorded_at >= clock_timestamp() - make_interval(secs => $1) AS is_recent
                     FROM roster.outbox ORDER BY seq LIMIT $2
               ), gone AS (
                   DELETE FROM roster.outbox
                    WHERE seq IN (SELECT seq FROM oldest)
                      AND seq < coalesce((SELECT min(seq) FROM oldest WHERE is_recent), 9223372036854775807)
                   RETURNING seq
               )
               SELECT count(*) AS "events!", max(seq) AS floor_seq FROM gone"#,
            older_than.as_secs_f64(),
            ROWS_PER_TRANSACTION,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let Some(floor_seq) = trimmed.floor_seq else { return Ok(None) };
        sqlx::query!("UPDATE roster.outbox_head SET floor_seq = $1 WHERE floor_seq < $1", floor_seq)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(Trimmed { events: trimmed.events.unsigned_abs(), floor_seq }))
    }

    /// Consumers that have not acknowledged events which are older than `older_than`.
    pub(crate) async fn lagging_consumers(
        &self,
        older_than: Duration,
    ) -> Result<Vec<LaggingConsumer>, StoreError> {
        let lagging = sqlx::query_as!(
            LaggingConsumer,
            r#"SELECT consumer.name AS consumer, unread.events AS "events!"
                 FROM roster.consumers AS consumer
                 CROSS JOIN (SELECT roster.outbox_seq_at(clock_timestamp() - make_interval(secs => $1)) AS seq) AS old
                 CROSS JOIN LATERAL (SELECT old.seq - consumer.acked_seq AS events) AS unread
                WHERE unread.events > 0
                ORDER BY consumer.name"#,
            older_than.as_secs_f64(),
        );
        Ok(lagging.fetch_all(&self.pool).await?)
    }

    /// Deletes a batch of one account's versions that ended longer ago than `older_than`, and moves the start of the
    /// account's complete history. False if there are none. Locks the account first, like every transaction that writes
    /// it.
    pub async fn trim_history(&self, older_than: Duration) -> Result<bool, StoreError> {
        let mut transaction = self.pool.for_slow_statements().begin().await?;
        let account = sqlx::query!(
            r#"SELECT account.account_id FROM roster.accounts AS account
                WHERE account_id IN (
                    (SELECT account_id FROM roster.user_history
                      WHERE valid_to < clock_timestamp() - make_interval(secs => $1) ORDER BY valid_to LIMIT 1)
                    UNION ALL
                    (SELECT account_id FROM roster.user_assignment_history
                      WHERE valid_to < clock_timestamp() - make_interval(secs => $1) ORDER BY valid_to LIMIT 1))
                LIMIT 1 FOR NO KEY UPDATE"#,
            older_than.as_secs_f64(),
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(account) = account else { return Ok(false) };
        sqlx::query!(
            r#"WITH users AS (
                   DELETE FROM roster.user_history
                    WHERE (account_id, id, version) IN (
                        SELECT account_id, id, version FROM roster.user_history
                         WHERE account_id = $1 AND valid_to < clock_timestamp() - make_interval(secs => $2)
                         ORDER BY valid_to LIMIT $3)
                   RETURNING valid_to
               ), assignments AS (
                   DELETE FROM roster.user_assignment_history
                    WHERE (account_id, id, version) IN (
                        SELECT account_id, id, version FROM roster.user_assignment_history
                         WHERE account_id = $1 AND valid_to < clock_timestamp() - make_interval(secs => $2)
                         ORDER BY valid_to LIMIT $3)
                   RETURNING valid_to
               )
               UPDATE roster.accounts
                  SET history_since = greatest(history_since, (SELECT max(valid_to) FROM users), (SELECT max(valid_to) FROM assignments))
                WHERE account_id = $1"#,
            account.account_id,
            older_than.as_secs_f64(),
            ROWS_PER_TRANSACTION,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Deletes old rows: cycles and rejected records, finished writes, and what directories stored about users whose
    /// deletion was confirmed.
    pub(crate) async fn delete_old_rows(&self, cycles: Duration, writes: Duration) -> Result<(), StoreError> {
        let (cycles, writes) = (cycles.as_secs_f64(), writes.as_secs_f64());
        let statements = [
            sqlx::query!(
                "DELETE FROM roster.cycles WHERE finished_at < clock_timestamp() - make_interval(secs => $1)",
                cycles
            ),
            sqlx::query!(
                "DELETE FROM roster.rejected_records WHERE last_seen_at < clock_timestamp() - make_interval(secs => $1)",
                cycles
            ),
            sqlx::query!(
                "DELETE FROM roster.writes WHERE done_at < clock_timestamp() - make_interval(secs => $1)",
                writes
            ),
            sqlx::query!(
                "DELETE FROM roster.scim_links AS link
                  WHERE resource = 'User' AND NOT EXISTS (
                      SELECT FROM roster.users
                       WHERE users.account_id = link.account_id AND users.id = link.record_id
                         AND (deleted_at IS NULL OR deleted_at >= clock_timestamp() - make_interval(secs => $1)))",
                writes
            ),
        ];
        for statement in statements {
            statement.execute(&self.pool.for_slow_statements()).await?;
        }
        Ok(())
    }
}
