//! `roster.billable_rates`, `roster.cost_rates`, and the users whose rates are due.
//!
//! A user's rates are due if the user's row was written, or a full read ended, after they were last read. A changed
//! rate does not change the user's `updated_at`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::database::Store;
use super::error::StoreError;
use super::session::Session;
use crate::roster::{AbsentRecord, AbsentState, AccountId, Resource};

#[derive(Clone, Debug, Default)]
pub struct RateIds {
    pub billable: Vec<i64>,
    pub cost: Vec<i64>,
}

/// Live rates of one kind that are absent from their users' lists according to the database.
#[derive(Clone, Debug, Default)]
pub struct AbsentRates {
    /// Those that may be looked up.
    pub candidates: Vec<AbsentRecord>,
    /// How many absent rates have no decision, including those that may not be looked up yet.
    pub undecided: usize,
    pub live: u64,
}

#[derive(Clone, Debug)]
pub struct RatesDue {
    /// Ids of the users, at most as many as requested.
    pub users: Vec<i64>,
    /// When the oldest of them were read; the Unix epoch if they were never read, `None` if no user is due.
    pub oldest_read: Option<DateTime<Utc>>,
    pub all: u64,
    /// The time by the database's clock, to be passed to [`Store::record_rates_read`].
    pub as_of: DateTime<Utc>,
}

pub(super) async fn live_ids(
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
    pub(crate) async fn rates_of(&self, account: AccountId, users: &[i64]) -> Result<RateIds, StoreError> {
        live_ids(&mut *self.pool.begin().await?, account, users).await
    }

    /// At most `limit` users whose rates are due, without those in `except`. Users whose rates were never read come first.
    pub(crate) async fn rates_due(
        &self,
        account: AccountId,
        except: &[i64],
        limit: i64,
    ) -> Result<RatesDue, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT owner.id, had.read_at AS "read_at?", count(*) OVER () AS "all!", now() AS "as_of!"
                 FROM roster.users AS owner
                 LEFT JOIN roster.rate_reads AS had
                   ON (had.account_id, had.user_id) = (owner.account_id, owner.id)
                 LEFT JOIN roster.watermarks AS list
                   ON (list.account_id, list.resource) = (owner.account_id, 'users')
                WHERE owner.account_id = $1 AND owner.deleted_at IS NULL AND owner.id <> ALL($3)
                  AND (had.read_at IS NULL OR had.read_at < greatest(owner.synced_at, list.last_full_at))
                ORDER BY had.read_at NULLS FIRST, owner.id
                LIMIT $2"#,
            account.0,
            limit,
            except,
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

    /// The absent rates by kind. `before`: only rates that were found absent before then may be looked up, or whose
    /// deletion was accepted.
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
            let of_kind = || rows.iter().filter(|row| row.resource == resource.name());
            let ids: Vec<i64> = of_kind().map(|row| row.id).collect();
            let ripe: HashSet<i64> = of_kind().filter(|row| row.ripe).map(|row| row.id).collect();
            let mut candidates = self.candidates(account, resource, &ids, again_after).await?;
            if candidates.is_empty() {
                continue;
            }
            let is_undecided =
                |it: &&AbsentRecord| matches!(it.state, AbsentState::Undecided | AbsentState::Held(_));
            let undecided = candidates.iter().filter(is_undecided).count();
            candidates.retain(|it| it.state == AbsentState::Accepted || ripe.contains(&it.id));
            let live = self.live_rates(account, resource).await?;
            absent.insert(resource, AbsentRates { candidates, undecided, live });
        }
        Ok(absent)
    }

    pub(crate) async fn live_rates(&self, account: AccountId, resource: Resource) -> Result<u64, StoreError> {
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

    /// Records that a user's rates have been read.
    pub(crate) async fn record_rates_read(
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
