//! `roster.outbox` and its head.
//!
//! `seq` comes from a one-row table that each transaction locks last. It has no gaps and follows the order of commits,
//! so a reader with `WHERE seq > last ORDER BY seq` skips no event and reads none twice. A database sequence assigns
//! numbers before the commit: a reader that has read 2 would skip a 1 that commits later.

use std::collections::HashMap;

use uuid::Uuid;

use super::copy;
use super::database::Store;
use super::error::StoreError;
use super::notifications::{OUTBOX_CHANNEL, notify_daemon};
use super::timeline_memory::Position;
use super::tx::AccountTx;
use crate::roster::{AccountId, Event, Resource};

const EVENTS_PER_READ: i64 = 1000;

const COLUMNS: [&str; 11] = [
    "seq",
    "id",
    "aggregatetype",
    "aggregateid",
    "type",
    "payload",
    "account_id",
    "version",
    "occurred_at",
    "record_id",
    "recorded_at",
];

#[derive(Clone, Debug)]
pub struct OutboxRow {
    pub seq: i64,
    /// The row as a JSON object; `None` if its type is not asked for.
    pub json: Option<String>,
}

impl AccountTx {
    /// Emits events and notifies the readers, who must not rely on the notification, because it can be lost. Only the
    /// commit may follow, because the outbox head is locked from here on.
    pub(crate) async fn emit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let head = sqlx::query!(
            // A server that was promoted writes no event until `timeline` has decided about the stream.
            r#"UPDATE roster.outbox_head AS head SET seq = seq + $1
              WHERE stream_id = $2
                AND coalesce(timeline_id = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int, true)
                AND coalesce(system_identifier = (SELECT server.system_identifier FROM pg_control_system() AS server), true)
             RETURNING seq, timeline_id"#,
            count,
            self.stream
        )
        .fetch_optional(&mut *self.transaction)
        .await?
        // A new stream began after this transaction had read the old stream's id, so the ids of these events are wrong.
        .ok_or(StoreError::RowCount { table: "roster.outbox_head", expected: 1, wrote: 0 })?;
        let (account, recorded_at) = (self.account, self.now);
        // All events of a commit have the same `recorded_at`, so that a query for any past time finds all of them or none.
        let numbered: Vec<(i64, &Event)> = (head.seq - count + 1..).zip(events).collect();
        copy::load(&mut self.transaction, "roster.outbox", &COLUMNS, &numbered, |(seq, event), row| {
            row.push(seq)?;
            row.push(event.id)?;
            row.push(event.aggregatetype)?;
            row.push(&*event.aggregateid)?;
            row.push(&*event.r#type)?;
            row.push_json(&event.payload)?;
            row.push(account.0)?;
            row.push(event.version)?;
            row.push(event.occurred_at)?;
            row.push(event.record_id)?;
            row.push(recorded_at)
        })
        .await?;
        sqlx::query!("SELECT pg_notify($1, $2) AS notified", OUTBOX_CHANNEL, head.seq.to_string())
            .fetch_one(&mut *self.transaction)
            .await?;
        let stream = self.stream;
        self.last_event = head.timeline_id.map(|timeline| Position { stream, timeline, seq: head.seq });
        Ok(())
    }
}

impl Store {
    /// The last version of each of these records in its events and its history, regardless of its row. Needed only
    /// after a [version conflict](StoreError::is_version_conflict).
    pub(crate) async fn last_versions(
        &self,
        account: AccountId,
        resource: Resource,
        ids: &[i64],
    ) -> Result<HashMap<i64, i64>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id AS "id!", max(version) AS "version!"
                 FROM (SELECT record_id AS id, version FROM roster.outbox
                        WHERE account_id = $1 AND aggregatetype = $2 AND record_id = ANY($3)
                       UNION ALL
                       SELECT id, version FROM roster.user_history
                        WHERE account_id = $1 AND $2 = 'user' AND id = ANY($3)
                       UNION ALL
                       SELECT id, version FROM roster.user_assignment_history
                        WHERE account_id = $1 AND $2 = 'user_assignment' AND id = ANY($3)) AS known
                GROUP BY id"#,
            account.0,
            resource.aggregate(),
            ids,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
    }

    /// The next events after number `after`, of all types or of these.
    pub(crate) async fn events_after(
        &self,
        after: i64,
        types: Option<&[String]>,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let events = sqlx::query_as!(
            OutboxRow,
            "SELECT seq, CASE WHEN $2::text[] IS NULL OR type = ANY($2) THEN row_to_json(event)::text END AS json
               FROM roster.outbox AS event WHERE seq > $1 ORDER BY seq LIMIT $3",
            after,
            types as Option<&[String]>,
            EVENTS_PER_READ,
        );
        Ok(events.fetch_all(&self.pool).await?)
    }

    /// The number of the last event that was removed, and the stream's id.
    pub(crate) async fn outbox_floor(&self) -> Result<(i64, Uuid), StoreError> {
        let head =
            sqlx::query!("SELECT floor_seq, stream_id FROM roster.outbox_head").fetch_one(&self.pool).await?;
        Ok((head.floor_seq, head.stream_id))
    }

    /// Begins a new stream, makes full reads due, and returns the stream's id. For a database that was restored from a
    /// snapshot of its volume, which PostgreSQL cannot detect.
    pub async fn new_stream(&self) -> Result<Uuid, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Before the head, for the order of locks.
        sqlx::query!("UPDATE roster.watermarks SET next_full_at = now()").execute(&mut *transaction).await?;
        let head =
            sqlx::query!("UPDATE roster.outbox_head SET stream_id = gen_random_uuid() RETURNING stream_id")
                .fetch_one(&mut *transaction)
                .await?;
        notify_daemon(&mut transaction, None).await?;
        transaction.commit().await?;
        Ok(head.stream_id)
    }
}
