//! What each mirrored table can do.

use std::collections::HashMap;
use std::future::Future;

use super::{Connections, Session, StoreError};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::roster::{AccountId, Mirrored, Record, Write};

/// As much of a row as tells whether it needs to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// [`crate::roster::Fetched::hash`] of the last write.
    pub hash: i64,
    /// Whether the row is a tombstone.
    pub deleted: bool,
}

/// A record's table.
pub trait Table: Record {
    /// Reads a few bytes a row, without a lock: pages without changes end here and write nothing at all.
    fn fingerprints(
        pool: &Connections,
        account: AccountId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, Fingerprint>, StoreError>> + Send;

    /// Reads whole rows. Within a page's transaction nobody else writes them: the account is locked.
    fn rows(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, Mirrored<Self>>, StoreError>> + Send;

    /// Writes rows in one statement.
    fn upsert(
        connection: &mut Session,
        account: AccountId,
        writes: &[Write<Self>],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes tombstones of live rows, each with its new version: the last values stay.
    fn bury(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
        versions: &[i64],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The rows as one JSON array by column name, for `json_populate_recordset`: it takes lists, money with all its
/// digits and `raw` as received, where bound arrays would flatten the lists.
#[expect(clippy::expect_used, reason = "string keys and finite values always make JSON")]
pub(super) fn to_json<R: Record>(writes: &[Write<R>]) -> String {
    let rows: Vec<Row<'_, R>> = writes.iter().map(Row).collect();
    serde_json::to_string(&rows).expect("rows are JSON")
}

struct Row<'a, R>(&'a Write<R>);

impl<R: Record> Serialize for Row<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Write { record, raw, hash, version, change: _ } = self.0;
        let mut row = serializer.serialize_map(None)?;
        row.serialize_entry("id", &record.id())?;
        for (name, value) in record.fields().into_iter().chain(record.quiet()) {
            row.serialize_entry(name, &value)?;
        }
        row.serialize_entry("raw", raw)?;
        row.serialize_entry("content_hash", hash)?;
        row.serialize_entry("version", version)?;
        row.end()
    }
}
