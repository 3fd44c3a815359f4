//! What the daemon keeps between cycles: accounts, watermarks, cycles.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::lease::Fence;
use super::tx::AccountTx;
use crate::roster::watermark::Watermark;
use crate::roster::{ADMINISTRATOR, AccountId, Company, Resource};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListState {
    /// `None` before the first complete read.
    pub watermark: Option<Watermark>,
    /// End of the last complete read.
    pub last_success_at: Option<DateTime<Utc>>,
    pub next_full_at: Option<DateTime<Utc>>,
    /// Harvest's total and the expected total, if the last full read could not explain their difference.
    pub unexplained: Option<(u64, u64)>,
    /// Another version of rosterd rejected some records. This version may be able to read them.
    pub has_old_rejections: bool,
    /// PostgreSQL refused some records. It may accept them now.
    pub has_refused: bool,
}

#[derive(Clone, Debug, Default)]
pub struct AccountState {
    pub lists: HashMap<Resource, ListState>,
    /// The token's owner at the last successful full read.
    pub owner: Option<Owner>,
    /// The company at the last successful full read.
    pub company: Company,
}

impl AccountState {
    /// The state of this list; the default before its first read.
    pub fn list(&self, resource: Resource) -> ListState {
        self.lists.get(&resource).copied().unwrap_or_default()
    }

    /// Whether the token's owner was an administrator at the last successful full read.
    pub(crate) fn is_administrator(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.access_roles.iter().any(|role| role == ADMINISTRATOR))
    }
}

#[derive(Clone, Debug)]
pub struct Owner {
    pub id: i64,
    /// Harvest's access roles, which decide what the token can read.
    pub access_roles: Vec<String>,
}

/// What the end of a complete read changes at its list.
#[derive(Clone, Copy, Debug)]
pub struct WatermarkUpdate {
    pub watermark: Watermark,
    /// When the read began, by this machine's clock.
    pub attempted_at: DateTime<Utc>,
    /// When the read ended, by this machine's clock.
    pub finished_at: DateTime<Utc>,
    /// Reads without a change since the last update.
    pub idle_polls: i64,
}

#[derive(Clone, Debug)]
// The fields are the columns, which have comments in the migrations.
pub struct CycleRow {
    pub id: Uuid,
    pub mode: &'static str,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub outcome: Option<&'static str>,
    pub requests: i64,
    pub users_seen: i64,
    pub users_changed: i64,
    pub assignments_seen: i64,
    pub assignments_changed: i64,
    pub events: i64,
    pub error: Option<String>,
}

/// What the end of a cycle changes at its account.
#[derive(Clone, Debug, Default)]
pub struct AccountUpdate {
    /// The cycle's error; `None` if the cycle succeeded.
    pub error: Option<String>,
    /// When the next full read is due; `None` for no change.
    pub next_full_at: Option<DateTime<Utc>>,
    /// Whether a full read ended. Absent records may be left to look up.
    pub full: bool,
    pub owner: Option<Owner>,
    pub company: Company,
}

impl Store {
    pub async fn account_state(&self, account: AccountId) -> Result<AccountState, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT list.resource, list.watermark, list.clock_offset_ms, list.last_success_at, list.next_full_at,
                      list.unexplained_total, list.unexplained_expected,
                      EXISTS (SELECT FROM roster.rejected_records AS bad
                               WHERE (bad.account_id, bad.resource) = (list.account_id, list.resource)
                                 AND bad.rosterd_version <> $2) AS "has_old_rejections!",
                      EXISTS (SELECT FROM roster.rejected_records AS bad
                               WHERE (bad.account_id, bad.resource) = (list.account_id, list.resource)
                                 AND bad.refused_by_database) AS "has_refused!"
                 FROM roster.watermarks AS list WHERE list.account_id = $1"#,
            account.0,
            env!("CARGO_PKG_VERSION"),
        )
        .fetch_all(&self.pool)
        .await?;
        let row = sqlx::query!(
            "SELECT token_user_id, access_roles, name, base_uri FROM roster.accounts WHERE account_id = $1",
            account.0
        )
        .fetch_optional(&self.pool)
        .await?;
        let (owner, company) = row.map_or_else(Default::default, |row| {
            let access_roles = row.access_roles.unwrap_or_default();
            let owner = row.token_user_id.map(|id| Owner { id, access_roles });
            (owner, Company { name: row.name, base_uri: row.base_uri })
        });
        let by_name = |name: &str| Resource::LISTS.into_iter().find(|resource| resource.name() == name);
        let lists = rows.into_iter().filter_map(|row| {
            let offset = row.clock_offset_ms.map(TimeDelta::milliseconds);
            let state = ListState {
                watermark: row.watermark.map(|at| Watermark { at, offset }),
                last_success_at: row.last_success_at,
                next_full_at: row.next_full_at,
                unexplained: row
                    .unexplained_total
                    .zip(row.unexplained_expected)
                    .map(|(total, expected)| (total.unsigned_abs(), expected.unsigned_abs())),
                has_old_rejections: row.has_old_rejections,
                has_refused: row.has_refused,
            };
            Some((by_name(&row.resource)?, state))
        });
        Ok(AccountState { lists: lists.collect(), owner, company })
    }

    /// Stores, or clears, a total that a full read could not explain.
    pub(crate) async fn set_unexplained(
        &self,
        fence: &Fence,
        resource: Resource,
        unexplained: Option<(u64, u64)>,
    ) -> Result<(), StoreError> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (total, expected) = unexplained.map(|(a, b)| (number(a), number(b))).unzip();
        sqlx::query!(
            "UPDATE roster.watermarks AS list SET unexplained_total = $4, unexplained_expected = $5
               FROM roster.accounts AS account
              WHERE list.account_id = $1 AND list.resource = $3
                AND account.account_id = $1 AND account.epoch = $2
                AND (list.unexplained_total, list.unexplained_expected) IS DISTINCT FROM ($4, $5)",
            fence.account.0,
            fence.epoch,
            resource.name(),
            total,
            expected,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Clears the last cycle's error after a successful cycle that has nothing else to write. Writes nothing if there
    /// is no error.
    pub(crate) async fn clear_error(&self, fence: &Fence) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.accounts SET last_error = NULL
              WHERE account_id = $1 AND epoch = $2 AND last_error IS NOT NULL",
            fence.account.0,
            fence.epoch,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Whether the mirror or its history holds pay data.
    pub async fn has_pay_data(&self) -> Result<bool, StoreError> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM roster.users
                               WHERE default_hourly_rate IS NOT NULL OR cost_rate IS NOT NULL)
                   OR EXISTS (SELECT FROM roster.user_assignments
                               WHERE hourly_rate IS NOT NULL OR budget IS NOT NULL)
                   OR EXISTS (SELECT FROM roster.user_history
                               WHERE default_hourly_rate IS NOT NULL OR cost_rate IS NOT NULL)
                   OR EXISTS (SELECT FROM roster.user_assignment_history
                               WHERE hourly_rate IS NOT NULL OR budget IS NOT NULL)
                   OR EXISTS (SELECT FROM roster.billable_rates WHERE amount IS NOT NULL)
                   OR EXISTS (SELECT FROM roster.cost_rates WHERE amount IS NOT NULL) AS "holds!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.holds)
    }
}

