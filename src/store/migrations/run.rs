//! One run of the migrations. One process at a time runs them. It waits for the locks of other sessions without
//! blocking these sessions.

use std::pin::pin;
use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use tokio::time::{Instant, sleep};

use super::migrator::configured;
use super::statements::{self, Index};
use crate::store::database::Store;
use crate::store::error::StoreError;
use crate::store::pool::Pool;
use crate::store::session::{Session, Transaction};
use crate::telemetry::chain;

/// The key of the advisory lock of a run: an arbitrary number, the same in every version of rosterd.
const RUN_LOCK: i64 = 0x0072_6f73_7465_7264;

/// The longest wait of a migration for one lock, as a PostgreSQL setting.
const LOCK_WAIT: &str = "500ms";
/// The interval between checks which sessions block the run.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The pause between two attempts, in which other sessions can take the lock.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Run {
    pool: Pool,
    /// A transaction that holds the run's lock and finds the sessions that block the run. It has no snapshot between
    /// its statements, because a concurrent index build would wait for the snapshot.
    pub guard: Transaction,
    deadline: Instant,
}

impl Run {
    /// Waits until no other process runs migrations.
    pub async fn begin(store: &Store, lock_wait: Duration) -> Result<Self, StoreError> {
        let mut guard = store.reserved.begin().await?;
        let deadline = Instant::now() + lock_wait;
        // Polls: a statement that waits for the lock would have a snapshot, and an index build would wait for the
        // snapshot.
        while !sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, RUN_LOCK)
            .fetch_one(&mut *guard)
            .await?
            .mine
        {
            if Instant::now() >= deadline {
                return Err(StoreError::Migrating);
            }
            sleep(CHECK_INTERVAL).await;
        }
        Ok(Self { pool: store.pool.for_long_statements(), guard, deadline })
    }

    pub async fn apply(&mut self, migration: &Migration) -> Result<(), StoreError> {
        let mut sql = statements::lock_views(migration.sql.as_str()) + migration.sql.as_str();
        for index in statements::indexes(migration.sql.as_str()) {
            if self.build_index(migration.version, &index).await? {
                sql = sql.replace(index.statement, "");
            }
        }
        let rest = Migration { sql: AssertSqlSafe(sql.clone()).into_sql_str(), ..migration.clone() };
        let migrator = configured(Migrator::with_migrations(vec![rest]));
        let pool = self.pool.clone();
        let attempt = async || {
            let mut transaction = begin(&pool).await?;
            create_internal_schema(&mut transaction).await?;
            let applied = async { Ok(migrator.run(transaction.raw()).await) };
            pool.bounds().within(applied).await??;
            Ok(transaction.commit().await?)
        };
        self.retry_on_lock_conflict(migration.version, &[&sql], attempt).await
    }

    /// Ends the run. If migrations were applied, grants the readers' roles their rights on the new objects, as
    /// deploy/roles.sql defines. If that fails, the schema can still be used.
    pub async fn end(self, has_applied: bool) -> Result<(), StoreError> {
        if has_applied && let Err(error) = grant_rights(&self.pool).await {
            tracing::warn!(
                error = %chain(&error),
                "cannot grant the readers' roles their rights on the objects of the migrations; run deploy/roles.sql again"
            );
        }
        Ok(self.guard.rollback().await?)
    }

    /// Builds the index if its table holds rows; otherwise the migration builds it. Returns whether the index exists.
    async fn build_index(&mut self, version: i64, index: &Index<'_>) -> Result<bool, StoreError> {
        let pool = self.pool.clone();
        let attempt = async || {
            let found = sqlx::query!(
                r#"SELECT coalesce(pg_relation_size(to_regclass($1)) > 0, false) AS "has_rows!",
                          (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($2)) AS is_valid"#,
                index.table,
                index.name,
            )
            .fetch_one(&pool)
            .await?;
            match found.is_valid {
                Some(true) => return Ok(true),
                Some(false) => drop_invalid_index(&pool, index).await?,
                None if !found.has_rows => return Ok(false),
                None => {}
            }
            let mut session = pool.session().await?;
            match sqlx::raw_sql(AssertSqlSafe(index.concurrently.clone())).execute(&mut session).await {
                // The migration itself adds the column.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42703") => Ok(false),
                built => Ok(built.map(|_| true)?),
            }
        };
        let drop = index.drop_statement();
        let statements = [index.concurrently.as_str(), &drop];
        let built = self.retry_on_lock_conflict(version, &statements, attempt).await;
        if built.is_err() {
            // If the invalid index cannot be dropped now, the next run drops it.
            let _ = drop_invalid_index(&self.pool, index).await;
        }
        built
    }

    /// Repeats an attempt until the deadline while locks of other sessions block one of its statements.
    async fn retry_on_lock_conflict<T>(
        &mut self,
        version: i64,
        statements: &[&str],
        attempt: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut holders = None;
        let mut is_logged = false;
        loop {
            let error = match self.watch_for_blockers(statements, attempt(), &mut holders).await {
                Err(error) if error.is_lock_conflict() => error,
                done => return done,
            };
            if Instant::now() >= self.deadline {
                return Err(holders.map_or(error, |holders| StoreError::Locked { version, holders }));
            }
            if !std::mem::replace(&mut is_logged, true) {
                tracing::warn!(
                    event = "migration.waiting",
                    migration = version,
                    holders = holders.as_deref(),
                    "a migration is waiting for a lock that other sessions hold"
                );
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// During the attempt, finds the sessions that block one of its statements. If a statement still waits at the deadline,
    /// it is cancelled.
    async fn watch_for_blockers<T>(
        &mut self,
        statements: &[&str],
        attempt: impl Future<Output = Result<T, StoreError>>,
        holders: &mut Option<String>,
    ) -> Result<T, StoreError> {
        let mut attempt = pin!(attempt);
        loop {
            tokio::select! {
                biased;
                done = &mut attempt => return done,
                () = sleep(CHECK_INTERVAL) => {}
            }
            // Otherwise pg_stat_activity would show the same sessions in the whole transaction.
            sqlx::query!("SELECT pg_stat_clear_snapshot()").fetch_one(&mut *self.guard).await?;
            // Finds the statements by their text, because behind a pooler its server session is unknown. The server keeps
            // only the beginning of the text.
            let found = sqlx::query!(
                r#"SELECT string_agg(DISTINCT
                              CASE blocking.pid WHEN 0 THEN 'a prepared transaction (see pg_prepared_xacts)'
                                   ELSE format('process %s (%s, user %s, %s)', blocking.pid,
                                               coalesce(nullif(holder.application_name, ''), holder.backend_type, 'unknown'),
                                               coalesce(holder.usename, 'unknown'),
                                               coalesce(holder.state, 'state not visible to this user')) END, ', ') AS holders,
                          bool_or(CASE WHEN $2 THEN pg_cancel_backend(waiting.pid) END) AS cancelled
                     FROM pg_stat_activity AS waiting
                    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
                     LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocking.pid
                    WHERE waiting.datname = current_database() AND waiting.state = 'active' AND waiting.query <> ''
                      AND waiting.pid <> pg_backend_pid() AND EXISTS (SELECT FROM unnest($1::text[]) AS mine WHERE starts_with(mine, waiting.query))"#,
                statements as _,
                Instant::now() >= self.deadline,
            )
            .fetch_one(&mut *self.guard)
            .await?;
            *holders = found.holders.or_else(|| holders.take());
        }
    }
}

/// A transaction with a short wait for each lock and no limit for the work itself.
async fn begin(pool: &Pool) -> Result<Transaction, StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query!(
        r#"SELECT set_config('lock_timeout', $1, true) AS a, set_config('statement_timeout', '0', true) AS b"#,
        LOCK_WAIT
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(transaction)
}

/// Calls the function that deploy/roles.sql created, but only if this user owns it: it runs with this user's rights.
async fn grant_rights(pool: &Pool) -> Result<(), StoreError> {
    let mut transaction = begin(pool).await?;
    let is_ours = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM pg_proc WHERE oid = to_regprocedure('rosterd_internal.grant_rights()')
                             AND proowner = current_user::regrole) AS "is_ours!""#
    )
    .fetch_one(&mut *transaction)
    .await?
    .is_ours;
    if is_ours {
        // Not checked at compile time, because deploy/roles.sql creates the function.
        sqlx::query("SELECT rosterd_internal.grant_rights()").execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

/// Creates the schema of the migrations' table. Even with IF NOT EXISTS, CREATE SCHEMA needs the privilege to create
/// one, so the code checks first.
async fn create_internal_schema(transaction: &mut Session) -> Result<(), StoreError> {
    let known = sqlx::query!(r#"SELECT to_regnamespace('rosterd_internal') IS NOT NULL AS "known!""#)
        .fetch_one(&mut *transaction)
        .await?
        .known;
    if !known {
        sqlx::query!("CREATE SCHEMA rosterd_internal").execute(&mut *transaction).await?;
        sqlx::query!("COMMENT ON SCHEMA rosterd_internal IS 'rosterd: which migrations have been applied'")
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}

async fn drop_invalid_index(pool: &Pool, index: &Index<'_>) -> Result<(), StoreError> {
    let mut transaction = begin(pool).await?;
    let is_invalid = sqlx::query!(
        r#"SELECT NOT indisvalid AS "is_invalid!" FROM pg_index WHERE indexrelid = to_regclass($1)"#,
        index.name
    )
    .fetch_optional(&mut *transaction)
    .await?
    .is_some_and(|found| found.is_invalid);
    if is_invalid {
        sqlx::raw_sql(AssertSqlSafe(index.drop_statement())).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}
