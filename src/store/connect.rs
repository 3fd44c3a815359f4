//! Checks at the start: whether the database can be reached, is of a supported version, takes writes, and holds every text.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use super::connect_error::ConnectError;
use super::database::Store;
use super::database_error::is_refused_by_pooler;
use super::error::StoreError;
use super::postgres_versions::SUPPORTED;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest wait for the connection of that attempt to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

impl Store {
    /// Connects once outside the pool, whose timeout would hide some errors, and checks the version. Then pings through
    /// the pool.
    ///
    /// # Errors
    /// [`StoreError::Connect`] names the cause.
    pub async fn connect(&self) -> Result<(), StoreError> {
        let target = || self.target.clone();
        if let Some(problem) = self.target.tls_files.problem() {
            return Err(ConnectError::Tls { target: target(), problem }.into());
        }
        let options = self.reserved.sqlx_pool().connect_options();
        let connection: PgConnection = match timeout(CONNECT_LIMIT, options.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if is_refused_by_pooler(&error) => return Err(error.into()),
            Ok(Err(error)) => return Err(ConnectError::new(target(), error).into()),
            Err(_) => {
                let text = format!("no answer within {} s", CONNECT_LIMIT.as_secs());
                let error = sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text));
                return Err(ConnectError::new(target(), error).into());
            }
        };
        let version = connection.server_version_num().map(|version| version / 10_000);
        let _ = timeout(CLOSE_LIMIT, connection.close()).await;
        match version.filter(|version| !SUPPORTED.contains(version)) {
            Some(version) => Err(ConnectError::Version { target: target(), version }.into()),
            None => self.ping().await,
        }
    }

    /// Returns an error if the server takes no writes, or the database not every text.
    ///
    /// # Errors
    /// [`ConnectError::ReadOnly`] if it is a standby, or read-only by its settings. [`ConnectError::Text`] if its encoding is not
    /// UTF-8, or if it lowers letters by Turkish rules: then addresses do not match that differ in the case of an I.
    pub(crate) async fn require_suitable(&self) -> Result<(), StoreError> {
        let server = sqlx::query!(
            r#"SELECT pg_is_in_recovery() AS "is_standby!",
                      current_setting('transaction_read_only') = 'on' AS "is_read_only!",
                      current_setting('server_encoding') = 'UTF8' AS "is_utf8!",
                      lower('I') = 'i' AS "lowers_ascii!""#
        )
        .fetch_one(&self.reserved)
        .await?;
        let text = match (server.is_utf8, server.lowers_ascii) {
            (false, _) => Some(("its encoding is not UTF-8", "ENCODING 'UTF8'")),
            (true, false) => Some(("its locale does not lower I to i", "another LOCALE, such as 'C.UTF-8'")),
            (true, true) => None,
        };
        if let Some((why, with)) = text {
            return Err(ConnectError::Text { target: self.target.clone(), why, with }.into());
        }
        let (why, advice) = match (server.is_standby, server.is_read_only) {
            (false, false) => return Ok(()),
            (true, _) => ("it is a standby", "set database.url to the primary server"),
            (false, true) => (
                "default_transaction_read_only is on",
                "turn it off for the server, the database and the user, or correct database.url",
            ),
        };
        Err(ConnectError::ReadOnly { target: self.target.clone(), why, advice }.into())
    }
}
