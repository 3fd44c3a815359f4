//! What every command needs: settings, database and clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::failure::Failure;
use super::{local, wait};
use crate::clock::{Clock, SystemClock};
use crate::harvest::transport::HttpClient;
use crate::settings::Settings;
use crate::store::local::LocalPostgres;
use crate::store::permits::Replica;
use crate::store::{ConnectOptions, Store, StoreError};
use crate::telemetry::chain;

/// How long a process that serves waits at the start for the database to answer.
pub(crate) const DATABASE_WAIT_AT_START: Duration = Duration::from_mins(1);
/// If the first connection takes longer than this, the log says that the process is waiting.
const LOG_CONNECT_AFTER: Duration = Duration::from_secs(1);
/// Limit of closing the connections. A statement may wait for a lock of another session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a process that exits waits until renewed OAuth2 tokens are stored.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(8);

pub struct App {
    pub(crate) settings: Settings,
    pub store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    /// The private PostgreSQL, if `database.url` is empty.
    pub(crate) local: Option<LocalPostgres>,
    /// Created with the first client.
    pub(super) http: OnceLock<HttpClient>,
    /// The salt in the names of the tokens' budgets, read from the database.
    pub(super) salt: OnceLock<Uuid>,
    /// Renewals of OAuth2 tokens. The new tokens must be stored before the process exits.
    pub(super) renewals: TaskTracker,
}

impl App {
    /// Starts the private PostgreSQL if `database.url` is empty, and waits for the database for up to `limit`.
    pub async fn open(settings: Settings, limit: Duration) -> Result<Self, Failure> {
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let (url, local): (SecretString, _) = if let Some(url) = settings.database.url.clone() {
            (url, None)
        } else {
            let local = LocalPostgres::start(&local::options(&settings)).await?;
            for note in local.notes() {
                tracing::info!("{note}");
            }
            (local.url().clone(), Some(local))
        };
        let options = ConnectOptions {
            max_connections: settings.database.max_connections,
            prepared_statements: settings.database.prepared_statements,
            statement_timeout: settings.database.statement_timeout,
        };
        let store = Store::new(&url, &options)?;
        let (clock, renewals) = (Arc::new(SystemClock), TaskTracker::new());
        let (http, salt) = (OnceLock::new(), OnceLock::new());
        let app = Self { settings, store, clock, local, http, salt, renewals };
        let connect = async || app.store.connect().await;
        let connected =
            wait::for_database(limit, LOG_CONNECT_AFTER, StoreError::is_unavailable, connect).await;
        if let Err(failure) = connected {
            app.close().await;
            return Err(failure);
        }
        Ok(app)
    }

    /// A new identity of this process for other processes.
    pub(crate) fn replica() -> Replica {
        let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
        let host = host
            .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
            .map_or_else(|| "unknown-host".to_owned(), |host| host.trim().to_owned());
        Replica { id: Uuid::new_v4(), name: format!("{host}:{}", std::process::id()) }
    }

    /// Closes the connections and stops the private PostgreSQL, unless another process uses it.
    pub async fn close(self) {
        self.renewals.close();
        if timeout(RENEWAL_TIMEOUT, self.renewals.wait()).await.is_err() {
            tracing::warn!(
                "the renewed OAuth2 tokens could not be stored; if Harvest refuses the old ones, run `rosterd auth login`"
            );
        }
        let _ = timeout(CLOSE_TIMEOUT, self.store.close()).await;
        if let Some(local) = self.local
            && let Err(error) = local.stop().await
        {
            tracing::warn!(error = %chain(&error), "could not stop the private PostgreSQL");
        }
    }
}
