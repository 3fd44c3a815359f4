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
use sqlx::{Describe, Either, Execute, Executor, PgPool, Postgres, SqlStr, Transaction};

/// Each way to begin, straight and behind a pooler.
const BEGIN: [&str; 2] = ["BEGIN", "BEGIN; DEALLOCATE ALL"];
const SNAPSHOT: [&str; 2] = [
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; DEALLOCATE ALL",
];

/// A pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    pool: PgPool,
    is_pooled: bool,
}

impl Connections {
    /// Connects when it is first used. `is_pooled`: there is a pooler in transaction mode in between.
    pub(super) fn new(connect: &PgConnectOptions, is_pooled: bool, most: u32) -> Self {
        let connect = connect.clone();
        // Poolers refuse what they do not know at the start of a session.
        let connect =
            if is_pooled { connect.extra_float_digits(None).statement_cache_capacity(0) } else { connect };
        let options = PgPoolOptions::new().max_connections(most).acquire_timeout(Duration::from_secs(10));
        Self { pool: options.connect_lazy_with(connect), is_pooled }
    }

    /// The pool itself, for what needs a session.
    pub(super) fn sessions(&self) -> &PgPool {
        &self.pool
    }

    /// A transaction.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        self.begin_with(BEGIN).await
    }

    /// A transaction that sees one state of the database throughout, and writes nothing.
    pub async fn snapshot(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        self.begin_with(SNAPSHOT).await
    }

    /// In a task of its own: dropped while BEGIN is under way, sqlx would put a connection back into the pool that is in a
    /// transaction which nobody knows of. Dropped afterwards, it rolls back.
    async fn begin_with(&self, begin: [&'static str; 2]) -> sqlx::Result<Transaction<'static, Postgres>> {
        let (pool, begin) = (self.pool.clone(), begin[usize::from(self.is_pooled)]);
        let transaction = tokio::spawn(async move { pool.begin_with(begin).await }).await;
        transaction.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// Closes them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Straight to the server.
impl From<PgPool> for Connections {
    fn from(pool: PgPool) -> Self {
        Self { pool, is_pooled: false }
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
        if !self.is_pooled {
            return self.pool.fetch_many(query);
        }
        let connections = self.clone();
        try_stream! {
            let mut transaction = connections.begin().await?;
            {
                let mut steps = transaction.fetch_many(query);
                while let Some(step) = steps.try_next().await? {
                    yield step;
                }
            }
            transaction.commit().await?;
        }
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_pooled {
            return self.pool.fetch_optional(query);
        }
        let connections = self.clone();
        Box::pin(async move {
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
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'p: 'e,
    {
        self.pool.describe(sql)
    }
}
