//! The row of each process, and the budget of requests that all processes share.
//!
//! `roster.permits` holds chunks of permits. **A chunk counts for as long as its row is there**: a taker
//! first deletes the rows whose `free_at` has passed and then takes what the remaining rows leave, under a
//! lock of the budget. Whoever finds its row at a heartbeat therefore still owns the chunk, however late it
//! comes: nobody can have counted it as free. Only taking adds rows, so only taking needs the lock.
//!
//! Every function is one short transaction and uses nothing of a session: all works through a pooler that
//! gives each transaction another connection. A function that is cancelled, or whose COMMIT is in doubt,
//! leaves at worst a chunk that nobody prolongs and that frees itself.
//!
//! Spans are measured by the database's clock. It may be slewed but not set: one that jumps ahead frees the
//! chunks of a process that died a moment ago too early.

use std::time::Duration;

use uuid::Uuid;

use super::{Connections, Store, StoreError};

/// Under this name a budget's pause is kept: as a chunk that is all of the budget.
const NOBODY: Uuid = Uuid::nil();

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Made anew by each process.
    pub id: Uuid,
    /// Host and process id, for people.
    pub name: String,
}

/// Permits of a budget that a process holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its row.
    pub id: i64,
    /// How many.
    pub permits: u32,
}

/// What a heartbeat found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// False when the process was unknown or counted as dead: it is registered (anew) and may have lost
    /// what it held.
    pub was_alive: bool,
    /// The chunks that are still its own, by id.
    pub kept: Vec<i64>,
}

/// A wish for permits.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Of which budget.
    pub budget: &'a str,
    /// For which process.
    pub replica: Uuid,
    /// At most so many.
    pub permits: u32,
    /// What the whole budget amounts to.
    pub of: u32,
    /// How long the chunk is kept for a process that is never heard of again.
    pub hold: Duration,
}

impl Store {
    /// What the names of budgets are salted with: the same for all processes behind this database, another elsewhere.
    pub async fn budget_salt(&self) -> Result<Uuid, StoreError> {
        let row = sqlx::query!("SELECT salt FROM roster.budget_salt").fetch_one(&self.pool).await?;
        Ok(row.salt)
    }
}

/// Says that the process lives, for `ttl`, and prolongs its `chunks` by `hold`: one statement, one write.
pub async fn beat(
    pool: &Connections,
    replica: &Replica,
    ttl: Duration,
    hold: Duration,
    chunks: &[i64],
) -> sqlx::Result<Beat> {
    let mut tx = pool.begin().await?;
    let row = sqlx::query!(
        r#"
        WITH before AS MATERIALIZED (
            SELECT expires_at > clock_timestamp() AS alive FROM roster.replicas WHERE id = $1
        ), registered AS (
            INSERT INTO roster.replicas (id, name, started_at, expires_at)
            VALUES ($1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3))
            ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
        ), prolonged AS (
            UPDATE roster.permits SET free_at = clock_timestamp() + make_interval(secs => $4)
             WHERE id = ANY ($5)
            RETURNING id
        ), swept AS ( -- the rows of processes that ended without a farewell
            DELETE FROM roster.replicas
             WHERE expires_at < clock_timestamp() - interval '1 day' AND id <> $1
        )
        SELECT coalesce((SELECT alive FROM before), false) AS "was_alive!",
               ARRAY (SELECT id FROM prolonged)            AS "kept!"
        "#,
        replica.id,
        replica.name,
        ttl.as_secs_f64(),
        hold.as_secs_f64(),
        chunks,
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Beat { was_alive: row.was_alive, kept: row.kept })
}

/// What a process should know of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Which.
    pub budget: String,
    /// For how long Harvest wants silence yet.
    pub pause: Duration,
    /// How many others share it, where one of them waits for permits; 0 where nobody does.
    pub sharers: u32,
}

/// What there is to know of these budgets: silence, and others who wait. Writes nothing.
pub async fn news(pool: &Connections, replica: Uuid, budgets: &[&str]) -> sqlx::Result<Vec<News>> {
    let rows = sqlx::query!(
        r#"SELECT budget,
                  coalesce(extract(epoch FROM max(free_at) FILTER (WHERE replica = $1) - clock_timestamp()), 0)::float8
                      AS "secs!",
                  CASE WHEN bool_or(permits = 0 AND replica <> $2)
                       THEN count(DISTINCT replica) FILTER (WHERE replica NOT IN ($1, $2)) ELSE 0 END AS "sharers!"
             FROM roster.permits
            WHERE budget = ANY ($3) AND free_at > clock_timestamp()
            GROUP BY budget"#,
        NOBODY,
        replica,
        budgets as &[&str],
    )
    .fetch_all(pool)
    .await?;
    let span = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
    let news = rows.into_iter().map(|row| News {
        budget: row.budget,
        pause: span(row.secs),
        sharers: u32::try_from(row.sharers).unwrap_or(u32::MAX),
    });
    Ok(news.collect())
}

