//! `roster.billable_rates`, `roster.cost_rates`, and whose are due to be read: those of a person who is new, has
//! changed since, or was not asked for since the last full read (a rate moves nobody's `updated_at`).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::error::ensure_rows;
use super::table::{Fingerprint, Table, to_json};
use super::{Connections, Session, Store, StoreError};
use crate::roster::{AccountId, BillableRate, Candidate, CostRate, Mirrored, Resource, Standing, Write};

/// The same for both tables; `query!` wants each statement to the letter.
macro_rules! rates {
    ($record:ident, $table:literal, $fingerprints:literal, $rows:literal, $upsert:literal, $bury:literal) => {
        impl Table for $record {
            async fn fingerprints(
                pool: &Connections,
                account: AccountId,
                ids: &[i64],
            ) -> Result<HashMap<i64, Fingerprint>, StoreError> {
                let rows = sqlx::query!($fingerprints, account.0, ids).fetch_all(pool).await?;
                let known = rows
                    .into_iter()
                    .map(|r| (r.id, Fingerprint { hash: r.content_hash, deleted: r.deleted }));
                Ok(known.collect())
            }

            async fn rows(
                connection: &mut Session,
                account: AccountId,
                ids: &[i64],
            ) -> Result<HashMap<i64, Mirrored<Self>>, StoreError> {
                let rows = sqlx::query!($rows, account.0, ids).fetch_all(connection).await?;
                let mirrored = rows.into_iter().map(|r| {
                    let record = Self {
                        id: r.id,
                        user_id: r.user_id.into(),
                        amount: r.amount.into(),
                        start_date: r.start_date.into(),
                        end_date: r.end_date.into(),
                        created_at: r.created_at.into(),
                        updated_at: r.updated_at.into(),
                    };
                    (r.id, Mirrored { record, version: r.version, hash: r.content_hash, deleted: r.deleted })
                });
                Ok(mirrored.collect())
            }

            async fn upsert(
                connection: &mut Session,
                account: AccountId,
                writes: &[Write<Self>],
            ) -> Result<(), StoreError> {
                let written = sqlx::query!($upsert, account.0, to_json(writes)).execute(connection).await?;
                ensure_rows($table, writes.len(), written.rows_affected())
            }

            async fn bury(
                connection: &mut Session,
                account: AccountId,
                ids: &[i64],
                versions: &[i64],
            ) -> Result<(), StoreError> {
                let buried = sqlx::query!($bury, account.0, ids, versions).execute(connection).await?;
                ensure_rows($table, ids.len(), buried.rows_affected())
            }
        }
    };
}

rates!(
    BillableRate,
    "roster.billable_rates",
    r#"SELECT id, content_hash, deleted_at IS NOT NULL AS "deleted!"
         FROM roster.billable_rates WHERE account_id = $1 AND id = ANY($2)"#,
    r#"SELECT id, user_id, amount, start_date, end_date, created_at, updated_at, version, content_hash,
              deleted_at IS NOT NULL AS "deleted!"
         FROM roster.billable_rates WHERE account_id = $1 AND id = ANY($2)"#,
    "INSERT INTO roster.billable_rates
            (account_id, id, user_id, amount, start_date, end_date, created_at, updated_at, raw, version,
             content_hash, synced_at)
     SELECT $1, id, user_id, amount, start_date, end_date, created_at, updated_at, raw, version, content_hash,
            now()
       FROM json_populate_recordset(NULL::roster.billable_rates, $2::text::json)
     ON CONFLICT (account_id, id) DO UPDATE SET
            (user_id, amount, start_date, end_date, created_at, updated_at, raw, version, content_hash,
             synced_at, deleted_at) =
            (EXCLUDED.user_id, EXCLUDED.amount, EXCLUDED.start_date, EXCLUDED.end_date, EXCLUDED.created_at,
             EXCLUDED.updated_at, EXCLUDED.raw, EXCLUDED.version, EXCLUDED.content_hash, EXCLUDED.synced_at,
             NULL)",
    "UPDATE roster.billable_rates AS row SET deleted_at = now(), version = gone.version, synced_at = now()
       FROM UNNEST($2::bigint[], $3::bigint[]) AS gone (id, version)
      WHERE row.account_id = $1 AND row.id = gone.id AND row.deleted_at IS NULL"
);

