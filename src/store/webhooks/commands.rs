//! What the commands `rosterd webhooks …` read and change. Each change raises the endpoint's epoch, so that a result of
//! an attempt under way cannot undo it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{EventFilter, WebhookEvent, consumer, start_consumer};
use crate::store::database::Store;
use crate::store::error::StoreError;
use crate::store::session::{Session, Transaction};

#[derive(Clone, Debug, Serialize)]
// The names of the fields are those of `rosterd webhooks list --json`.
pub struct WebhookStatus {
    pub name: String,
    pub state: String,
    /// The operator who last changed the state.
    pub state_by: Option<String>,
    pub reason: Option<String>,
    /// The running process that delivers: host and process id.
    pub holder: Option<String>,
    pub acked_seq: i64,
    /// Events after `acked_seq`, wanted or not.
    pub behind: i64,
    /// Age of the first of them, in seconds.
    pub oldest_seconds: Option<i64>,
    pub delivered: i64,
    pub delivered_at: Option<DateTime<Utc>>,
    pub failing_since: Option<DateTime<Utc>>,
    pub attempts: i32,
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub failed_seq: Option<i64>,
    pub failure: Option<String>,
    /// Events that the receiver refused for good, and about which no operator has decided.
    pub set_aside: Vec<i64>,
    pub seen_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Done,
    Unknown,
    /// The endpoint's state does not allow it.
    Refused,
}

/// Where `rosterd webhooks replay` begins.
#[derive(Clone, Copy, Debug)]
pub enum ReplayFrom {
    /// The oldest event that is kept.
    Oldest,
    /// After the newest event.
    Now,
    Seq(i64),
    /// The first event recorded at this time or later.
    Since(DateTime<Utc>),
}

impl Store {
    pub(crate) async fn webhooks(&self) -> Result<Vec<WebhookStatus>, StoreError> {
        let mut snapshot = self.pool.snapshot().await?;
        let webhooks = webhooks(&mut snapshot).await?;
        snapshot.commit().await?;
        Ok(webhooks)
    }

