//! What is dropped because it is old: the oldest events, the records of cycles, and those of records that could not be read.

use std::time::Duration;

use super::{Store, StoreError};

/// Events of one transaction: few enough that a writer hardly waits for the head.
const BATCH: i64 = 2000;

/// Any number will do, as long as every rosterd takes the same.
const LOCK: i64 = 0x7472_696d;

/// What was dropped of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Events.
    pub events: u64,
    /// The highest that is gone.
    pub floor_seq: i64,
}

/// A consumer that is about to lose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Its name.
    pub consumer: String,
    /// Events that it will lose soon, or has lost.
    pub events: i64,
}

impl Store {
    /// Drops a batch of events that are older than that, whether anybody has acked them or not; `None` where there are none,
    /// or where another process is at it. The head is locked last, and only to say where the outbox begins now.
    pub async fn trim_outbox(&self, older_than: Duration) -> Result<Option<Trimmed>, StoreError> {
        let mut transaction = self.pool.patient().begin().await?;
        let mine = sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, LOCK)
            .fetch_one(&mut *transaction)
            .await?
            .mine;
        if !mine {
            return Ok(None);
        }
        // Only a beginning without a gap: what is younger, and what comes after it, stays.
        let trimmed = sqlx::query!(
            r#"WITH oldest AS MATERIALIZED (
                   SELECT seq, recorded_at >= clock_timestamp() - make_interval(secs => $1) AS is_young
                     FROM roster.outbox ORDER BY seq LIMIT $2
               ), gone AS (
                   DELETE FROM roster.outbox
                    WHERE seq IN (SELECT seq FROM oldest)
                      AND seq < coalesce((SELECT min(seq) FROM oldest WHERE is_young), 9223372036854775807)
                   RETURNING seq
               )
               SELECT count(*) AS "events!", max(seq) AS floor_seq FROM gone"#,
            older_than.as_secs_f64(),
            BATCH,
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

    /// Consumers that have not dealt with events which are older than that.
    pub async fn laggards(&self, older_than: Duration) -> Result<Vec<Laggard>, StoreError> {
        let laggards = sqlx::query_as!(
            Laggard,
            r#"SELECT consumer.name AS consumer, told.events AS "events!"
                 FROM roster.consumers AS consumer
                 CROSS JOIN roster.outbox_head AS head
                 CROSS JOIN LATERAL (
                     SELECT greatest(head.floor_seq - consumer.acked_seq, 0) + count(*) AS events
                       FROM roster.outbox AS event
                      WHERE event.seq > consumer.acked_seq
                        AND event.recorded_at < clock_timestamp() - make_interval(secs => $1)) AS told
                WHERE told.events > 0
                ORDER BY consumer.name"#,
            older_than.as_secs_f64(),
        );
        Ok(laggards.fetch_all(&self.pool.patient()).await?)
    }

    /// Drops a batch of versions that ended longer ago than that, of one account, whose history is whole only after them; false
    /// where there are none. The account is locked first, as by everybody who writes it.
    pub async fn trim_history(&self, older_than: Duration) -> Result<bool, StoreError> {
        let mut transaction = self.pool.patient().begin().await?;
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
            r#"WITH people AS (
                   DELETE FROM roster.user_history
                    WHERE (account_id, id, version) IN (
                        SELECT account_id, id, version FROM roster.user_history
                         WHERE account_id = $1 AND valid_to < clock_timestamp() - make_interval(secs => $2)
                         ORDER BY valid_to LIMIT $3)
                   RETURNING valid_to
               ), places AS (
                   DELETE FROM roster.user_assignment_history
                    WHERE (account_id, id, version) IN (
                        SELECT account_id, id, version FROM roster.user_assignment_history
                         WHERE account_id = $1 AND valid_to < clock_timestamp() - make_interval(secs => $2)
                         ORDER BY valid_to LIMIT $3)
                   RETURNING valid_to
               )
               UPDATE roster.accounts
                  SET history_since = greatest(history_since, (SELECT max(valid_to) FROM people), (SELECT max(valid_to) FROM places))
                WHERE account_id = $1"#,
            account.account_id,
            older_than.as_secs_f64(),
            BATCH,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Drops what is older than that of cycles and of records that could not be read.
    pub async fn forget_old_cycles(&self, older_than: Duration) -> Result<(), StoreError> {
        let secs = older_than.as_secs_f64();
        sqlx::query!(
            "DELETE FROM roster.cycles
              WHERE finished_at < clock_timestamp() - make_interval(secs => $1)",
            secs
        )
        .execute(&self.pool.patient())
        .await?;
        sqlx::query!(
            "DELETE FROM roster.rejected_records
              WHERE last_seen_at < clock_timestamp() - make_interval(secs => $1)",
            secs
        )
        .execute(&self.pool.patient())
        .await?;
        Ok(())
    }
}