rates!(
    CostRate,
    "roster.cost_rates",
    r#"SELECT id, content_hash, deleted_at IS NOT NULL AS "deleted!"
         FROM roster.cost_rates WHERE account_id = $1 AND id = ANY($2)"#,
    r#"SELECT id, user_id, amount, start_date, end_date, created_at, updated_at, version, content_hash,
              deleted_at IS NOT NULL AS "deleted!"
         FROM roster.cost_rates WHERE account_id = $1 AND id = ANY($2)"#,
    "INSERT INTO roster.cost_rates
            (account_id, id, user_id, amount, start_date, end_date, created_at, updated_at, raw, version,
             content_hash, synced_at)
     SELECT $1, id, user_id, amount, start_date, end_date, created_at, updated_at, raw, version, content_hash,
            now()
       FROM json_populate_recordset(NULL::roster.cost_rates, $2::text::json)
     ON CONFLICT (account_id, id) DO UPDATE SET
            (user_id, amount, start_date, end_date, created_at, updated_at, raw, version, content_hash,
             synced_at, deleted_at) =
            (EXCLUDED.user_id, EXCLUDED.amount, EXCLUDED.start_date, EXCLUDED.end_date, EXCLUDED.created_at,
             EXCLUDED.updated_at, EXCLUDED.raw, EXCLUDED.version, EXCLUDED.content_hash, EXCLUDED.synced_at,
             NULL)",
    "UPDATE roster.cost_rates AS row SET deleted_at = now(), version = gone.version, synced_at = now()
       FROM UNNEST($2::bigint[], $3::bigint[]) AS gone (id, version)
      WHERE row.account_id = $1 AND row.id = gone.id AND row.deleted_at IS NULL"
);

/// Ids of the live rates of some people.
#[derive(Clone, Debug, Default)]
pub struct RateIds {
    /// In `roster.billable_rates`.
    pub billable: Vec<i64>,
    /// In `roster.cost_rates`.
    pub cost: Vec<i64>,
}

/// Live rates of one kind that are on record as absent from their users' lists.
#[derive(Clone, Debug, Default)]
pub struct AbsentRates {
    /// Those that may be asked for.
    pub candidates: Vec<Candidate>,
    /// How many wait for no person's decision, those that may not be asked for yet included.
    pub undecided: usize,
    /// Live rates of the kind.
    pub live: u64,
}

/// Whose rates are due, and as of when.
#[derive(Clone, Debug)]
pub struct RatesDue {
    /// The people, by id.
    pub users: Vec<i64>,
    /// When the rates that were not read for the longest time were read; `None` if no user is due.
    pub oldest_read: Option<DateTime<Utc>>,
    /// How many there are in all.
    pub all: u64,
    /// The database's clock: what is read from here on counts as read then.
    pub as_of: DateTime<Utc>,
}

/// The live rates of these people.
pub(super) async fn of(
    connection: &mut Session,
    account: AccountId,
    users: &[i64],
) -> Result<RateIds, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT true AS "billable!", id AS "id!" FROM roster.billable_rates
            WHERE account_id = $1 AND user_id = ANY($2) AND deleted_at IS NULL
           UNION ALL
           SELECT false, id FROM roster.cost_rates
            WHERE account_id = $1 AND user_id = ANY($2) AND deleted_at IS NULL"#,
        account.0,
        users,
    )
    .fetch_all(connection)
    .await?;
    let (billable, cost): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.billable);
    let ids = |rows: Vec<_>, id: fn(_) -> i64| rows.into_iter().map(id).collect();
    Ok(RateIds { billable: ids(billable, |row| row.id), cost: ids(cost, |row| row.id) })
}

impl Store {
    /// The live rates of these people.
    pub async fn rates_of(&self, account: AccountId, users: &[i64]) -> Result<RateIds, StoreError> {
        of(&mut *self.pool.begin().await?, account, users).await
    }

