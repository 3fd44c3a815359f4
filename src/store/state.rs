//! What the daemon remembers between cycles: accounts, watermarks, cycles.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Fence, Store, StoreError};
use crate::roster::watermark::Watermark;
use crate::roster::{AccountId, Resource};

/// How far a list has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListState {
    /// `None` before the first complete read.
    pub watermark: Option<Watermark>,
    /// End of the last complete read, as recorded.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When everything is due to be read again.
    pub next_full_at: Option<DateTime<Utc>>,
}

/// What a complete read leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The new watermark.
    pub watermark: Watermark,
    /// When the read began, by our clock.
    pub attempted_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// For a full read: when the next one is due.
    pub next_full_at: Option<DateTime<Utc>>,
    /// Reads that found nothing since the last mark.
    pub idle_polls: i64,
}

/// A cycle as `roster.cycles` has it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are the columns, which carry their comments in the migrations")]
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

/// What the end of a cycle says of its account.
#[derive(Clone, Debug, Default)]
pub struct AccountEnd {
    /// Whether it was good.
    pub error: Option<String>,
    /// Whether everything was read.
    pub full: bool,
    /// The token's owner, where asked.
    pub owner: Option<(i64, Vec<String>)>,
    /// The company's name, where asked.
    pub name: Option<String>,
}

impl Store {
    /// How far each list of the account has been read.
    pub async fn list_states(&self, account: AccountId) -> Result<HashMap<Resource, ListState>, StoreError> {
        let rows = sqlx::query!(
            "SELECT resource, watermark, clock_offset_ms, last_success_at, next_full_at
               FROM roster.watermarks WHERE account_id = $1",
            account.0
        )
        .fetch_all(&self.pool)
        .await?;
        let by_name = |name: &str| Resource::ALL.into_iter().find(|resource| resource.name() == name);
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let offset = row.clock_offset_ms.map(TimeDelta::milliseconds);
                let state = ListState {
                    watermark: row.watermark.map(|at| Watermark { at, offset }),
                    last_success_at: row.last_success_at,
                    next_full_at: row.next_full_at,
                };
                Some((by_name(&row.resource)?, state))
            })
            .collect())
    }

    /// Forgets the last cycle's error after a good one that had nothing else to write; writes nothing where there
    /// is none.
    pub async fn clear_error(&self, fence: &Fence) -> Result<(), StoreError> {
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

    /// Whether anybody's pay is in the mirror.
    pub async fn holds_pay(&self) -> Result<bool, StoreError> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM roster.users
                               WHERE default_hourly_rate IS NOT NULL OR cost_rate IS NOT NULL)
                   OR EXISTS (SELECT FROM roster.user_assignments
                               WHERE hourly_rate IS NOT NULL OR budget IS NOT NULL) AS "holds!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.holds)
    }
}

pub(super) async fn mark(
    connection: &mut PgConnection,
    account: AccountId,
    resource: Resource,
    mark: &Mark,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO roster.watermarks AS w
                (account_id, resource, watermark, clock_offset_ms, last_attempt_at, last_success_at,
                 last_full_at, next_full_at, idle_polls)
         VALUES ($1, $2, $3, $4, $5, $6::timestamptz,
                 CASE WHEN $7::timestamptz IS NOT NULL THEN $6::timestamptz END, $7::timestamptz, $8)
         ON CONFLICT (account_id, resource) DO UPDATE SET
                (watermark, clock_offset_ms, last_attempt_at, last_success_at, last_full_at, next_full_at,
                 idle_polls) =
                (EXCLUDED.watermark, EXCLUDED.clock_offset_ms, EXCLUDED.last_attempt_at,
                 EXCLUDED.last_success_at, coalesce(EXCLUDED.last_full_at, w.last_full_at),
                 coalesce(EXCLUDED.next_full_at, w.next_full_at), w.idle_polls + EXCLUDED.idle_polls)",
        account.0,
        resource.name(),
        mark.watermark.at,
        mark.watermark.offset.map(|offset| offset.num_milliseconds()),
        mark.attempted_at,
        mark.finished_at,
        mark.next_full_at,
        mark.idle_polls,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn put_cycle(
    connection: &mut PgConnection,
    account: AccountId,
    cycle: &CycleRow,
) -> Result<(), StoreError> {
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
        account.0,
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
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn end_account(
    connection: &mut PgConnection,
    account: AccountId,
    end: &AccountEnd,
) -> Result<(), StoreError> {
    let (owner, access_roles) = end.owner.clone().unzip();
    sqlx::query!(
        "UPDATE roster.accounts
            SET last_error = $2,
                last_success_at = CASE WHEN $2::text IS NULL THEN now() ELSE last_success_at END,
                last_full_at = CASE WHEN $2::text IS NULL AND $3 THEN now() ELSE last_full_at END,
                user_id = coalesce($4, user_id),
                access_roles = coalesce($5, access_roles),
                name = coalesce($6, name)
          WHERE account_id = $1",
        account.0,
        end.error,
        end.full,
        owner,
        access_roles.as_deref(),
        end.name,
    )
    .execute(connection)
    .await?;
    Ok(())
}
