//! A connection in use, and a transaction on it. Each wait for the server has a limit.
//!
//! sqlx waits without one, and a connection whose packets are lost says nothing for a quarter of an hour or for ever. It
//! also tests each connection before its pool takes it back, again without a limit. So a connection whose statement did
//! not end is closed and never given back, and the test of any other has a limit too.

use std::io;
use std::time::Duration;

use async_stream::try_stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::progress::Progress;

/// How long a pool may take to test a connection that it gets back: one round trip, and a rollback where one is due.
const RELEASE: Duration = Duration::from_secs(5);

/// Ends each wait for the server.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// For each answer: the next row, or the end of a statement.
    pub limit: Duration,
    /// Where answers count as progress.
    pub progress: Progress,
}

impl Bounds {
    /// The answer, or an error that names the limit.
    pub async fn within<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let answer = timeout(self.limit, answer).await.unwrap_or_else(|_| Err(self.no_answer()));
        self.progress.made();
        answer
    }

    fn no_answer(&self) -> sqlx::Error {
        let limit = humantime::format_duration(self.limit);
        let text = format!(
            "PostgreSQL did not answer a statement within {limit}, so the connection was closed; if the server is only slow, \
             raise database.statement_timeout"
        );
        io::Error::new(io::ErrorKind::TimedOut, text).into()
    }
}

/// A connection of a pool.
#[derive(Debug)]
pub struct Session {
    connection: PoolConnection<Postgres>,
    bounds: Bounds,
    /// A statement has begun and not ended: the connection is of no more use if this stays so.
    is_busy: bool,
}

impl Session {
    pub(super) async fn of(pool: &PgPool, bounds: Bounds) -> sqlx::Result<Self> {
        let connection = pool.acquire().await?;
        bounds.progress.made();
        Ok(Self { connection, bounds, is_busy: false })
    }

    /// The connection itself, for what cannot be bounded statement by statement.
    pub fn raw(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Whether the server has said how the statement ended.
fn is_over<T>(ended: &sqlx::Result<T>) -> bool {
    matches!(ended, Ok(_) | Err(sqlx::Error::Database(_)))
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_busy {
            self.connection.close_on_drop();
            return;
        }
        let release = timeout(RELEASE, self.connection.return_to_pool());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(release);
        }
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Session { connection, bounds, is_busy } = self;
        try_stream! {
            *is_busy = true;
            let ended = {
                let mut steps = connection.fetch_many(query);
                loop {
                    match bounds.within(steps.try_next()).await {
                        Ok(Some(step)) => yield step,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            };
            *is_busy = !is_over(&ended);
            ended?;
        }
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            self.is_busy = true;
            let row = self.bounds.within(self.connection.fetch_optional(query)).await;
            self.is_busy = !is_over(&row);
            row
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            self.is_busy = true;
            let prepared = self.bounds.within(self.connection.prepare_with(sql, parameters)).await;
            self.is_busy = !is_over(&prepared);
            prepared
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            self.is_busy = true;
            let described = self.bounds.within(self.connection.describe(sql)).await;
            self.is_busy = !is_over(&described);
            described
        })
    }
}

/// A transaction. Dropped without [`commit`](Self::commit), it rolls back. sqlx's own gives its connection back without a
/// limit.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
    is_open: bool,
}

impl Transaction {
    pub(super) async fn begin(mut session: Session, sql: SqlStr) -> sqlx::Result<Self> {
        session.is_busy = true;
        let begun =
            session.bounds.within(PgTransactionManager::begin(&mut session.connection, Some(sql))).await;
        session.is_busy = !is_over(&begun);
        begun.map(|()| Self { session, is_open: true })
    }

    /// Commits. After an error it is not known whether the server has done so.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        let Session { connection, bounds, is_busy } = &mut self.session;
        *is_busy = true;
        let committed = bounds.within(PgTransactionManager::commit(connection)).await;
        *is_busy = !is_over(&committed);
        self.is_open = committed.is_err();
        committed
    }

    /// Rolls back, and waits until the server has done so.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        let Session { connection, bounds, is_busy } = &mut self.session;
        *is_busy = true;
        let ended = bounds.within(PgTransactionManager::rollback(connection)).await;
        *is_busy = !is_over(&ended);
        self.is_open = ended.is_err();
        ended
    }
}

impl std::ops::Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl std::ops::DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open && !self.session.is_busy {
            PgTransactionManager::start_rollback(&mut self.session.connection);
        }
    }
}