    /// People whose rates are due, but for some, those never asked for first.
    pub async fn rates_due(
        &self,
        account: AccountId,
        but: &[i64],
        most: i64,
    ) -> Result<RatesDue, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT person.id, had.read_at AS "read_at?", count(*) OVER () AS "all!", now() AS "as_of!"
                 FROM roster.users AS person
                 LEFT JOIN roster.rate_reads AS had
                   ON (had.account_id, had.user_id) = (person.account_id, person.id)
                 LEFT JOIN roster.watermarks AS list
                   ON (list.account_id, list.resource) = (person.account_id, 'users')
                WHERE person.account_id = $1 AND person.deleted_at IS NULL AND person.id <> ALL($3)
                  AND (had.read_at IS NULL OR had.read_at < greatest(person.synced_at, list.last_full_at))
                ORDER BY had.read_at NULLS FIRST, person.id
                LIMIT $2"#,
            account.0,
            most,
            but,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(RatesDue {
            oldest_read: rows.first().map(|row| row.read_at.unwrap_or_default()),
            all: rows.first().map_or(0, |row| row.all.unsigned_abs()),
            as_of: rows.first().map_or_else(DateTime::default, |row| row.as_of),
            users: rows.into_iter().map(|row| row.id).collect(),
        })
    }

    /// What is on record as absent, by kind. `before`: only what was found absent before then may be asked for, as a
    /// person may accept at any time.
    pub async fn absent_rates(
        &self,
        account: AccountId,
        again_after: TimeDelta,
        before: Option<DateTime<Utc>>,
    ) -> Result<HashMap<Resource, AbsentRates>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT resource AS "resource!", record_id AS "id!",
                      ($2::timestamptz IS NULL OR min(since) < $2) AS "ripe!"
                 FROM (SELECT resource, record_id, missed_at AS since FROM roster.missed_records
                        WHERE account_id = $1
                       UNION ALL
                       SELECT resource, record_id, found_at FROM roster.held_deletions
                        WHERE account_id = $1) AS absent
                WHERE resource IN ('billable_rates', 'cost_rates')
                GROUP BY resource, record_id"#,
            account.0,
            before,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut absent = HashMap::new();
        for resource in Resource::RATES {
            let on_record = || rows.iter().filter(|row| row.resource == resource.name());
            let ids: Vec<i64> = on_record().map(|row| row.id).collect();
            let ripe: HashSet<i64> = on_record().filter(|row| row.ripe).map(|row| row.id).collect();
            let mut candidates = self.candidates(account, resource, &ids, again_after).await?;
            if candidates.is_empty() {
                continue;
            }
            let is_undecided = |it: &&Candidate| matches!(it.standing, Standing::Free | Standing::Held(_));
            let undecided = candidates.iter().filter(is_undecided).count();
            candidates.retain(|it| it.standing == Standing::Accepted || ripe.contains(&it.id));
            let live = self.live_rates(account, resource).await?;
            absent.insert(resource, AbsentRates { candidates, undecided, live });
        }
        Ok(absent)
    }

    /// How many live rates of a kind there are.
    pub async fn live_rates(&self, account: AccountId, resource: Resource) -> Result<u64, StoreError> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM roster.billable_rates WHERE account_id = $1 AND deleted_at IS NULL)
                          AS "billable!",
                      (SELECT count(*) FROM roster.cost_rates WHERE account_id = $1 AND deleted_at IS NULL)
                          AS "cost!""#,
            account.0,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(if resource == Resource::CostRates { row.cost } else { row.billable }.unsigned_abs())
    }

    /// Notes that a person's rates have been read.
    pub async fn rates_read(
        &self,
        account: AccountId,
        user: i64,
        as_of: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO roster.rate_reads (account_id, user_id, read_at) VALUES ($1, $2, $3)
             ON CONFLICT (account_id, user_id) DO UPDATE SET read_at = EXCLUDED.read_at",
            account.0,
            user,
            as_of,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
