//! Connections, straight to the server or through a pooler that gives each transaction another of its own.
//!
//! Such a pooler loses what is prepared for a session: a statement is prepared on one server connection and executed on
//! another, or its name is taken there by another client's. So behind one every statement runs inside a transaction, and
//! each transaction begins by dropping the statements that earlier ones have left.

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

/// Each way to begin, straight and behind a pooler.
const BEGIN: [&str; 2] = ["BEGIN", "BEGIN; DEALLOCATE ALL"];
const SNAPSHOT: [&str; 2] = [
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; DEALLOCATE ALL",
];

/// How long an idle connection may take to answer before it is used: one round trip.
const CHECK: Duration = Duration::from_secs(5);

/// Statements that may take long get so many times the limit.
const PATIENT: u32 = 4;
/// The limit of statements whose length depends on the size of the database.
const LONG: Duration = Duration::from_hours(6);

/// What the server does when this process vanishes without a word. sqlx cannot set keepalives at its own end; the server's
/// probes keep the ways between both open as well.
const KEEPALIVES: &str =
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";
/// Ends statements whose client has gone. Not all platforms have it.
const CLIENT_CHECK: &str = "SET client_connection_check_interval = '10s'";

/// A pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    pool: PgPool,
    is_pooled: bool,
    bounds: Bounds,
    /// How long the server keeps a transaction of which it hears nothing.
    idle: Duration,
}

impl Connections {
    /// Connects when it is first used. `is_pooled`: there is a pooler in transaction mode in between. No statement may take
    /// longer than `limit`.
    pub(super) fn new(connect: &PgConnectOptions, is_pooled: bool, most: u32, limit: Duration) -> Self {
        let connect = connect.clone();
        // Poolers refuse what they do not know at the start of a session.
        let connect =
            if is_pooled { connect.extra_float_digits(None).statement_cache_capacity(0) } else { connect };
        let options = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                Box::pin(async move { Ok(matches!(timeout(CHECK, connection.ping()).await, Ok(Ok(())))) })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if !is_pooled {
                        watch_client(connection).await;
                    }
                    Ok(())
                })
            });
        Self { is_pooled, ..Self::within(options.connect_lazy_with(connect), limit) }
    }

    fn within(pool: PgPool, limit: Duration) -> Self {
        Self { pool, is_pooled: false, bounds: Bounds { limit, progress: Progress::default() }, idle: limit }
    }

    /// The pool itself, for a listener.
    pub(super) fn sessions(&self) -> &PgPool {
        &self.pool
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The same connections, for statements that may take some time but must not keep a connection for long.
    #[must_use]
    pub(super) fn patient(&self) -> Self {
        self.limited(self.bounds.limit * PATIENT)
    }

    /// The same connections, for statements that take as long as the database is large.
    #[must_use]
    pub(super) fn for_long_statements(&self) -> Self {
        self.limited(LONG)
    }

    fn limited(&self, limit: Duration) -> Self {
        Self { bounds: Bounds { limit, ..self.bounds.clone() }, ..self.clone() }
    }

    /// The same connections; what they answer counts as progress there.
    #[must_use]
    pub(super) fn reporting_to(self, progress: Progress) -> Self {
        Self { bounds: Bounds { progress, ..self.bounds }, ..self }
    }

    /// A connection, for statements that no transaction may surround.
    pub(super) async fn session(&self) -> sqlx::Result<Session> {
        Session::of(&self.pool, self.bounds.clone()).await
    }

    /// A transaction.
    pub async fn begin(&self) -> sqlx::Result<Transaction> {
        self.begin_with(BEGIN).await
    }

    /// A transaction that sees one state of the database throughout, and writes nothing.
    pub async fn snapshot(&self) -> sqlx::Result<Transaction> {
        self.begin_with(SNAPSHOT).await
    }

    /// If the connection is lost without a word, the server ends the transaction, or its locks would stay.
    async fn begin_with(&self, begin: [&'static str; 2]) -> sqlx::Result<Transaction> {
        let (begin, idle) = (begin[usize::from(self.is_pooled)], self.idle.as_millis());
        let sql = format!("{begin}; SET LOCAL idle_in_transaction_session_timeout = {idle}");
        // Boxed: its state would be part of each cycle's.
        let transaction = Box::pin(async {
            Transaction::begin(self.session().await?, AssertSqlSafe(sql).into_sql_str()).await
        });
        transaction.await
    }

    /// Closes them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Has the server look whether its client is still there. A server that cannot is used as it is.
async fn watch_client(connection: &mut PgConnection) {
    for settings in [KEEPALIVES, CLIENT_CHECK] {
        if let Err(error) = sqlx::raw_sql(settings).execute(&mut *connection).await {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            tracing::debug!(code = code.as_deref(), "the server does not take {settings}");
        }
    }
}

/// Straight to the server.
impl From<PgPool> for Connections {
    fn from(pool: PgPool) -> Self {
        Self::within(pool, Duration::from_secs(30))
    }
}

/// A single statement, in a transaction of its own where it needs one.
impl<'p> Executor<'p> for &'_ Connections {
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
