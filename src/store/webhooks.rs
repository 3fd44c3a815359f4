//! `roster.webhooks`: who delivers an endpoint's events, and how far the delivery has come. The position itself is the
//! one of the consumer `webhook:NAME`.
//!
//! Transactions lock the endpoint's row before its consumer's, and no other rows with them.

pub(crate) mod commands;
pub mod notices;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::session::Transaction;

/// Bytes of payloads per read; one event may have more.
const MAX_BYTES: i64 = 1 << 20;
/// An event is refused for good after this many refusals, and this many minutes after the first one.
const MAX_REFUSALS: i32 = 8;
const REFUSAL_MINUTES: f64 = 30.0;

/// Which events an endpoint gets, and what of them.
#[derive(Clone, Debug)]
pub struct EventFilter {
    pub types: Vec<String>,
    /// Accounts; empty for all.
    pub accounts: Vec<i64>,
    /// Whether events of an account's first full read are sent.
    pub initial: bool,
    pub include_pay: bool,
    /// Whether payloads contain ids and names of changed fields only.
    pub ids_only: bool,
}

/// Proof that this process delivers the endpoint's events. Each result that is stored checks it.
#[derive(Clone, Debug)]
pub struct WebhookFence {
    pub name: String,
    /// The endpoint's epoch when the lease was acquired.
    pub epoch: i64,
}

#[derive(Clone, Debug)]
pub struct WebhookState {
    /// Differs from the fence's if another process took over or an operator changed the endpoint.
    pub epoch: i64,
    pub is_on: bool,
    /// Seconds until the next attempt may begin.
    pub wait_secs: f64,
    /// Failed attempts since the last delivery.
    pub attempts: i32,
    /// Events after the last acknowledged one, wanted or not.
    pub behind: i64,
    pub stream_id: Uuid,
    pub knows_stream: bool,
}

#[derive(Clone)]
pub struct WebhookEvent {
    pub seq: i64,
    pub id: Uuid,
    pub aggregatetype: String,
    pub aggregateid: String,
    pub r#type: String,
    pub occurred_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
    /// JSON text; `None` if the endpoint does not want the event.
    pub data: Option<String>,
}

pub enum WebhookEvents {
    Next(Vec<WebhookEvent>),
    /// Retention has removed events that were not delivered.
    Lost,
}

#[derive(Clone, Debug)]
pub struct FailedAttempt<'a> {
    /// The event; `None` for a message that is no event.
    pub seq: Option<i64>,
    /// The event, if the receiver refused it.
    pub refused_id: Option<Uuid>,
    /// What happened, without the address.
    pub failure: &'a str,
    /// Seconds until the next attempt.
    pub wait_secs: f64,
}

/// SQLSTATE of a consumer that has lost events.
const LOST_EVENTS: &str = "RS001";

fn consumer(name: &str) -> String {
    format!("webhook:{name}")
}

