//! The handle to the database: its pools, and reads that need no lock.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;

use super::error::StoreError;
use super::pool::Pool;
use super::row_count_cache::RowCountCache;
use super::table::{MirrorTable, RowDigest};
use super::target::Target;
use super::timeline_memory::TimelineMemory;
use crate::progress::Progress;
use crate::roster::{AccountId, MirrorRow};

#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// At most so many connections for this process.
    pub max_connections: u32,
    /// False behind a pooler in transaction mode that loses prepared statements.
    pub prepared_statements: bool,
    /// The longest wait for the answer to one statement.
    pub statement_timeout: Duration,
}

/// The limit of a statement on the heartbeat's connection. If the connection is lost, the heartbeat waits this long.
const HEARTBEAT_STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pool: Pool,
    /// One connection for the heartbeat, so that no long page delays it.
    pub(super) reserved: Pool,
    /// One connection for `/readyz` and `/metrics`. If the process may have only two connections, this is `pool`.
    pub(super) probes: Pool,
    /// One connection on which the daemon listens for notifications. `None` if the process may have at most three
    /// connections, or behind a pooler in transaction mode, through which no notification arrives.
    pub(super) listening: Option<Pool>,
    /// For replacing the listener's connection.
    pub(super) connect: PgConnectOptions,
    pub(super) row_count_cache: RowCountCache,
    pub(super) timelines: TimelineMemory,
    pub(super) target: Target,
}

impl Store {
    /// Connects when a pool is first used: this succeeds even while the database is unavailable.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the URL is not valid; the error does not show it.
    pub fn new(url: &SecretString, options: &ConnectOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|_| StoreError::Url)?
            .application_name("rosterd");
        let is_pooled = !options.prepared_statements;
        let limit = options.statement_timeout;
        let pool = |max_connections, limit| Pool::new(&connect, is_pooled, max_connections, limit);
        let listening = (options.max_connections > 3 && !is_pooled).then(|| pool(1, limit));
        let set_apart = if listening.is_some() { 3 } else { 2 };
        let pages = pool(options.max_connections.saturating_sub(set_apart).max(1), limit);
        let probes = if options.max_connections > 2 { pool(1, limit) } else { pages.clone() };
        let reserved = pool(1, limit.min(HEARTBEAT_STATEMENT_LIMIT));
        let target = Target::new(url.expose_secret(), &connect);
        let (row_count_cache, timelines) = (RowCountCache::default(), TimelineMemory::default());
        Ok(Self { pool: pages, reserved, probes, listening, connect, row_count_cache, timelines, target })
    }

    /// The same database; each answer of the page connections is reported to `progress`.
    #[must_use]
    pub(crate) fn reporting_to(self, progress: &Progress) -> Self {
        Self { pool: self.pool.reporting_to(progress.clone()), ..self }
    }

    /// The connections for pages.
    #[cfg(feature = "test-support")]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The heartbeat's connection.
    pub fn reserved(&self) -> &Pool {
        &self.reserved
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub async fn close(&self) {
        self.pool.close().await;
        self.reserved.close().await;
        self.probes.close().await;
        if let Some(listening) = &self.listening {
            listening.close().await;
        }
    }

    /// Returns an error if the database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one").fetch_one(&self.reserved).await?;
        Ok(())
    }

    /// A few bytes per row, by id, without a lock. A page without changes needs nothing else and writes nothing.
    pub(crate) async fn row_digests<R: MirrorTable>(
        &self,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, RowDigest>, StoreError> {
        let sql = format!(
            "SELECT id, content_hash, deleted_at IS NOT NULL FROM {} WHERE account_id = $1 AND id = ANY ($2)",
            R::TABLE
        );
        let rows = sqlx::query_as::<_, (i64, i64, bool)>(AssertSqlSafe(sql)).bind(account.0).bind(ids);
        let rows = rows.fetch_all(&self.pool).await?.into_iter();
        Ok(rows.map(|(id, hash, deleted)| (id, RowDigest { hash, deleted })).collect())
    }

    /// These records' rows, by id, without a lock: for plans that are not applied.
    pub async fn rows<R: MirrorTable>(
        &self,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, MirrorRow<R>>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        R::rows(&mut transaction, account, ids).await
    }
}
