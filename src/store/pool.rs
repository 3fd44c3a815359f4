//! Connections, directly to the server or through a pooler in transaction mode, which may use another server connection
//! for each transaction.
//!
//! Some of these poolers lose prepared statements: PgBouncer before 1.21 or without `max_prepared_statements`, and
//! others. A statement is then prepared on one server connection and executed on another, or its name exists there
//! already. So with such a pooler every statement runs in a transaction, and each transaction begins with DEALLOCATE
//! ALL.

use std::time::Duration;

use async_stream::try_stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, Connection, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres,
    SqlSafeStr, SqlStr,
};
use tokio::time::timeout;

use super::session::{Bounds, Session, Transaction};
use crate::progress::Progress;

/// How a transaction begins: directly, and behind a pooler that loses prepared statements. Each statement must see what others
/// committed before it, whatever the database's default: after a wait for a lock, above all.
const BEGIN: [&str; 2] = [
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "BEGIN ISOLATION LEVEL READ COMMITTED; DEALLOCATE ALL; SET LOCAL jit = off",
];
const SNAPSHOT: [&str; 2] = [
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; DEALLOCATE ALL; SET LOCAL jit = off",
];
/// The server compiles queries that it expects to be expensive, and before statistics exist it expects far too many rows.
/// No query of rosterd runs long enough to repay that: the query of `/metrics` took 180 ms instead of 1 ms.
const NO_COMPILATION: &str = "SET jit = off";

/// The longest wait for the ping with which an idle connection is tested: one round trip.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// The factor of the limit for statements that delete batches of old rows.
const SLOW_STATEMENT_FACTOR: u32 = 4;
/// The limit of statements whose duration depends on the size of the database.
const LONG_STATEMENT_LIMIT: Duration = Duration::from_hours(6);

/// The longest time that PostgreSQL takes for its settings.
const LONGEST_IDLE_MS: u128 = i32::MAX as u128;

/// Lets the server find out that this process or its network is gone. sqlx cannot set keepalives on the client side;
/// the server's probes also keep firewalls from dropping the connection.
const KEEPALIVES: &str =
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";
/// Ends statements whose client is gone. Not all platforms support it.
const CLIENT_CHECK: &str = "SET client_connection_check_interval = '10s'";

/// A pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: PgPool,
    is_pooled: bool,
    bounds: Bounds,
    /// After this time without a statement, the server ends a transaction.
    idle_limit: Duration,
}

impl Pool {
    /// Connects when it is first used. `is_pooled`: a pooler that loses prepared statements is in between. `limit`: the
    /// longest wait for each answer.
    pub(super) fn new(
        connect: &PgConnectOptions,
        is_pooled: bool,
        max_connections: u32,
        limit: Duration,
    ) -> Self {
        let connect = connect.clone();
        // PgBouncer refuses startup parameters that it does not know.
        let connect =
            if is_pooled { connect.extra_float_digits(None).statement_cache_capacity(0) } else { connect };
        let options = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                Box::pin(
                    async move { Ok(matches!(timeout(PING_LIMIT, connection.ping()).await, Ok(Ok(())))) },
                )
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if !is_pooled {
                        sqlx::raw_sql(NO_COMPILATION).execute(&mut *connection).await?;
                        watch_client(connection).await;
                    }
                    Ok(())
                })
            });
        Self { is_pooled, ..Self::within(options.connect_lazy_with(connect), limit) }
    }

    fn within(pool: PgPool, limit: Duration) -> Self {
        Self {
            inner: pool,
            is_pooled: false,
            bounds: Bounds { limit, progress: Progress::default() },
            idle_limit: limit,
        }
    }

    /// The pool itself, for a listener and for its options.
    pub(super) fn sqlx_pool(&self) -> &PgPool {
        &self.inner
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The same connections with a longer limit, for statements that delete batches of old rows.
    #[must_use]
    pub(super) fn for_slow_statements(&self) -> Self {
        self.limited(self.bounds.limit * SLOW_STATEMENT_FACTOR)
    }

    /// The same connections with a limit of hours, for statements whose duration depends on the size of the database.
    #[must_use]
    pub(super) fn for_long_statements(&self) -> Self {
        self.limited(LONG_STATEMENT_LIMIT)
    }

    fn limited(&self, limit: Duration) -> Self {
        Self { bounds: Bounds { limit, ..self.bounds.clone() }, ..self.clone() }
    }

    /// The same connections; each answer is reported to `progress`.
    #[must_use]
    pub(super) fn reporting_to(self, progress: Progress) -> Self {
        Self { bounds: Bounds { progress, ..self.bounds }, ..self }
    }

    /// A connection, for statements that cannot run in a transaction.
    pub(super) async fn session(&self) -> sqlx::Result<Session> {
        Session::acquire(&self.inner, self.bounds.clone()).await
    }

    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        self.begin_with(BEGIN).await
    }

    /// Begins a read-only transaction whose statements all see the same state of the database.
    pub async fn snapshot(&self) -> sqlx::Result<Transaction> {
        self.begin_with(SNAPSHOT).await
    }

    /// Sets a limit for idle time, so that the server ends the transaction and frees its locks if the connection is
    /// lost.
    async fn begin_with(&self, begin: [&'static str; 2]) -> sqlx::Result<Transaction> {
        let (begin, idle) =
            (begin[usize::from(self.is_pooled)], self.idle_limit.as_millis().min(LONGEST_IDLE_MS));
        let sql = format!("{begin}; SET LOCAL idle_in_transaction_session_timeout = {idle}");
        // Boxed, because otherwise its state would be part of each cycle's future.
        let transaction = Box::pin(async {
            Transaction::begin(self.session().await?, AssertSqlSafe(sql).into_sql_str()).await
        });
        transaction.await
    }

    pub async fn close(&self) {
        self.inner.close().await;
    }
}

/// Makes the server check whether its client is still connected. Failures are ignored.
async fn watch_client(connection: &mut PgConnection) {
    for settings in [KEEPALIVES, CLIENT_CHECK] {
        if let Err(error) = sqlx::raw_sql(settings).execute(&mut *connection).await {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            tracing::debug!(code = code.as_deref(), "the server does not support {settings}");
        }
    }
}

/// Directly to the server.
impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self::within(pool, Duration::from_secs(30))
    }
}

/// Executes a single statement, in a transaction if prepared statements are lost otherwise.
impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        try_stream! {
            if connections.is_pooled {
                let mut transaction = connections.begin().await?;
                {
                    let mut steps = transaction.fetch_many(query);
                    while let Some(step) = steps.try_next().await? {
                        yield step;
                    }
                }
                transaction.commit().await?;
            } else {
                let mut session = connections.session().await?;
                let mut steps = session.fetch_many(query);
                while let Some(step) = steps.try_next().await? {
                    yield step;
                }
            }
        }
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        Box::pin(async move {
            if !connections.is_pooled {
                return connections.session().await?.fetch_optional(query).await;
            }
            let mut transaction = connections.begin().await?;
            let row = transaction.fetch_optional(query).await?;
            transaction.commit().await?;
            Ok(row)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move { connections.session().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move { connections.session().await?.describe(sql).await })
    }
}
