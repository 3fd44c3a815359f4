//! `roster.rejected_records`: records that could not be read or stored, kept for an administrator.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;

use super::database::Store;
use super::error::StoreError;
use super::lease::Fence;
use super::tx::AccountTx;
use crate::roster::{AccountId, Resource};

/// Bytes that are kept of a record that could not be read.
const MAX_RAW_BYTES: usize = 64 << 10;

/// A record that could not be read, or that PostgreSQL refused.
#[derive(Clone)]
pub struct RejectedRecord {
    /// Its id, if that can be read.
    pub id: Option<i64>,
    /// The user it belongs to, if that can be read.
    pub user_id: Option<i64>,
    pub raw: String,
    /// The error: names of fields, no values.
    pub reason: String,
    /// Whether PostgreSQL refused it. Such a record is kept whole, so that it can be tried again.
    pub refused_by_database: bool,
}

impl RejectedRecord {
    fn fingerprint(&self) -> String {
        fingerprint(self.id, &self.raw)
    }
}

/// The key of a rejected record: its id if that can be read, so that there is one row per record; otherwise a hash of
/// the text.
pub fn fingerprint(id: Option<i64>, raw: &str) -> String {
    id.map_or_else(
        || format!("xxh3:{:016x}", xxhash_rust::xxh3::xxh3_64(raw.as_bytes())),
        |id| id.to_string(),
    )
}

/// Which records of a page are rejected or absent according to the database.
#[derive(Clone, Debug, Default)]
pub struct KnownProblems {
    /// In `roster.rejected_records`.
    pub rejected: HashSet<i64>,
    /// In `roster.held_deletions` or `roster.missed_records`.
    pub missing: HashSet<i64>,
}

impl Store {
    /// Which of these records are rejected or absent according to the database; nearly always none.
    pub(crate) async fn known_problems(
        &self,
        account: AccountId,
        resource: Resource,
        ids: &[i64],
    ) -> Result<KnownProblems, StoreError> {
        let fingerprints: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            r#"SELECT true AS "rejected!", record_id AS "id!" FROM roster.rejected_records
                WHERE account_id = $1 AND resource = $2 AND fingerprint = ANY($4)
               UNION ALL
               SELECT false, record_id FROM roster.held_deletions
                WHERE account_id = $1 AND resource = $2 AND record_id = ANY($3)
               UNION ALL
               SELECT false, record_id FROM roster.missed_records
                WHERE account_id = $1 AND resource = $2 AND record_id = ANY($3)"#,
            account.0,
            resource.name(),
            ids,
            &fingerprints,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut known = KnownProblems::default();
        for row in rows {
            if row.rejected { &mut known.rejected } else { &mut known.missing }.insert(row.id);
        }
        Ok(known)
    }

    /// The texts of up to `limit` records that PostgreSQL refused, chosen at random.
    pub(crate) async fn refused_records(
        &self,
        account: AccountId,
        resource: Resource,
        limit: i64,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let texts = sqlx::query_scalar!(
            "SELECT raw FROM roster.rejected_records
              WHERE account_id = $1 AND resource = $2 AND refused_by_database ORDER BY random() LIMIT $3",
            account.0,
            resource.name(),
            limit,
        );
        Ok(texts.fetch_all(&self.pool).await?)
    }

    /// The id and `raw` of the live row of this list that was written last, without the rows in `except`.
    pub(crate) async fn latest_row(
        &self,
        account: AccountId,
        resource: Resource,
        except: &[i64],
    ) -> Result<Option<(i64, String)>, StoreError> {
        let sql = format!(
            "SELECT id, raw::text FROM roster.{} WHERE account_id = $1 AND id <> ALL ($2) AND deleted_at IS NULL
              ORDER BY synced_at DESC LIMIT 1",
            resource.name()
        );
        let row = sqlx::query_as(AssertSqlSafe(sql)).bind(account.0).bind(except);
        Ok(row.fetch_optional(&self.pool).await?)
    }