/// Says farewell. What the process held of any budget is free after `rest`, or when it would have been
/// anyway.
pub async fn leave(pool: &Connections, replica: Uuid, rest: Duration) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        r#"
        WITH gone AS (DELETE FROM roster.replicas WHERE id = $1)
        UPDATE roster.permits
           SET free_at = least(free_at, clock_timestamp() + make_interval(secs => $2))
         WHERE replica = $1
        "#,
        replica,
        rest.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Takes a chunk of a budget: what was asked for, or what there is. None when there is nothing.
pub async fn take(pool: &Connections, ask: Ask<'_>) -> sqlx::Result<Option<Chunk>> {
    let Ask { budget, replica, permits, of, hold } = ask;
    let mut tx = pool.begin().await?;
    // A statement sees what was committed before it began: the sum must be a statement after the lock.
    // Everybody waits for this lock, so a process that stalls while it holds it is cut off.
    sqlx::query!(
        r#"
        SELECT set_config('lock_timeout', '5s', true)                        AS "lock_timeout!",
               set_config('idle_in_transaction_session_timeout', '5s', true) AS "idle_timeout!",
               pg_advisory_xact_lock(hashtextextended('rosterd.permits/' || $1, 0)) AS "locked: ()"
        "#,
        budget,
    )
    .fetch_one(&mut *tx)
    .await?;
    // A row that is locked is being prolonged or given back, and counts. The rows of a budget that no process takes from any
    // more, such as that of an old token, go after a day.
    sqlx::query!(
        r#"
        DELETE FROM roster.permits
         WHERE id IN (SELECT id FROM roster.permits
                       WHERE budget = $1 AND free_at <= clock_timestamp()
                          OR free_at < clock_timestamp() - interval '1 day'
                         FOR UPDATE SKIP LOCKED)
        "#,
        budget,
    )
    .execute(&mut *tx)
    .await?;
    let chunk = sqlx::query!(
        r#"
        INSERT INTO roster.permits (budget, replica, permits, free_at)
        SELECT $1, $2, least($3::bigint, $4 - coalesce(sum(permits), 0)),
               clock_timestamp() + make_interval(secs => $5)
          FROM roster.permits
         WHERE budget = $1
        HAVING least($3::bigint, $4 - coalesce(sum(permits), 0)) > 0
        RETURNING id, permits
        "#,
        budget,
        replica,
        i64::from(permits),
        i64::from(of),
        hold.as_secs_f64(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    if chunk.is_none() {
        // A wish, for those who have more than their share: a chunk of nothing, for as long as it is repeated.
        sqlx::query!(
            r#"
            INSERT INTO roster.permits (budget, replica, permits, free_at)
            SELECT $1, $2, 0, clock_timestamp() + interval '3 s'
             WHERE NOT EXISTS (SELECT FROM roster.permits
                                WHERE budget = $1 AND replica = $2 AND permits = 0
                                  AND free_at > clock_timestamp() + interval '1 s')
            "#,
            budget,
            replica,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(chunk.map(|row| Chunk { id: row.id, permits: row.permits.unsigned_abs() }))
}

/// Gives back chunks that nothing was sent with for a window.
pub async fn give_back(pool: &Connections, chunks: &[i64]) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query!("DELETE FROM roster.permits WHERE id = ANY ($1)", chunks).execute(&mut *tx).await?;
    tx.commit().await
}

/// Tells all processes that Harvest wants silence for `pause`: until then the budget (`of` permits) is
/// taken by nobody, and each learns of it when it next looks ([`news`]).
pub async fn pause(pool: &Connections, budget: &str, of: u32, pause: Duration) -> sqlx::Result<()> {
    let of = i32::try_from(of).unwrap_or(i32::MAX);
    let mut tx = pool.begin().await?;
    sqlx::query!(
        r#"
        INSERT INTO roster.permits (budget, replica, permits, free_at)
        VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
        "#,
        budget,
        NOBODY,
        of,
        pause.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}
