//! PostgreSQL: the mirror, the outbox and the daemon's own state. Knows no HTTP.
//!
//! Locks are always taken in this order: account, mirror rows by id, projects, what is rejected or missing, watermark,
//! cycle, outbox head.
//! No transaction is ever open while HTTP is under way.

pub mod census;
pub mod credentials;
pub mod deletions;
pub mod diagnosis;
pub mod error;
pub mod explain;
pub mod forget;
pub mod lease;
pub mod local;
pub mod migrations;
pub mod outbox;
pub mod page;
pub mod permits;
pub mod rates;
pub mod rejected;
pub mod requests;
pub mod retention;
pub mod seal;
pub mod state;
pub mod status;

mod assignments;
mod connections;
mod lost;
mod ownership;
mod projects;
mod session;
mod table;
mod tls;
mod users;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

pub use connections::Connections;
pub use error::StoreError;
pub use lease::Fence;
pub use page::Page;
pub use session::{Session, Transaction};
pub use table::{Fingerprint, Table};

use census::Counted;
use diagnosis::Target;

use crate::progress::Progress;
use crate::roster::{AccountId, Mirrored};

/// How to connect; handed in by `app`.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Most connections of this process.
    pub max_connections: u32,
    /// Whether a session keeps what was prepared in it; not so behind a pooler in transaction mode.
    pub prepared_statements: bool,
    /// How long a statement may take.
    pub statement_timeout: Duration,
}

/// The limit of a statement on the reserved connection: a lost one would keep the heartbeat waiting for as long.
const SHORT: Duration = Duration::from_secs(5);

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Connections,
    /// One connection for the heartbeat, so that no long page delays it.
    reserved: Connections,
    /// One connection for `/readyz` and `/metrics`. They share the pages' connection if this process may have two in all.
    probes: Connections,
    /// Another one, on which a daemon waits to be woken; none where there may be two in all, or behind a pooler.
    listening: Option<Connections>,
    /// How the listener's connection is replaced.
    connect: PgConnectOptions,
    /// What was counted last.
    counted: Arc<Mutex<HashMap<AccountId, Counted>>>,
    target: Target,
}

impl Store {
    /// A pool that connects when it is first used, so that a database that is away is no reason to fail here.
    ///
    /// # Errors
    /// When the URL cannot be read; the error does not show it.
    pub fn new(url: &SecretString, options: &ConnectOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|_| StoreError::Url)?
            .application_name("rosterd");
        let is_pooled = !options.prepared_statements;
        let limit = options.statement_timeout;
        let pool = |most, limit| Connections::new(&connect, is_pooled, most, limit);
        // Through a pooler nobody hears a bell.
        let listening = (options.max_connections > 3 && !is_pooled).then(|| pool(1, limit));
        let apart = if listening.is_some() { 3 } else { 2 };
        let pages = pool(options.max_connections.saturating_sub(apart).max(1), limit);
        let probes = if options.max_connections > 2 { pool(1, limit) } else { pages.clone() };
        let reserved = pool(1, limit.min(SHORT));
        let target = Target::new(url.expose_secret(), &connect);
        Ok(Self { pool: pages, reserved, probes, listening, connect, counted: Arc::default(), target })
    }

    /// The same database; what it answers counts as progress there.
    #[must_use]
    pub fn reporting_to(self, progress: &Progress) -> Self {
        Self { pool: self.pool.reporting_to(progress.clone()), ..self }
    }

    /// The connections for pages.
    pub fn pool(&self) -> &Connections {
        &self.pool
    }

    /// The heartbeat's connection.
    pub fn reserved(&self) -> &Connections {
        &self.reserved
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
        self.reserved.close().await;
        self.probes.close().await;
        if let Some(listening) = &self.listening {
            listening.close().await;
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one").fetch_one(&self.reserved).await?;
        Ok(())
    }

    /// What the mirror knows of these records, in few bytes, by id.
    pub async fn fingerprints<R: Table>(
        &self,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, Fingerprint>, StoreError> {
        R::fingerprints(&self.pool, account, ids).await
    }

    /// These records' rows, by id, without a lock: for plans that are not applied.
    pub async fn rows<R: Table>(
        &self,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, Mirrored<R>>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        R::rows(&mut transaction, account, ids).await
    }
}
