//! The statements that each mirrored table needs.

use std::collections::HashMap;
use std::future::Future;

use chrono::{DateTime, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::copy;
use super::error::StoreError;
use super::pool::Pool;
use super::session::Session;

use crate::roster::{AccountId, Change, MirrorRow, Record, Resource, RowWrite};

/// Enough of a row to decide whether its record has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDigest {
    /// [`crate::roster::Fetched::hash`] of the last write.
    pub hash: i64,
    pub deleted: bool,
}

/// Rows per statement. A page of 2,000 rows in one statement takes a dozen megabytes of text and is not faster.
pub(super) const ROWS_PER_STATEMENT: usize = 500;

pub trait MirrorTable: Record {
    /// Name with schema.
    const TABLE: &'static str;

    /// Reads a few bytes per row, without a lock. A page without changes needs nothing else and writes nothing.
    fn row_digests(
        pool: &Pool,
        account: AccountId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, RowDigest>, StoreError>> + Send;

    /// Reads whole rows. In an [`AccountTx`](crate::store::AccountTx) no other process writes them: the account is
    /// locked.
    fn rows(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, MirrorRow<Self>>, StoreError>> + Send;

    /// Copies the rows to the history, as versions that end at `now`. Rates have no history.
    fn end_versions(
        _connection: &mut Session,
        _account: AccountId,
        _ids: &[i64],
        _now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Updates rows in one statement. The versions of new events are valid from `now`.
    fn update(
        connection: &mut Session,
        account: AccountId,
        writes: &[&RowWrite<'_, Self>],
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Turns live rows into tombstones, each with its new version. The last values stay.
    fn tombstone(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
        versions: &[i64],
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Defines [`MirrorTable::TABLE`], [`MirrorTable::row_digests`] and [`MirrorTable::tombstone`] for a table: `query!` needs
/// each statement as literals. `$changes` are the columns that a tombstone changes in addition to the common ones; `$4` is
/// the time.
macro_rules! common_statements {
    ($table:literal, $changes:literal) => {
        const TABLE: &'static str = $table;

        async fn row_digests(
            pool: &Pool,
            account: AccountId,
            ids: &[i64],
        ) -> Result<HashMap<i64, RowDigest>, StoreError> {
            let rows = sqlx::query!(
                r#"SELECT id, content_hash, deleted_at IS NOT NULL AS "deleted!" FROM "#
                    + $table
                    + " WHERE account_id = $1 AND id = ANY($2)",
                account.0,
                ids,
            );
            let rows = rows.fetch_all(pool).await?.into_iter();
            Ok(rows.map(|row| (row.id, RowDigest { hash: row.content_hash, deleted: row.deleted })).collect())
        }

        async fn tombstone(
            connection: &mut Session,
            account: AccountId,
            ids: &[i64],
            versions: &[i64],
            now: DateTime<Utc>,
        ) -> Result<(), StoreError> {
            let updated = sqlx::query!(
                "UPDATE "
                    + $table
                    + " AS row SET deleted_at = $4, synced_at = $4"
                    + $changes
                    + ", version = gone.version
                        FROM UNNEST($2::bigint[], $3::bigint[]) AS gone (id, version)
                       WHERE row.account_id = $1 AND row.id = gone.id AND row.deleted_at IS NULL",
                account.0,
                ids,
                versions,
                now,
            );
            ensure_rows($table, ids.len(), updated.execute(connection).await?.rows_affected())
        }
    };
}
pub(super) use common_statements;

/// Adds rows. The versions of new events are valid from `now`.
pub(super) async fn insert<R: MirrorTable>(
    session: &mut Session,
    account: AccountId,
    now: DateTime<Utc>,
    writes: &[&RowWrite<'_, R>],
) -> Result<(), StoreError> {
    let Some(first) = writes.first() else { return Ok(()) };
    let has_history = Resource::LISTS.contains(&R::RESOURCE);
    let mut columns = vec!["account_id", "id", "raw", "version", "content_hash", "synced_at"];
    if has_history {
        columns.extend(["event_type", "valid_from", "occurred_at"]);
    }
    columns.extend(first.record.fields().into_iter().chain(first.record.quiet()).map(|(name, _)| name));
    copy::load(session, R::TABLE, &columns, writes, |write, row| {
        let RowWrite { record, fetched, version, change } = write;
        row.push(account.0)?;
        row.push(record.id())?;
        row.push_json(fetched.raw.get())?;
        row.push(version)?;
        row.push(fetched.hash)?;
        row.push(now)?;
        if has_history {
            row.push(change.as_ref().map(Change::event_type))?;
            row.push(now)?;
            row.push(change.as_ref().map(|change| change.occurred_at(now)))?;
        }
        record.fields().into_iter().chain(record.quiet()).try_for_each(|(_, value)| row.push_field(value))
    })
    .await
}

/// The rows as a JSON array of objects by column name, for `json_populate_recordset`. It takes lists, amounts with all
/// digits, and `raw` as received; bound arrays would flatten the lists.
#[expect(clippy::expect_used, reason = "string keys and finite values always make JSON")]
pub(super) fn to_json<R: Record>(writes: &[&RowWrite<'_, R>], now: DateTime<Utc>) -> String {
    let rows: Vec<Row<'_, R>> = writes.iter().map(|write| Row { write, now }).collect();
    serde_json::to_string(&rows).expect("rows are JSON")
}

struct Row<'a, R> {
    write: &'a RowWrite<'a, R>,
    now: DateTime<Utc>,
}

impl<R: Record> Serialize for Row<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RowWrite { record, fetched, version, change } = self.write;
        let mut row = serializer.serialize_map(None)?;
        row.serialize_entry("id", &record.id())?;
        for (name, value) in record.fields().into_iter().chain(record.quiet()) {
            row.serialize_entry(name, &value)?;
        }
        row.serialize_entry("raw", &fetched.raw)?;
        row.serialize_entry("content_hash", &fetched.hash)?;
        row.serialize_entry("version", version)?;
        if let Some(change) = change {
            row.serialize_entry("event_type", &change.event_type())?;
            row.serialize_entry("occurred_at", &change.occurred_at(self.now))?;
        }
        row.end()
    }
}
