//! One run of the migrations: one process at a time runs them, and waits for the locks of other sessions without keeping
//! these waiting.

use std::pin::pin;
use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use tokio::time::{Instant, sleep};

use super::text::{self, Index};
use super::{LOCK_WAIT, prepared};
use crate::store::{Connections, Session, Store, StoreError, Transaction};
use crate::telemetry::chain;

/// Any number will do, as long as every rosterd takes the same.
const LOCK: i64 = 0x0072_6f73_7465_7264;

/// How often the run looks which sessions are in its way.
const LOOK: Duration = Duration::from_millis(50);
/// How long it lets the others through before it tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// A run of the migrations.
pub(super) struct Run {
    pool: Connections,
    /// A transaction that keeps other rosterds from migrating, and looks which sessions are in the way. It has no snapshot
    /// between its statements; a concurrent index build would wait for one.
    pub guard: Transaction,
    give_up: Instant,
}

impl Run {
    /// Waits until no other rosterd migrates.
    pub async fn begin(store: &Store, patience: Duration) -> Result<Self, StoreError> {
        let mut guard = store.reserved.begin().await?;
        let give_up = Instant::now() + patience;
        // Tried, not waited for: a statement that waits has a snapshot, and an index build would wait for that.
        while !sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, LOCK)
            .fetch_one(&mut *guard)
            .await?
            .mine
        {
            if Instant::now() >= give_up {
                return Err(StoreError::Migrating);
            }
            sleep(LOOK).await;
        }
        Ok(Self { pool: store.pool.for_long_statements(), guard, give_up })
    }

    /// Applies one migration.
    pub async fn apply(&mut self, migration: &Migration) -> Result<(), StoreError> {
        let mut sql = text::lock_views(migration.sql.as_str()) + migration.sql.as_str();
        for index in text::of(migration.sql.as_str()) {
            if self.build(migration.version, &index).await? {
                sql = sql.replace(index.statement, "");
            }
        }
        let rest = Migration { sql: AssertSqlSafe(sql.clone()).into_sql_str(), ..migration.clone() };
        let migrator = prepared(Migrator::with_migrations(vec![rest]));
        let pool = self.pool.clone();
        let attempt = async || {
            let mut transaction = begin(&pool).await?;
            internal_schema(&mut transaction).await?;
            let applied = async { Ok(migrator.run(transaction.raw()).await) };
            pool.bounds().within(applied).await??;
            Ok(transaction.commit().await?)
        };
        self.patiently(migration.version, &sql, attempt).await
    }

    /// Gives the readers' roles their rights on what was made, as deploy/roles.sql has said. That this fails is no reason to
    /// refuse the schema.
    pub async fn end(self, has_applied: bool) -> Result<(), StoreError> {
        if has_applied && let Err(error) = grant_rights(&self.pool).await {
            tracing::warn!(
                error = %chain(&error),
                "could not give the readers' roles their rights on what the migrations made; run deploy/roles.sql again"
            );
        }
        Ok(self.guard.rollback().await?)
    }

    /// Builds the index of a table that holds rows; any other is left to the migration. Returns whether the index is there.
    async fn build(&mut self, version: i64, index: &Index<'_>) -> Result<bool, StoreError> {
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
                Some(false) => discard(&pool, index).await?,
                None if !found.has_rows => return Ok(false),
                None => {}
            }
            let mut session = pool.session().await?;
            match sqlx::raw_sql(AssertSqlSafe(index.concurrently.clone())).execute(&mut session).await {
                // A column that the migration adds itself.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42703") => Ok(false),
                built => Ok(built.map(|_| true)?),
            }
        };
        let built = self.patiently(version, &index.concurrently, attempt).await;
        if built.is_err() {
            // What is left of it is of no use; where it cannot be removed now, the next run does.
            let _ = discard(&self.pool, index).await;
        }
        built
    }

    /// Repeats an attempt for as long as the locks of others are in the way of its statement, until the time is up.
    async fn patiently<T>(
        &mut self,
        version: i64,
        statement: &str,
        attempt: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut holders = None;
        let mut said = false;
        loop {
            let error = match self.watched(statement, attempt(), &mut holders).await {
                Err(error) if error.is_lock_conflict() => error,
                done => return done,
            };
            if Instant::now() >= self.give_up {
                return Err(holders.map_or(error, |holders| StoreError::Locked { version, holders }));
            }
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(
                    event = "migration.waiting",
                    migration = version,
                    holders = holders.as_deref(),
                    "a migration waits for a lock that other sessions hold"
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks which sessions are in the way of the statement for as long as the attempt goes on. When the time is up and the statement
    /// still waits, it is cancelled.
    async fn watched<T>(
        &mut self,
        statement: &str,
        attempt: impl Future<Output = Result<T, StoreError>>,
        holders: &mut Option<String>,
    ) -> Result<T, StoreError> {
        let mut attempt = pin!(attempt);
        loop {
            tokio::select! {
                biased;
                done = &mut attempt => return done,
                () = sleep(LOOK) => {}
            }
            // A transaction sees the sessions as it first saw them, unless it asks for another look.
            sqlx::query!("SELECT pg_stat_clear_snapshot()").fetch_one(&mut *self.guard).await?;
            // The statement is found by its text, because behind a pooler its session is not known beforehand. The server
            // keeps the beginning of the text only.
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
                      AND waiting.pid <> pg_backend_pid() AND starts_with($1, waiting.query)"#,
                statement,
                Instant::now() >= self.give_up,
            )
            .fetch_one(&mut *self.guard)
            .await?;
            *holders = found.holders.or_else(|| holders.take());
        }
    }
}

/// A transaction that waits for no lock for long, and may work for as long as it takes.
async fn begin(pool: &Connections) -> Result<Transaction, StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query!(
        r#"SELECT set_config('lock_timeout', $1, true) AS a, set_config('statement_timeout', '0', true) AS b"#,
        LOCK_WAIT
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(transaction)
}

/// Calls the function that deploy/roles.sql has left, if it belongs to this user: it runs with this user's rights.
async fn grant_rights(pool: &Connections) -> Result<(), StoreError> {
    let mut transaction = begin(pool).await?;
    let is_ours = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM pg_proc WHERE oid = to_regprocedure('rosterd_internal.grant_rights()')
                             AND proowner = current_user::regrole) AS "is_ours!""#
    )
    .fetch_one(&mut *transaction)
    .await?
    .is_ours;
    if is_ours {
        // Not checked at compile time: the function is the deployment's.
        sqlx::query("SELECT rosterd_internal.grant_rights()").execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

/// Makes the schema of the migrations' table. CREATE SCHEMA needs the right to create one even where it exists, so look first.
async fn internal_schema(transaction: &mut Session) -> Result<(), StoreError> {
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

/// Drops what a build that did not end has left.
async fn discard(pool: &Connections, index: &Index<'_>) -> Result<(), StoreError> {
    let mut transaction = begin(pool).await?;
    let is_invalid = sqlx::query!(
        r#"SELECT NOT indisvalid AS "is_invalid!" FROM pg_index WHERE indexrelid = to_regclass($1)"#,
        index.name
    )
    .fetch_optional(&mut *transaction)
    .await?
    .is_some_and(|found| found.is_invalid);
    if is_invalid {
        let drop = AssertSqlSafe(format!("DROP INDEX {}", index.name));
        sqlx::raw_sql(drop).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}