    /// Pauses the delivery, or resumes it at once (`on`), unless events are lost.
    pub(crate) async fn set_webhook_state(
        &self,
        name: &str,
        state: &'static str,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Change, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let changed = sqlx::query!(
            r#"UPDATE roster.webhooks AS webhook
                SET epoch = epoch + 1,
                    state = CASE WHEN state = 'lost' THEN state ELSE $2 END,
                    state_by = CASE WHEN state = 'lost' THEN state_by ELSE $3 END,
                    reason = CASE WHEN state = 'lost' THEN reason ELSE $4 END,
                    next_attempt_at = NULL
              WHERE name = $1 RETURNING state = 'lost' AS "is_lost!""#,
            name,
            state,
            by,
            reason
        )
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query!(
            "UPDATE roster.webhook_notices SET next_attempt_at = NULL WHERE name = $1 AND next_attempt_at IS NOT NULL",
            name
        )
        .execute(&mut *transaction)
        .await?;
        let change = match changed {
            None => Change::Unknown,
            Some(changed) if changed.is_lost => Change::Refused,
            Some(_) => Change::Done,
        };
        notify(&mut transaction).await?;
        transaction.commit().await?;
        Ok(change)
    }

    /// Passes over the event that fails, or settles one that rosterd has passed over.
    pub(crate) async fn skip_webhook_event(
        &self,
        name: &str,
        seq: i64,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Change, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query!("SELECT failed_seq FROM roster.webhooks WHERE name = $1 FOR UPDATE", name)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(Change::Unknown) };
        let settled = sqlx::query!(
            "UPDATE roster.webhook_skips SET skipped_by = $3, reason = $4
              WHERE name = $1 AND seq = $2 AND skipped_by IS NULL AND sent_at IS NULL",
            name,
            seq,
            by,
            reason
        )
        .execute(&mut *transaction)
        .await?;
        if settled.rows_affected() == 0 {
            if row.failed_seq != Some(seq) {
                return Ok(Change::Refused);
            }
            let skipped = sqlx::query!(
                "WITH webhook AS (
                     UPDATE roster.webhooks AS webhook
                        SET epoch = webhook.epoch + 1, failing_since = NULL, attempts = 0, next_attempt_at = NULL, failed_seq = NULL,
                            failure = NULL, refused_id = NULL, refused_since = NULL, refusals = 0
                       FROM roster.webhooks AS before
                      WHERE webhook.name = $1 AND before.name = $1 RETURNING before.failure)
                 INSERT INTO roster.webhook_skips (name, event_id, seq, type, failure, skipped_by, reason)
                 SELECT $1, event.id, event.seq, event.type, webhook.failure, $3, $4
                   FROM roster.outbox AS event, webhook WHERE event.seq = $2",
                name,
                seq,
                by,
                reason
            )
            .execute(&mut *transaction)
            .await?;
            if skipped.rows_affected() == 0 {
                return Ok(Change::Refused);
            }
        }
        notify(&mut transaction).await?;
        transaction.commit().await?;
        Ok(Change::Done)
    }

    /// Moves the endpoint to another event. Returns the last event before it; `Err` with the first and the last event
    /// that are allowed, or `None` if no endpoint has this name.
    pub(crate) async fn replay_webhook(
        &self,
        name: &str,
        from: ReplayFrom,
    ) -> Result<Option<Result<i64, (i64, i64)>>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let changed = sqlx::query!(
            "UPDATE roster.webhooks
                SET epoch = epoch + 1, state = CASE state WHEN 'lost' THEN 'on' ELSE state END,
                    failing_since = NULL, attempts = 0, next_attempt_at = NULL, failed_seq = NULL, failure = NULL,
                    refused_id = NULL, refused_since = NULL, refusals = 0
              WHERE name = $1",
            name
        )
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 0 {
            return Ok(None);
        }
        let since = if let ReplayFrom::Since(since) = from { Some(since) } else { None };
        let head = sqlx::query!(
            r#"SELECT seq, floor_seq, CASE WHEN $1::timestamptz IS NOT NULL THEN roster.outbox_seq_at($1) END AS since
                 FROM roster.outbox_head"#,
            since
        )
        .fetch_one(&mut *transaction)
        .await?;
        let after = match from {
            ReplayFrom::Oldest => head.floor_seq,
            ReplayFrom::Now => head.seq,
            ReplayFrom::Seq(seq) => seq.saturating_sub(1),
            ReplayFrom::Since(_) => head.since.unwrap_or(head.seq),
        };
        if !(head.floor_seq..=head.seq).contains(&after) {
            return Ok(Some(Err((head.floor_seq + 1, head.seq))));
        }
        start_consumer(&mut transaction, name, after).await?;
        notify(&mut transaction).await?;
        transaction.commit().await?;
        Ok(Some(Ok(after)))
    }

    /// One event, whatever the endpoint's types, accounts and position are. `None` if it is not kept.
    pub(crate) async fn webhook_event(
        &self,
        seq: i64,
        filter: &EventFilter,
    ) -> Result<Option<WebhookEvent>, StoreError> {
        let event = sqlx::query_as!(
            WebhookEvent,
            r#"SELECT full_event.seq, full_event.id, full_event.aggregatetype, full_event.aggregateid, full_event.type,
                      full_event.occurred_at, full_event.recorded_at,
                      CASE WHEN $3 THEN roster.event_ids(full_event.payload) WHEN $2 THEN full_event.payload
                           ELSE event.payload END::text AS data
                 FROM roster.outbox AS full_event JOIN directory.events AS event USING (seq) WHERE seq = $1"#,
            seq,
            filter.include_pay,
            filter.ids_only
        );
        Ok(event.fetch_optional(&self.pool).await?)
    }

    /// Stores that an event that the endpoint had passed over was delivered after all.
    pub(crate) async fn webhook_event_sent(
        &self,
        name: &str,
        event: &WebhookEvent,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.webhook_skips SET sent_at = clock_timestamp() WHERE name = $1 AND event_id = $2",
            name,
            event.id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes the endpoint's rows. False if no endpoint has this name.
    pub(crate) async fn remove_webhook(&self, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let removed = sqlx::query!("DELETE FROM roster.webhooks WHERE name = $1", name)
            .execute(&mut *transaction)
            .await?;
        for statement in [
            sqlx::query!("DELETE FROM roster.consumers WHERE name = $1", consumer(name)),
            sqlx::query!("DELETE FROM roster.webhook_skips WHERE name = $1", name),
            sqlx::query!("DELETE FROM roster.webhook_notices WHERE name = $1", name),
        ] {
            statement.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(removed.rows_affected() > 0)
    }
}

pub(crate) async fn webhooks(connection: &mut Session) -> Result<Vec<WebhookStatus>, StoreError> {
    let webhooks = sqlx::query_as!(
        WebhookStatus,
        r#"SELECT webhook.name, webhook.state, webhook.state_by, webhook.reason, replica.name AS "holder?",
                  coalesce(consumer.acked_seq, 0) AS "acked_seq!",
                  greatest(head.seq - coalesce(consumer.acked_seq, 0), 0) AS "behind!",
                  extract(epoch FROM clock_timestamp() - event.recorded_at)::bigint AS oldest_seconds,
                  webhook.delivered, webhook.delivered_at, webhook.failing_since, webhook.attempts,
                  webhook.next_attempt_at, webhook.failed_seq, webhook.failure,
                  ARRAY (SELECT skip.seq FROM roster.webhook_skips AS skip
                          WHERE skip.name = webhook.name AND skipped_by IS NULL AND sent_at IS NULL ORDER BY seq) AS "set_aside!",
                  webhook.seen_at
             FROM roster.webhooks AS webhook
            CROSS JOIN roster.outbox_head AS head
             LEFT JOIN roster.consumers AS consumer ON consumer.name = 'webhook:' || webhook.name
             LEFT JOIN roster.outbox AS event ON event.seq = greatest(consumer.acked_seq, head.floor_seq) + 1
             LEFT JOIN roster.replicas AS replica ON replica.id = webhook.holder AND replica.expires_at > clock_timestamp()
            ORDER BY webhook.name"#
    );
    Ok(webhooks.fetch_all(connection).await?)
}

async fn notify(transaction: &mut Transaction) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_notify('roster_outbox', seq::text) AS notified FROM roster.outbox_head")
        .fetch_one(&mut **transaction)
        .await?;
    Ok(())
}
