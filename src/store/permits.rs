//! The row of each process, and the request budgets that all processes share.
//!
//! `roster.rate_permits` has one row for each request that may count at Harvest. **A row counts until its `free_at`**, so
//! a process that died keeps only the permits of its last requests. [`take`] counts and inserts rows under the lock of
//! the budget. It is an advisory lock, because a lock of a row would be written to the WAL. The rows are not written to
//! it either: after a crash of the server the table is empty, and then its marker row makes all processes wait until no
//! lost row could count.
//!
//! Each function is one short transaction without session state, so it works behind a pooler in transaction mode. If
//! [`take`] is cancelled, or its COMMIT has no answer, at worst some rows remain until their `free_at`.
//!
//! Durations are measured by the database's clock. That clock may be slewed but must not jump: a jump ahead would free
//! permits too early.

use std::time::Duration;

use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::pool::Pool;
use super::session::Transaction;
use crate::roster::permits::{PermitRequest, Returned, Taken};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Random, new in each process.
    pub id: Uuid,
    /// Host and process id, for messages.
    pub name: String,
}

impl Store {
    /// The salt of the budgets' names: the same for all processes of this database, different in other databases.
    pub async fn budget_salt(&self) -> Result<Uuid, StoreError> {
        let row = sqlx::query!("SELECT salt FROM roster.budget_salt").fetch_one(&self.pool).await?;
        Ok(row.salt)
    }
}

/// Keeps the process alive for `ttl`. Returns false if the process was unknown or its row had expired. Then it is
/// registered again, and may have lost its leases.
pub async fn heartbeat(pool: &Pool, replica: &Replica, ttl: Duration) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let row = sqlx::query!(
        r#"
        WITH before AS MATERIALIZED (
            SELECT expires_at > clock_timestamp() AS alive FROM roster.replicas WHERE id = $1
        ), registered AS (
            INSERT INTO roster.replicas (id, name, started_at, expires_at)
            VALUES ($1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3))
            ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
        ), dead_replicas AS (
            DELETE FROM roster.replicas WHERE expires_at < now() - interval '1 day' AND id <> $1
        ), unused_budgets AS ( -- such as the budget of an old token
            DELETE FROM roster.rate_budgets WHERE paused_until < now() - interval '1 day'
        )
        SELECT coalesce((SELECT alive FROM before), false) AS "was_alive!"
        "#,
        replica.id,
        replica.name,
        ttl.as_secs_f64(),
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(row.was_alive)
}

pub async fn unregister(pool: &Pool, replica: Uuid) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM roster.replicas WHERE id = $1", replica).execute(pool).await?;
    Ok(())
}

/// Takes as many permits as requested, or all that are free. Long reads leave permits to polls while this process polls
/// soon, or another one holds a lease.
pub async fn take(pool: &Pool, replica: Uuid, budget: &str, request: &PermitRequest) -> sqlx::Result<Taken> {
    let mut tx = pool.begin().await?;
    // A statement sees what was committed before it began, so the count must be a separate statement after the lock.
    // All processes wait for this lock, so the server ends the transaction of a process that stalls.
    sqlx::query!(
        r#"
        SELECT set_config('lock_timeout', '2s', true)                        AS "lock_timeout!",
               set_config('idle_in_transaction_session_timeout', '5s', true) AS "idle_timeout!",
               pg_advisory_xact_lock(hashtextextended('rosterd.permits/' || $1, 0)) AS "locked: ()"
        "#,
        budget,
    )
    .fetch_one(&mut *tx)
    .await?;
    apply(&mut tx, &request.returned).await?;
    let row = sqlx::query!(
        r#"
        WITH free AS (
            DELETE FROM roster.rate_permits WHERE budget = $1 AND free_at <= statement_timestamp()
        ), used AS (
            SELECT count(*) AS permits, count(*) FILTER (WHERE background) AS background, min(free_at) AS next
              FROM roster.rate_permits WHERE budget = $1 AND free_at > statement_timestamp()
        ), pause AS ( -- no row without the marker
            SELECT greatest(free_at, (SELECT paused_until FROM roster.rate_budgets WHERE name = $1)) AS until
              FROM roster.rate_permits WHERE id = '00000000-0000-0000-0000-000000000000'
        ), taken AS (
            INSERT INTO roster.rate_permits (id, budget, free_at, background)
            SELECT id, $1, statement_timestamp() + make_interval(secs => $2), $3::bigint IS NOT NULL
              FROM used, pause, unnest($4::uuid[]) WITH ORDINALITY AS new (id, nth)
             WHERE until <= statement_timestamp() AND nth <= $5 - permits
               AND ($3 IS NULL OR nth <= $3 - background OR NOT ($6 OR EXISTS (
                        SELECT FROM roster.accounts JOIN roster.replicas ON replicas.id = holder
                         WHERE holder <> $7 AND expires_at > statement_timestamp())))
            RETURNING id
        )
        SELECT (SELECT count(*) FROM taken)                                   AS "permits!",
               extract(epoch FROM until - statement_timestamp())::float8      AS pause,
               extract(epoch FROM used.next - statement_timestamp())::float8  AS next
          FROM used LEFT JOIN pause ON true
        "#,
        budget,
        request.hold.as_secs_f64(),
        request.background.map(i64::from),
        &request.ids,
        i64::from(request.of),
        request.polls_soon,
        replica,
    )
    .fetch_one(&mut *tx)
    .await?;
    if row.pause.is_none() {
        sqlx::query!(
            "INSERT INTO roster.rate_permits (id, budget, free_at, background)
             VALUES ($1, '', clock_timestamp() + make_interval(secs => $2), false) ON CONFLICT DO NOTHING",
            Uuid::nil(),
            request.hold.as_secs_f64(),
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    let span = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
    let permits = usize::try_from(row.permits).unwrap_or_default();
    Ok(Taken { permits, pause: row.pause.map_or(request.hold, span), next_free: row.next.map(span) })
}

/// Records that permits were returned, and deletes those of budgets that are not used any more. The heartbeat cannot do
/// that: a standby server would report the unlogged table instead of being read-only.
pub async fn give_back(pool: &Pool, returned: &Returned) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    apply(&mut tx, returned).await?;
    sqlx::query!(
        "DELETE FROM roster.rate_permits WHERE free_at < now() - interval '1 day' AND id <> $1",
        Uuid::nil()
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

async fn apply(tx: &mut Transaction, returned: &Returned) -> sqlx::Result<()> {
    if returned.answered.is_empty() && returned.unused.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        WITH unused AS (DELETE FROM roster.rate_permits WHERE id = ANY ($1))
        UPDATE roster.rate_permits SET free_at = clock_timestamp() + make_interval(secs => free_in)
          FROM unnest($2::uuid[], $3::float8[]) AS answered (answered_id, free_in) WHERE id = answered_id
        "#,
        &returned.unused,
        &returned.answered,
        &returned.free_in,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Pauses the budget for all processes after a 429.
pub async fn pause(pool: &Pool, budget: &str, pause: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO roster.rate_budgets AS budget (name, paused_until)
         VALUES ($1, clock_timestamp() + make_interval(secs => $2))
         ON CONFLICT (name) DO UPDATE SET paused_until = greatest(budget.paused_until, excluded.paused_until)",
        budget,
        pause.as_secs_f64(),
    )
    .execute(pool)
    .await?;
    Ok(())
}