impl AccountTx {
    /// Moves the watermark; only with the last page of a complete read.
    pub(crate) async fn set_watermark(
        &mut self,
        resource: Resource,
        update: &WatermarkUpdate,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO roster.watermarks AS w
                    (account_id, resource, watermark, clock_offset_ms, last_attempt_at, last_success_at, idle_polls)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (account_id, resource) DO UPDATE SET
                    (watermark, clock_offset_ms, last_attempt_at, last_success_at, idle_polls) =
                    (EXCLUDED.watermark, EXCLUDED.clock_offset_ms, EXCLUDED.last_attempt_at,
                     EXCLUDED.last_success_at, w.idle_polls + EXCLUDED.idle_polls)",
            self.account.0,
            resource.name(),
            update.watermark.at,
            update.watermark.offset.map(|offset| offset.num_milliseconds()),
            update.attempted_at,
            update.finished_at,
            update.idle_polls,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    pub(crate) async fn record_cycle(&mut self, cycle: &CycleRow) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO roster.cycles
                    (id, account_id, mode, started_at, finished_at, outcome, requests, users_seen, users_changed,
                     assignments_seen, assignments_changed, events, error)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (id) DO UPDATE SET
                    (mode, finished_at, outcome, requests, users_seen, users_changed, assignments_seen,
                     assignments_changed, events, error) =
                    (EXCLUDED.mode, EXCLUDED.finished_at, EXCLUDED.outcome, EXCLUDED.requests,
                     EXCLUDED.users_seen, EXCLUDED.users_changed, EXCLUDED.assignments_seen,
                     EXCLUDED.assignments_changed, EXCLUDED.events, EXCLUDED.error)",
            cycle.id,
            self.account.0,
            cycle.mode,
            cycle.started_at,
            cycle.finished_at,
            cycle.outcome,
            cycle.requests,
            cycle.users_seen,
            cycle.users_changed,
            cycle.assignments_seen,
            cycle.assignments_changed,
            cycle.events,
            cycle.error,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Records at the account how its cycle ended.
    pub(crate) async fn record_cycle_end(&mut self, end: &AccountUpdate) -> Result<(), StoreError> {
        let (owner, access_roles) = end.owner.clone().map(|owner| (owner.id, owner.access_roles)).unzip();
        if end.next_full_at.is_some() {
            sqlx::query!(
                "UPDATE roster.watermarks
                    SET next_full_at = $2, last_full_at = CASE WHEN $3 THEN now() ELSE last_full_at END
                  WHERE account_id = $1",
                self.account.0,
                end.next_full_at,
                end.full,
            )
            .execute(&mut *self.transaction)
            .await?;
        }
        sqlx::query!(
            "UPDATE roster.accounts AS account
                SET last_error = $2,
                    last_success_at = CASE WHEN $2::text IS NULL THEN now() ELSE last_success_at END,
                    last_full_at = CASE WHEN $2::text IS NULL AND $3 THEN now() ELSE last_full_at END,
                    -- From the end of the first full read on, the history is complete.
                    first_full_at = coalesce(first_full_at, first.read_at),
                    history_since = CASE WHEN first_full_at IS NULL THEN coalesce(first.read_at, history_since)
                                         ELSE history_since END,
                    token_user_id = coalesce($4, token_user_id),
                    access_roles = coalesce($5, access_roles),
                    name = coalesce($6, name),
                    base_uri = coalesce($7, base_uri)
               FROM (SELECT CASE WHEN $2::text IS NULL AND $3 THEN clock_timestamp() END AS read_at) AS first
              WHERE account_id = $1",
            self.account.0,
            end.error,
            end.full,
            owner,
            access_roles.as_deref(),
            end.company.name,
            end.company.base_uri,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
