//! `roster.outbox` and its head.
//!
//! `seq` comes from a one-row table that is locked last in each transaction: gapless and in commit order, so
//! `WHERE seq > mine ORDER BY seq` never skips and never sees one twice. A sequence is neither: numbers are given
//! before the commit, and a reader that has seen 2 never looks for the 1 that commits later.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::error::ensure_rows;
use super::page::AT_A_TIME;
use super::requests::{Bell, ring};
use super::{Session, Store, StoreError};
use crate::roster::{AccountId, Event, Resource};

/// The doorbell; the payload is the new head.
const DOORBELL: &str = "roster_outbox";

/// Events that are read at a time.
const READ: i64 = 1000;

/// An event as a reader sees it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its place.
    pub seq: i64,
    /// The row as a JSON object; `None` for one that was not asked for.
    pub json: Option<String>,
}

/// Appends events and rings the doorbell (`NOTIFY roster_outbox`), which is never the delivery.
pub(super) async fn append(
    connection: &mut Session,
    account: AccountId,
    stream: Uuid,
    events: &[Event],
) -> Result<(), StoreError> {
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let head = sqlx::query!(
        // A server that was promoted since history was last looked at writes no event under the old stream's name.
        r#"UPDATE roster.outbox_head AS head SET seq = seq + $1
          WHERE stream_id = $2
            AND coalesce(timeline_id = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int, true)
            AND coalesce(system_identifier = (SELECT server.system_identifier FROM pg_control_system() AS server), true)
         RETURNING seq, clock_timestamp() AS "now!""#,
        count,
        stream
    )
    .fetch_optional(&mut *connection)
    .await?
    // A new stream was begun since this transaction read the old one's name: its events' ids are wrong now.
    .ok_or(StoreError::RowCount { table: "roster.outbox_head", expected: 1, wrote: 0 })?;
    let mut seq = head.seq - count;
    for events in events.chunks(AT_A_TIME) {
        insert(connection, account, seq, head.now, events).await?;
        seq += i64::try_from(events.len()).unwrap_or(i64::MAX);
    }
    sqlx::query!("SELECT pg_notify($1, $2) AS rung", DOORBELL, head.seq.to_string())
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// Inserts the events whose numbers come after `seq`. All events of a commit have one `recorded_at`, taken while the head
/// is locked, so that a question about any moment of the past sees the whole commit or nothing of it.
async fn insert(
    connection: &mut Session,
    account: AccountId,
    seq: i64,
    recorded_at: DateTime<Utc>,
    events: &[Event],
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let aggregatetypes: Vec<&str> = events.iter().map(|event| event.aggregatetype).collect();
    let aggregateids: Vec<&str> = events.iter().map(|event| &*event.aggregateid).collect();
    let types: Vec<&str> = events.iter().map(|event| &*event.r#type).collect();
    let payloads: Vec<&str> = events.iter().map(|event| &*event.payload.0).collect();
    let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
    let times: Vec<_> = events.iter().map(|event| event.occurred_at).collect();
    let written = sqlx::query!(
        "INSERT INTO roster.outbox (seq, id, aggregatetype, aggregateid, type, payload, account_id, version,
                                    occurred_at, recorded_at)
         SELECT $1 + event.n, event.id, aggregatetype, aggregateid, type, payload::jsonb, $2, version,
                occurred_at, $10
           FROM UNNEST($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                       $9::timestamptz[])
                WITH ORDINALITY
             AS event (id, aggregatetype, aggregateid, type, payload, version, occurred_at, n)",
        seq,
        account.0,
        &ids,
        &aggregatetypes as _,
        &aggregateids as _,
        &types as _,
        &payloads as _,
        &versions,
        &times,
        recorded_at,
    )
    .execute(connection)
    .await?;
    ensure_rows("roster.outbox", events.len(), written.rows_affected())
}

impl Store {
    /// The last version of each of these records by its events and its history, whatever its row says. Asked only after a
    /// [version conflict](StoreError::is_version_conflict).
    pub async fn last_versions(
        &self,
        account: AccountId,
        resource: Resource,
        ids: &[i64],
    ) -> Result<HashMap<i64, i64>, StoreError> {
        let aggregates: Vec<String> = ids.iter().map(|id| format!("{account}/{id}")).collect();
        let rows = sqlx::query!(
            r#"SELECT id AS "id!", max(version) AS "version!"
                 FROM (SELECT split_part(aggregateid, '/', 2)::bigint AS id, version FROM roster.outbox
                        WHERE account_id = $1 AND aggregatetype = $2 AND aggregateid = ANY($3)
                       UNION ALL
                       SELECT id, version FROM roster.user_history
                        WHERE account_id = $1 AND $2 = 'user' AND id = ANY($4)
                       UNION ALL
                       SELECT id, version FROM roster.user_assignment_history
                        WHERE account_id = $1 AND $2 = 'user_assignment' AND id = ANY($4)
                       UNION ALL
                       SELECT id, version FROM roster.rate_versions
                        WHERE account_id = $1 AND $2 IN ('billable_rate', 'cost_rate')
                          AND billable = ($2 = 'billable_rate') AND id = ANY($4)) AS known
                GROUP BY id"#,
            account.0,
            resource.aggregate(),
            &aggregates,
            ids,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
    }

    /// The next events after `after`, of all types or of those that are `LIKE` the pattern.
    pub async fn lines(&self, after: i64, like: Option<&str>) -> Result<Vec<Line>, StoreError> {
        let lines = sqlx::query_as!(
            Line,
            "SELECT seq, CASE WHEN $2::text IS NULL OR type LIKE $2 THEN row_to_json(event)::text END AS json
               FROM roster.outbox AS event WHERE seq > $1 ORDER BY seq LIMIT $3",
            after,
            like,
            READ,
        );
        Ok(lines.fetch_all(&self.pool).await?)
    }

    /// Where the outbox begins (the highest number that is gone), and which stream it is.
    pub async fn outbox_floor(&self) -> Result<(i64, Uuid), StoreError> {
        let head =
            sqlx::query!("SELECT floor_seq, stream_id FROM roster.outbox_head").fetch_one(&self.pool).await?;
        Ok((head.floor_seq, head.stream_id))
    }

    /// Listens for new events; `None` where that cannot be.
    pub async fn doorbell(&self) -> Result<Option<Bell>, StoreError> {
        self.bell_of(DOORBELL).await
    }

    /// Begins a new stream by hand, as after the restore of a volume's snapshot, which no server can tell from its own past;
    /// whoever writes reads everything again now. Tells the stream's id.
    pub async fn new_stream(&self) -> Result<Uuid, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Before the head, as everywhere.
        sqlx::query!("UPDATE roster.watermarks SET next_full_at = now()").execute(&mut *transaction).await?;
        let head =
            sqlx::query!("UPDATE roster.outbox_head SET stream_id = gen_random_uuid() RETURNING stream_id")
                .fetch_one(&mut *transaction)
                .await?;
        ring(&mut transaction, None).await?;
        transaction.commit().await?;
        Ok(head.stream_id)
    }

    /// Compares the server with the one that wrote last. After a restore or a fail-over the outbox may lack events
    /// that consumers have seen: a new `stream_id` tells them, and full reads are due at once.
    pub async fn follow_history(&self) -> Result<(), StoreError> {
        // Looked at without a lock first: nearly always there is nothing to do. The timeline is that of the WAL, since a
        // server that was promoted names its old one as the checkpoint's for minutes; a standby writes no WAL.
        let server = sqlx::query!(
            r#"WITH server AS (
                   SELECT system_identifier,
                          CASE WHEN pg_is_in_recovery() THEN timeline_id
                               ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
                          END AS timeline_id
                     FROM pg_control_system(), pg_control_checkpoint())
               SELECT server.system_identifier AS "system!", server.timeline_id AS "timeline!",
                      (head.system_identifier, head.timeline_id)
                          IS DISTINCT FROM (server.system_identifier, server.timeline_id) AS "other!"
                 FROM roster.outbox_head AS head, server"#
        )
        .fetch_one(&self.pool)
        .await?;
        if !server.other {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        // Before the head, as everywhere.
        sqlx::query!("UPDATE roster.watermarks SET next_full_at = now()").execute(&mut *transaction).await?;
        let changed = sqlx::query!(
            r#"UPDATE roster.outbox_head AS head
                  SET system_identifier = $1,
                      timeline_id = $2,
                      stream_id = CASE WHEN head.system_identifier IS NULL THEN head.stream_id
                                       ELSE gen_random_uuid() END
                 FROM roster.outbox_head AS before
                WHERE (head.system_identifier, head.timeline_id) IS DISTINCT FROM ($1, $2)
               RETURNING before.system_identifier IS NOT NULL AS "rewound!""#,
            server.system,
            server.timeline,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(changed) = changed else { return Ok(()) };
        transaction.commit().await?;
        if changed.rewound {
            tracing::warn!(
                event = "stream.begun",
                "this is another PostgreSQL cluster or timeline than the one that was written last: a new stream of \
                 events begins, and everything is read again"
            );
        }
        Ok(())
    }
}
