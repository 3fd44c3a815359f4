//! `roster.rejected_records`: what could not be read, kept for a person to look at.

use std::collections::HashSet;

use super::{Fence, Session, Store, StoreError};
use crate::roster::{AccountId, Resource};

/// Longest text that is kept of a record that could not be read.
const MOST_KEPT: usize = 64 << 10;

/// A record that could not be read, or that PostgreSQL refused.
#[derive(Clone)]
pub struct Rejection {
    /// Its id, where that can be read.
    pub id: Option<i64>,
    /// The user it belongs to, where that can be read.
    pub user_id: Option<i64>,
    /// Its text.
    pub raw: String,
    /// Why, by field names.
    pub reason: String,
    /// Whether PostgreSQL refused it: it is kept whole, to be tried again.
    pub refused_by_database: bool,
}

impl Rejection {
    fn fingerprint(&self) -> String {
        fingerprint(self.id, &self.raw)
    }
}

/// The id where it can be read, so that there is one row a record; else a hash of the text.
pub fn fingerprint(id: Option<i64>, raw: &str) -> String {
    id.map_or_else(
        || format!("xxh3:{:016x}", xxhash_rust::xxh3::xxh3_64(raw.as_bytes())),
        |id| id.to_string(),
    )
}

/// Which records of a page are on record as bad or as missing.
#[derive(Clone, Debug, Default)]
pub struct OnRecord {
    /// In `roster.rejected_records`.
    pub rejected: HashSet<i64>,
    /// In `roster.held_deletions` or `roster.missed_records`.
    pub missing: HashSet<i64>,
}

impl Store {
    /// Which of these records are on record; nearly always none.
    pub async fn on_record(
        &self,
        account: AccountId,
        resource: Resource,
        ids: &[i64],
    ) -> Result<OnRecord, StoreError> {
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
        let mut on_record = OnRecord::default();
        for row in rows {
            if row.rejected { &mut on_record.rejected } else { &mut on_record.missing }.insert(row.id);
        }
        Ok(on_record)
    }

    /// Forgets the rejected records of a list that a full read did not show any more: `shown` says which it did, by id
    /// and by fingerprint.
    pub async fn forget_rejections(
        &self,
        fence: &Fence,
        resource: Resource,
        shown: impl Fn(Option<i64>, &str) -> bool,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query!(
            "SELECT record_id, fingerprint FROM roster.rejected_records WHERE account_id = $1 AND resource = $2",
            fence.account.0,
            resource.name(),
        )
        .fetch_all(&self.pool)
        .await?;
        let gone: Vec<String> = rows
            .into_iter()
            .filter(|row| !shown(row.record_id, &row.fingerprint))
            .map(|row| row.fingerprint)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut page = self.begin(fence).await?;
        page.forget_rejections(resource, &gone).await?;
        page.commit().await
    }

    /// The texts of up to `most` records that PostgreSQL refused, chosen at random.
    pub async fn refused(
        &self,
        account: AccountId,
        resource: Resource,
        most: i64,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let texts = sqlx::query_scalar!(
            "SELECT raw FROM roster.rejected_records
              WHERE account_id = $1 AND resource = $2 AND refused_by_database ORDER BY random() LIMIT $3",
            account.0,
            resource.name(),
            most,
        );
        Ok(texts.fetch_all(&self.pool).await?)
    }

    /// The live row of this list that was written last, except these: its id and its `raw`.
    pub async fn known_good(
        &self,
        account: AccountId,
        resource: Resource,
        but: &[i64],
    ) -> Result<Option<(i64, String)>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT id AS "id!", raw::text AS "raw!"
                 FROM (SELECT id, raw
                         FROM (SELECT 'users' AS resource, account_id, id, raw, synced_at, deleted_at FROM roster.users
                               UNION ALL
                               SELECT 'user_assignments', account_id, id, raw, synced_at, deleted_at
                                 FROM roster.user_assignments
                               UNION ALL
                               SELECT 'billable_rates', account_id, id, raw, synced_at, deleted_at
                                 FROM roster.billable_rates
                               UNION ALL
                               SELECT 'cost_rates', account_id, id, raw, synced_at, deleted_at
                                 FROM roster.cost_rates) AS row
                        WHERE account_id = $1 AND resource = $2 AND id <> ALL($3) AND deleted_at IS NULL
                        ORDER BY synced_at DESC LIMIT 1) AS known"#,
            account.0,
            resource.name(),
            but,
        );
        Ok(row.fetch_optional(&self.pool).await?.map(|row| (row.id, row.raw)))
    }

    /// Those of the rejections that are not on record as this rosterd's, or not seen for an hour: a bad record that comes with each
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
}

pub(super) async fn put(
    connection: &mut Session,
    account: AccountId,
    resource: Resource,
    rejections: &[Rejection],
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
            account.0,
            resource.name(),
            rejection.fingerprint(),
            rejection.id,
            &raw[..if rejection.refused_by_database { raw.len() } else { raw.len().min(MOST_KEPT) }],
            i64::try_from(raw.len()).unwrap_or(i64::MAX),
            rejection.reason,
            env!("CARGO_PKG_VERSION"),
            rejection.user_id,
            rejection.refused_by_database,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn forget(
    connection: &mut Session,
    account: AccountId,
    resource: Resource,
    fingerprints: &[String],
) -> Result<(), StoreError> {
    if fingerprints.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "DELETE FROM roster.rejected_records
          WHERE account_id = $1 AND resource = $2 AND fingerprint = ANY($3)",
        account.0,
        resource.name(),
        fingerprints,
    )
    .execute(connection)
    .await?;
    Ok(())
}
