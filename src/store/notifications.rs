//! NOTIFY and LISTEN: how processes wake each other. A notification carries no data that matters: if it is lost, the
//! receiver finds the request or the events at its next poll.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification};
use sqlx::{Acquire, Connection, Executor, PgConnection};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::session::{Bounds, Session};
use crate::roster::AccountId;

/// Wakes the process that holds an account's lease, and the standbys. The payload is the account, or empty for all.
pub(super) const DAEMON_CHANNEL: &str = "roster_sync";

/// Wakes the process that sends an account's writes. The payload is the account.
pub(crate) const WRITE_CHANNEL: &str = "roster_write";

/// Wakes the readers of the outbox. The payload is the last event's `seq`.
pub(crate) const OUTBOX_CHANNEL: &str = "roster_outbox";

/// Wakes the requests that wait for a write. The payload is the write's id.
const WRITTEN_CHANNEL: &str = "roster_written";

/// The pause between attempts to replace a lost listener connection.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

impl Store {
    /// Wakes the daemon of an account, or of all accounts, without a request: the cause of a failure may be gone.
    pub(crate) async fn notify_daemon(&self, account: Option<AccountId>) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        notify_daemon(&mut transaction, account).await?;
        Ok(transaction.commit().await?)
    }

    /// Listens for requests, and for new events if `with_events`, on a separate connection. `None` if no connection is set apart for it: then the daemon
    /// polls for requests.
    pub(crate) async fn listen_for_requests(
        &self,
        with_events: bool,
    ) -> Result<Option<Listener>, StoreError> {
        let channels = [DAEMON_CHANNEL, WRITE_CHANNEL, OUTBOX_CHANNEL];
        self.listen(&channels[..if with_events { 3 } else { 2 }]).await
    }

    /// Listens for new events; `None` as in [`listen_for_requests`](Self::listen_for_requests).
    pub(crate) async fn listen_for_events(&self) -> Result<Option<Listener>, StoreError> {
        self.listen(&[OUTBOX_CHANNEL]).await
    }

    /// Listens for finished writes; `None` as in [`listen_for_requests`](Self::listen_for_requests).
    pub(crate) async fn listen_for_written(&self) -> Result<Option<Listener>, StoreError> {
        self.listen(&[WRITTEN_CHANNEL]).await
    }

    async fn listen(&self, channels: &[&str]) -> Result<Option<Listener>, StoreError> {
        let Some(listening) = &self.listening else { return Ok(None) };
        let inner = PgListener::connect_with(listening.sqlx_pool()).await?;
        let mut listener =
            Listener { inner, bounds: listening.bounds().clone(), connect: self.connect.clone() };
        if let Err(error) = listener.bounds.within(listener.inner.listen_all(channels.iter().copied())).await
        {
            listener.replace_connection().await;
            return Err(error.into());
        }
        Ok(Some(listener))
    }
}

/// Wakes the daemon of an account, or of all accounts, when the transaction commits.
pub(super) async fn notify_daemon(
    connection: &mut Session,
    account: Option<AccountId>,
) -> Result<(), StoreError> {
    let account = account.map(|account| account.to_string()).unwrap_or_default();
    sqlx::query!("SELECT pg_notify($1, $2) AS notified", DAEMON_CHANNEL, account)
        .fetch_one(connection)
        .await?;
    Ok(())
}

pub struct Listener {
    inner: PgListener,
    bounds: Bounds,
    connect: PgConnectOptions,
}

impl Listener {
    /// Waits for a notification and returns its channel and its account, or `None` for all accounts; or `None` if
    /// notifications may be lost. Safe to drop. Without notifications, the connection is tested once per statement timeout.
    ///
    /// # Errors
    /// If the connection no longer answers. Notifications may have been lost by then.
    pub async fn notified(&mut self) -> Result<Option<(String, Option<i64>)>, StoreError> {
        Ok(self.received().await?.map(|it| (it.channel().to_owned(), it.payload().parse().ok())))
    }

    /// The id of a finished write; `None` if notifications may be lost, or for a payload that is no id.
    ///
    /// # Errors
    /// As for [`notified`](Self::notified).
    pub(crate) async fn written(&mut self) -> Result<Option<Uuid>, StoreError> {
        Ok(self.received().await?.and_then(|it| it.payload().parse().ok()))
    }

    async fn received(&mut self) -> Result<Option<PgNotification>, StoreError> {
        loop {
            // sqlx returns `None` after it has reconnected: notifications may be lost, so all accounts are due.
            if let Ok(notification) = timeout(self.bounds.limit, self.inner.try_recv()).await {
                return Ok(notification?);
            }
            self.test_connection().await?;
        }
    }

    async fn test_connection(&mut self) -> Result<(), StoreError> {
        let answered = self.bounds.within(self.inner.execute("SELECT 1")).await;
        if let Err(error) = answered {
            self.replace_connection().await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Replaces a connection that does not answer; tries until it succeeds. Without this, sqlx's listener would send
    /// UNLISTEN when it is dropped, without a limit, and would keep the pool's only connection meanwhile.
    async fn replace_connection(&mut self) {
        loop {
            let fresh = self.bounds.within(PgConnection::connect_with(&self.connect)).await;
            let old = timeout(self.bounds.limit, self.inner.acquire()).await;
            if let (Ok(fresh), Ok(Ok(old))) = (fresh, old) {
                *old = fresh;
                return;
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }
}