impl Store {
    /// Registers the endpoint if it is new, and its consumer if that is absent: before the next event, or before the
    /// oldest one.
    pub(crate) async fn register_webhook(&self, name: &str, from_beginning: bool) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "INSERT INTO roster.webhooks (name, stream_id, seen_at)
             SELECT $1, stream_id, clock_timestamp() FROM roster.outbox_head
             ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at",
            name
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            r#"SELECT roster.outbox_start($1, CASE WHEN $2 THEN floor_seq ELSE seq END)::text AS "started?"
                 FROM roster.outbox_head WHERE NOT EXISTS (SELECT FROM roster.consumers WHERE name = $1)"#,
            consumer(name),
            from_beginning
        )
        .fetch_optional(&mut *transaction)
        .await?;
        // outbox_start makes this login the owner, but the database may get another login for rosterd.
        sqlx::query!(
            "UPDATE roster.consumers SET owner = owner.name
               FROM (SELECT pg_get_userbyid(nspowner) AS name FROM pg_namespace WHERE nspname = 'roster') AS owner
              WHERE consumers.name = $1 AND consumers.owner <> owner.name",
            consumer(name)
        )
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Acquires the lease of the endpoint. `None` if another running process has it, or if the endpoint is not
    /// registered. Writes nothing then, so that standbys can try often.
    pub(crate) async fn acquire_webhook(
        &self,
        name: &str,
        replica: Uuid,
    ) -> Result<Option<WebhookFence>, StoreError> {
        let taken = sqlx::query!(
            "UPDATE roster.webhooks AS webhook SET holder = $2, epoch = epoch + 1
              WHERE name = $1
                AND NOT EXISTS (SELECT FROM roster.replicas
                                 WHERE id = webhook.holder AND id <> $2 AND expires_at > clock_timestamp())
             RETURNING epoch",
            name,
            replica
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(taken.map(|taken| WebhookFence { name: name.to_owned(), epoch: taken.epoch }))
    }

    /// Releases the lease and wakes the standbys.
    pub(crate) async fn release_webhook(&self, fence: &WebhookFence) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH released AS (UPDATE roster.webhooks SET holder = NULL WHERE name = $1 AND epoch = $2 RETURNING name)
             SELECT pg_notify('roster_outbox', head.seq::text) AS notified FROM released, roster.outbox_head AS head",
            fence.name,
            fence.epoch
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(())
    }

    /// `None` if the endpoint or its consumer is not registered.
    pub(crate) async fn webhook_state(&self, name: &str) -> Result<Option<WebhookState>, StoreError> {
        let state = sqlx::query_as!(
            WebhookState,
            r#"SELECT webhook.epoch, webhook.state = 'on' AS "is_on!", webhook.attempts,
                      coalesce(greatest(extract(epoch FROM next_attempt_at - clock_timestamp()), 0), 0)::float8 AS "wait_secs!",
                      -- An unknown stream is a reason to look, too.
                      CASE WHEN consumer.stream_id = head.stream_id THEN head.seq - consumer.acked_seq ELSE 1 END AS "behind!",
                      head.stream_id, webhook.stream_id = head.stream_id AS "knows_stream!"
                 FROM roster.webhooks AS webhook
                 JOIN roster.consumers AS consumer ON consumer.name = 'webhook:' || webhook.name
                CROSS JOIN roster.outbox_head AS head
                WHERE webhook.name = $1"#,
            name
        );
        Ok(state.fetch_optional(&self.pool).await?)
    }

    /// At most `max` of the next events. One snapshot: otherwise an event could be compared with a `first_full_at` from
    /// before the event, and would be passed over.
    pub(crate) async fn webhook_events(
        &self,
        name: &str,
        filter: &EventFilter,
        max: i32,
    ) -> Result<WebhookEvents, StoreError> {
        let mut snapshot = self.pool.snapshot().await?;
        let events = sqlx::query_as!(
            WebhookEvent,
            r#"SELECT seq AS "seq!", id AS "id!", aggregatetype AS "aggregatetype!", aggregateid AS "aggregateid!",
                      type AS "type!", occurred_at AS "occurred_at!", recorded_at AS "recorded_at!", data
                 FROM (SELECT event.*, shown.data, row_number() OVER by_seq AS nth,
                              sum(coalesce(octet_length(shown.data), 0)) OVER by_seq AS bytes
                         FROM (SELECT seq, id, aggregatetype, aggregateid, type, payload, account_id, occurred_at, recorded_at
                                 FROM directory.outbox_fetch('webhook:' || $1, $2) WHERE NOT $6
                               UNION ALL
                               SELECT seq, id, aggregatetype, aggregateid, type, payload, account_id, occurred_at, recorded_at
                                 FROM roster.outbox_fetch('webhook:' || $1, $2) WHERE $6) AS event
                         LEFT JOIN roster.accounts AS account USING (account_id)
                        CROSS JOIN LATERAL (
                              SELECT CASE
                                  WHEN (event.type = ANY ($3) AND (account_id = ANY ($4) OR cardinality($4::bigint[]) = 0)
                                        AND ($5 OR event.recorded_at > account.first_full_at)
                                        AND NOT EXISTS (SELECT FROM roster.webhook_skips AS skip
                                                         WHERE skip.name = $1 AND skip.event_id = event.id)) IS NOT TRUE
                                      THEN NULL
                                  WHEN $7 THEN roster.event_ids(payload)::text
                                  ELSE payload::text END AS data) AS shown
                       WINDOW by_seq AS (ORDER BY seq)) AS event
                WHERE bytes <= $8 OR nth = 1
                ORDER BY seq"#,
            name,
            max,
            &filter.types,
            &filter.accounts,
            filter.initial,
            filter.include_pay,
            filter.ids_only,
            MAX_BYTES,
        )
        .fetch_all(&mut *snapshot)
        .await;
        let code = |error: &sqlx::Error| error.as_database_error()?.code().map(|code| code == LOST_EVENTS);
        match events {
            Ok(events) => {
                snapshot.commit().await?;
                Ok(WebhookEvents::Next(events))
            }
            Err(error) if code(&error) == Some(true) => Ok(WebhookEvents::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Acknowledges the events up to `seq`, of which the receiver accepted `delivered`. False if the lease is lost.
    pub(crate) async fn webhook_delivered(
        &self,
        fence: &WebhookFence,
        seq: i64,
        delivered: i64,
    ) -> Result<bool, StoreError> {
        let acked = sqlx::query!(
            "WITH mine AS (
                 UPDATE roster.webhooks
                    SET delivered = delivered + $4,
                        delivered_at = CASE WHEN $4 > 0 THEN clock_timestamp() ELSE delivered_at END,
                        failing_since = NULL, attempts = 0, next_attempt_at = NULL, failed_seq = NULL, failure = NULL,
                        refused_id = NULL, refused_since = NULL, refusals = 0
                  WHERE name = $1 AND epoch = $2 RETURNING name)
             SELECT roster.outbox_ack('webhook:' || name, $3) AS acked FROM mine",
            fence.name,
            fence.epoch,
            seq,
            delivered
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(acked.is_some())
    }

    /// Stores a failed attempt. Returns whether the receiver has refused the event for good; `None` if the lease is lost.
    pub(crate) async fn webhook_failed(
        &self,
        fence: &WebhookFence,
        failed: &FailedAttempt<'_>,
    ) -> Result<Option<bool>, StoreError> {
        let stored = sqlx::query!(
            r#"UPDATE roster.webhooks
                SET failing_since = coalesce(failing_since, clock_timestamp()), attempts = attempts + 1,
                    next_attempt_at = clock_timestamp() + make_interval(secs => $3), failed_seq = $4, failure = $5,
                    refused_id = $6,
                    refused_since = CASE WHEN $6 = refused_id THEN refused_since WHEN $6 IS NOT NULL THEN clock_timestamp() END,
                    refusals = CASE WHEN $6 = refused_id THEN refusals + 1 WHEN $6 IS NOT NULL THEN 1 ELSE 0 END
              WHERE name = $1 AND epoch = $2
             RETURNING coalesce(refusals >= $7 AND refused_since <= clock_timestamp() - make_interval(secs => $8), false) AS "is_final!""#,
            fence.name,
            fence.epoch,
            failed.wait_secs,
            failed.seq,
            failed.failure,
            failed.refused_id,
            MAX_REFUSALS,
            REFUSAL_MINUTES * 60.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(stored.map(|stored| stored.is_final))
    }

    /// Passes an event over that the receiver keeps refusing. False if the lease is lost.
    pub(crate) async fn set_webhook_event_aside(
        &self,
        fence: &WebhookFence,
        event: &WebhookEvent,
        failure: &str,
    ) -> Result<bool, StoreError> {
        let inserted = sqlx::query!(
            "WITH mine AS (
                 UPDATE roster.webhooks
                    SET failing_since = NULL, attempts = 0, next_attempt_at = NULL, failed_seq = NULL, failure = NULL,
                        refused_id = NULL, refused_since = NULL, refusals = 0
                  WHERE name = $1 AND epoch = $2 RETURNING name)
             INSERT INTO roster.webhook_skips (name, event_id, seq, type, failure)
             SELECT name, $3, $4, $5, $6 FROM mine",
            fence.name,
            fence.epoch,
            event.id,
            event.seq,
            event.r#type,
            failure
        )
        .execute(&self.pool)
        .await?;
        Ok(inserted.rows_affected() > 0)
    }

    /// Stops the delivery: the receiver answered 410 (`gone`), or events are lost (`lost`). False if the lease is lost.
    pub(crate) async fn stop_webhook(
        &self,
        fence: &WebhookFence,
        state: &'static str,
        failure: Option<&str>,
    ) -> Result<bool, StoreError> {
        let stopped = sqlx::query!(
            "UPDATE roster.webhooks SET state = $3, state_by = NULL, reason = NULL, failure = coalesce($4, failure)
              WHERE name = $1 AND epoch = $2",
            fence.name,
            fence.epoch,
            state,
            failure
        )
        .execute(&self.pool)
        .await?;
        Ok(stopped.rows_affected() > 0)
    }

    /// Stores that the receiver knows the stream, and moves the consumer to it: to the last acknowledged event, or to the
    /// last event before the stream if that is earlier. The head may have events of the new stream already. False if the
    /// lease is lost.
    pub(crate) async fn begin_webhook_stream(
        &self,
        fence: &WebhookFence,
        stream: Uuid,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let known = sqlx::query!(
            "UPDATE roster.webhooks
                SET stream_id = $3, failing_since = NULL, attempts = 0, next_attempt_at = NULL, failed_seq = NULL,
                    failure = NULL, refused_id = NULL, refused_since = NULL, refusals = 0
              WHERE name = $1 AND epoch = $2",
            fence.name,
            fence.epoch,
            stream
        )
        .execute(&mut *transaction)
        .await?;
        if known.rows_affected() == 0 {
            return Ok(false);
        }
        let moved = sqlx::query!(
            r#"SELECT least(consumer.acked_seq, roster.outbox_seq_before_stream()) AS "after!", head.floor_seq
                 FROM roster.consumers AS consumer, roster.outbox_head AS head
                WHERE consumer.name = $1 AND consumer.stream_id <> head.stream_id AND head.stream_id = $2"#,
            consumer(&fence.name),
            stream
        )
        .fetch_optional(&mut *transaction)
        .await?;
        // If retention has removed events since, the next read finds that they are lost.
        if let Some(moved) = moved.filter(|moved| moved.after >= moved.floor_seq) {
            start_consumer(&mut transaction, &fence.name, moved.after).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// Moves the endpoint's consumer to the events after `after`.
async fn start_consumer(transaction: &mut Transaction, name: &str, after: i64) -> Result<(), StoreError> {
    sqlx::query!(r#"SELECT roster.outbox_start($1, $2)::text AS "started?""#, consumer(name), after)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(())
}
