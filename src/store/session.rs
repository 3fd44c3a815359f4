//! A connection in use, and a transaction on it. Each wait for the server has a limit.
//!
//! sqlx waits without a limit, and a connection whose packets are lost reports no error for a quarter of an hour or for
//! ever. sqlx also tests each connection without a limit before it returns to its pool. So a connection whose statement
//! did not end is closed instead of returned, and the test of any other connection has a limit too.

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

/// The longest wait for the test of a returned connection: one round trip, and a rollback if one is pending.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// The limit for each answer: the next row, or the end of a statement.
    pub limit: Duration,
    pub progress: Progress,
}

impl Bounds {
    /// Waits for the answer, or returns an error that names the limit.
    pub async fn within<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let answer = timeout(self.limit, answer).await.unwrap_or_else(|_| Err(self.no_answer()));
        self.progress.made();
        answer
    }

    /// As [`within`](Self::within). `is_busy` stays true until the server has reported the end of the statement.
    async fn execute<T>(
        &self,
        is_busy: &mut bool,
        answer: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        *is_busy = true;
        let ended = self.within(answer).await;
        *is_busy = !has_ended(&ended);
        ended
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

#[derive(Debug)]
pub struct Session {
    connection: PoolConnection<Postgres>,
    bounds: Bounds,
    /// Whether a statement has begun and not ended. If the session is dropped then, the connection is closed.
    is_busy: bool,
}

impl Session {
    pub(super) async fn acquire(pool: &PgPool, bounds: Bounds) -> sqlx::Result<Self> {
        let connection = pool.acquire().await?;
        bounds.progress.made();
        Ok(Self { connection, bounds, is_busy: false })
    }

    /// Executes `COPY … FROM STDIN` with these messages, and returns the number of rows.
    pub(super) async fn copy_in(
        &mut self,
        sql: &str,
        messages: impl Iterator<Item = sqlx::Result<Vec<u8>>>,
    ) -> sqlx::Result<u64> {
        let Session { connection, bounds, is_busy } = self;
        let copied = async {
            let mut copy = bounds.within(connection.copy_in_raw(sql)).await?;
            for message in messages {
                bounds.within(copy.send(message?)).await?;
            }
            bounds.within(copy.finish()).await
        };
        *is_busy = true;
        let ended = copied.await;
        *is_busy = !has_ended(&ended);
        ended
    }

    /// The connection itself, for code that executes several statements. Its caller sets the limit.
    pub fn raw(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Whether the server has reported the end of the statement.
fn has_ended<T>(ended: &sqlx::Result<T>) -> bool {
    matches!(ended, Ok(_) | Err(sqlx::Error::Database(_)))
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_busy {
            self.connection.close_on_drop();
            return;
        }
        let release = timeout(RETURN_LIMIT, self.connection.return_to_pool());
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
            *is_busy = !has_ended(&ended);
            ended?;
        }
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Session { connection, bounds, is_busy } = self;
        Box::pin(async move { bounds.execute(is_busy, connection.fetch_optional(query)).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        let Session { connection, bounds, is_busy } = self;
        Box::pin(async move { bounds.execute(is_busy, connection.prepare_with(sql, parameters)).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        let Session { connection, bounds, is_busy } = self;
        Box::pin(async move { bounds.execute(is_busy, connection.describe(sql)).await })
    }
}

/// A transaction. If it is dropped without [`commit`](Self::commit), it rolls back. sqlx's `Transaction` is not used,
/// because it returns its connection without a limit.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
    is_open: bool,
}

impl Transaction {
    pub(super) async fn begin(mut session: Session, sql: SqlStr) -> sqlx::Result<Self> {
        let Session { connection, bounds, is_busy } = &mut session;
        bounds.execute(is_busy, PgTransactionManager::begin(connection, Some(sql))).await?;
        Ok(Self { session, is_open: true })
    }

    /// Commits. After an error it is unknown whether the server committed.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        let Session { connection, bounds, is_busy } = &mut self.session;
        let committed = bounds.execute(is_busy, PgTransactionManager::commit(connection)).await;
        self.is_open = committed.is_err();
        committed
    }

    /// Rolls back, and waits for the server's answer.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        let Session { connection, bounds, is_busy } = &mut self.session;
        let ended = bounds.execute(is_busy, PgTransactionManager::rollback(connection)).await;
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