    /// Those of the rejections that must be written: this version of rosterd has not recorded them, or not within an
    /// hour. So a bad record that each poll returns is not written at each poll.
    pub(crate) async fn new_rejections(
        &self,
        account: AccountId,
        resource: Resource,
        mut rejections: Vec<RejectedRecord>,
    ) -> Result<Vec<RejectedRecord>, StoreError> {
        let fingerprints: Vec<String> = rejections.iter().map(RejectedRecord::fingerprint).collect();
        let recent = sqlx::query!(
            "SELECT fingerprint, error FROM roster.rejected_records
              WHERE account_id = $1 AND resource = $2 AND fingerprint = ANY($3) AND rosterd_version = $4
                AND last_seen_at > now() - interval '1 hour'",
            account.0,
            resource.name(),
            &fingerprints,
            env!("CARGO_PKG_VERSION"),
        )
        .fetch_all(&self.pool)
        .await?;
        let recent: HashSet<(String, String)> =
            recent.into_iter().map(|row| (row.fingerprint, row.error)).collect();
        rejections.retain(|new| !recent.contains(&(new.fingerprint(), new.reason.clone())));
        Ok(rejections)
    }

    /// Deletes the rejected records of a list that the last full read did not list any more. `is_listed` takes a
    /// record's id and fingerprint.
    pub(crate) async fn clear_unlisted_rejections(
        &self,
        fence: &Fence,
        resource: Resource,
        is_listed: impl Fn(Option<i64>, &str) -> bool,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query!(
            "SELECT record_id, fingerprint FROM roster.rejected_records WHERE account_id = $1 AND resource = $2",
            fence.account.0,
            resource.name(),
        );
        let rows = rows.fetch_all(&self.pool).await?.into_iter();
        let unlisted = rows.filter(|row| !is_listed(row.record_id, &row.fingerprint));
        let unlisted: Vec<String> = unlisted.map(|row| row.fingerprint).collect();
        if unlisted.is_empty() {
            return Ok(());
        }
        let mut page = self.begin(fence).await?;
        page.delete_rejections(resource, &unlisted).await?;
        page.commit().await
    }
}

impl AccountTx {
    /// Stores records that could not be read or that PostgreSQL refused.
    pub async fn reject(
        &mut self,
        resource: Resource,
        rejections: &[RejectedRecord],
    ) -> Result<(), StoreError> {
        for rejection in rejections {
            let raw = rejection.raw.as_bytes();
            sqlx::query!(
                "INSERT INTO roster.rejected_records
                        (account_id, resource, fingerprint, record_id, raw, raw_size, error, rosterd_version,
                         first_seen_at, last_seen_at, user_id, refused_by_database)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), now(), $9, $10)
                 ON CONFLICT (account_id, resource, fingerprint) DO UPDATE SET
                        (raw, raw_size, error, rosterd_version, last_seen_at, user_id, refused_by_database) =
                        (EXCLUDED.raw, EXCLUDED.raw_size, EXCLUDED.error, EXCLUDED.rosterd_version,
                         EXCLUDED.last_seen_at, EXCLUDED.user_id, EXCLUDED.refused_by_database)",
                self.account.0,
                resource.name(),
                rejection.fingerprint(),
                rejection.id,
                &raw[..if rejection.refused_by_database { raw.len() } else { raw.len().min(MAX_RAW_BYTES) }],
                i64::try_from(raw.len()).unwrap_or(i64::MAX),
                rejection.reason,
                env!("CARGO_PKG_VERSION"),
                rejection.user_id,
                rejection.refused_by_database,
            )
            .execute(&mut *self.transaction)
            .await?;
        }
        Ok(())
    }

    /// Deletes the rejections of records that have been stored since.
    pub(crate) async fn clear_rejections(
        &mut self,
        resource: Resource,
        ids: &[i64],
    ) -> Result<(), StoreError> {
        let fingerprints: Vec<String> = ids.iter().map(ToString::to_string).collect();
        self.delete_rejections(resource, &fingerprints).await
    }

    async fn delete_rejections(
        &mut self,
        resource: Resource,
        fingerprints: &[String],
    ) -> Result<(), StoreError> {
        if fingerprints.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "DELETE FROM roster.rejected_records
              WHERE account_id = $1 AND resource = $2 AND fingerprint = ANY($3)",
            self.account.0,
            resource.name(),
            fingerprints,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
