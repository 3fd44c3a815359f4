//! `roster.rejected_records`: what could not be read, kept for a person to look at.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{Store, StoreError};
use crate::roster::{AccountId, Resource};

/// Longest text of a record that is kept.
const MOST_KEPT: usize = 64 << 10;

/// A record that could not be read.
#[derive(Clone)]
pub struct Rejection {
    /// Its id, where that can be read.
    pub id: Option<i64>,
    /// Its text.
    pub raw: String,
    /// Why, by field names.
    pub reason: String,
}

impl Rejection {
    /// The id where it can be read, so that there is one row a record; else a hash of the text.
    fn fingerprint(&self) -> String {
        self.id.map_or_else(
            || format!("xxh3:{:016x}", xxhash_rust::xxh3::xxh3_64(self.raw.as_bytes())),
            |id| id.to_string(),
        )
    }
}

impl Store {
    /// Ids of the account's rejected records.
    pub async fn rejected_ids(
        &self,
        account: AccountId,
        resource: Resource,
    ) -> Result<HashSet<i64>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT record_id AS "id!" FROM roster.rejected_records
                WHERE account_id = $1 AND resource = $2 AND record_id IS NOT NULL"#,
            account.0,
            resource.name(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Those of the rejections that are not on record, or not seen for an hour: a bad record that comes with each
    /// poll is not written with each poll.
    pub async fn rejection_news(
        &self,
        account: AccountId,
        resource: Resource,
        mut rejections: Vec<Rejection>,
    ) -> Result<Vec<Rejection>, StoreError> {
        let fingerprints: Vec<String> = rejections.iter().map(Rejection::fingerprint).collect();
        let recent = sqlx::query!(
            "SELECT fingerprint, error FROM roster.rejected_records
              WHERE account_id = $1 AND resource = $2 AND fingerprint = ANY($3)
                AND last_seen_at > now() - interval '1 hour'",
            account.0,
            resource.name(),
            &fingerprints,
        )
        .fetch_all(&self.pool)
        .await?;
        rejections.retain(|new| {
            !recent.iter().any(|old| old.fingerprint == new.fingerprint() && old.error == new.reason)
        });
        Ok(rejections)
    }
}

pub(super) async fn put(
    connection: &mut PgConnection,
    account: AccountId,
    resource: Resource,
    rejections: &[Rejection],
) -> Result<(), StoreError> {
    for rejection in rejections {
        let raw = rejection.raw.as_bytes();
        sqlx::query!(
            "INSERT INTO roster.rejected_records
                    (account_id, resource, fingerprint, record_id, raw, raw_size, error, rosterd_version,
                     first_seen_at, last_seen_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), now())
             ON CONFLICT (account_id, resource, fingerprint) DO UPDATE SET
                    (raw, raw_size, error, rosterd_version, last_seen_at) =
                    (EXCLUDED.raw, EXCLUDED.raw_size, EXCLUDED.error, EXCLUDED.rosterd_version,
                     EXCLUDED.last_seen_at)",
            account.0,
            resource.name(),
            rejection.fingerprint(),
            rejection.id,
            &raw[..raw.len().min(MOST_KEPT)],
            i64::try_from(raw.len()).unwrap_or(i64::MAX),
            rejection.reason,
            env!("CARGO_PKG_VERSION"),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn forgive(
    connection: &mut PgConnection,
    account: AccountId,
    resource: Resource,
    ids: &[i64],
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "DELETE FROM roster.rejected_records WHERE account_id = $1 AND resource = $2 AND record_id = ANY($3)",
        account.0,
        resource.name(),
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}
