//! Why rosterd cannot use the database that its settings name: which server, database, user or file is wrong, and what an
//! administrator can do about it.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;
use url::Url;

use super::error::{Answer, PASSING, TOO_MUCH_FOR_A_POOLER};
use super::tls::{Files, Problem};
use super::{Store, StoreError};

/// The major versions of PostgreSQL that rosterd supports.
pub(super) const SUPPORTED: RangeInclusive<u32> = 15..=18;

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the attempt waits for its connection to close.
const CLOSE: Duration = Duration::from_secs(1);

/// The server, the database and the user that the settings name; never the password.
#[derive(Clone)]
pub struct Target {
    /// Host and port, or the path of the socket.
    server: String,
    /// The directory of the socket, if there is one.
    host: String,
    database: String,
    user: String,
    /// False if the URL has an @ behind its host: then each part may be a piece of a password that is not encoded.
    is_shown: bool,
    files: Files,
}

impl Target {
    pub(super) fn new(url: &str, options: &PgConnectOptions) -> Self {
        let url = Url::parse(url).ok();
        let is_shown = url.as_ref().is_some_and(|url| {
            ![url.path(), url.query().unwrap_or_default(), url.fragment().unwrap_or_default()]
                .concat()
                .contains('@')
        });
        let (port, user) = (options.get_port(), options.get_username());
        let socket = options.get_socket().map(|directory| directory.display().to_string());
        let host = socket.unwrap_or_else(|| options.get_host().to_owned());
        let server =
            if host.starts_with('/') { format!("{host}/.s.PGSQL.{port}") } else { format!("{host}:{port}") };
        Self {
            server,
            host,
            database: options.get_database().unwrap_or(user).to_owned(),
            user: user.to_owned(),
            is_shown,
            files: Files::new(url.as_ref(), options.get_ssl_mode()),
        }
    }

    /// As sentences and SQL statements name the database.
    fn database(&self) -> String {
        if self.is_shown { format!("{:?}", self.database) } else { "of database.url".to_owned() }
    }

    /// As sentences and SQL statements name the user.
    pub fn user(&self) -> String {
        if self.is_shown { format!("{:?}", self.user) } else { "of database.url".to_owned() }
    }

    /// The host, as a certificate names it, or the directory of its socket; `HOST` if no part is shown.
    pub fn host(&self) -> &str {
        if self.is_shown { &self.host } else { "HOST" }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_shown {
            return f.write_str(
                "the server of database.url (not named here: the URL has an @ behind its host, which may belong to a \
                 password; write it as %40)",
            );
        }
        write!(f, "PostgreSQL at {} (database {:?}, user {:?})", self.server, self.database, self.user)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why rosterd cannot use the database. The exit code depends on [`is_passing`](Self::is_passing).
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum ConnectError {
    #[error(
        "cannot connect to {0}; check that the server runs, and that database.url names its host and port"
    )]
    Unreachable(Target, #[source] Answer),
    #[error("{0} accepts no connections at present; check the server")]
    NotNow(Target, #[source] Answer),
    #[error(
        "{0} refused the password; correct the password in database.url (or PGPASSWORD, or the password file), and check \
         that the role exists"
    )]
    Password(Target, #[source] Answer),
    #[error(
        "{0} has no such role, or the role may not log in; create it (CREATE ROLE {user} LOGIN PASSWORD '…'), or correct \
         the user in database.url",
        user = .0.user()
    )]
    Role(Target, #[source] Answer),
    #[error(
        "{0} does not let this user connect from here; allow it in the server's pg_hba.conf, or correct host, database and \
         user in database.url"
    )]
    Access(Target, #[source] Answer),
    #[error(
        "{0} has no such database; create it (CREATE DATABASE {database} OWNER {user}), or correct the database in \
         database.url",
        database = .0.database(), user = .0.user()
    )]
    Database(Target, #[source] Answer),
    #[error(
        "{0} does not let this user connect to this database; as its owner run GRANT CONNECT ON DATABASE {database} TO \
         {user}",
        database = .0.database(), user = .0.user()
    )]
    ConnectPrivilege(Target, #[source] Answer),
    #[error("{0} refused the connection; check database.url and its options")]
    Refused(Target, #[source] Answer),
    #[error(
        "{0} asks for an authentication method that rosterd does not have; set scram-sha-256 in the server's pg_hba.conf"
    )]
    Method(Target),
    #[error(
        "{0} has no TLS, but database.url asks for it; set ssl = on at the server, or, if the network between is \
             trusted, sslmode=disable in database.url"
    )]
    NoTls(Target),
    #[error("{target}: {problem}")]
    Tls { target: Target, problem: Problem },
    #[error("{target} runs version {version}; rosterd supports PostgreSQL {} to {}", SUPPORTED.start(), SUPPORTED.end())]
    Version { target: Target, version: u32 },
    #[error("{target} is read-only ({why}), and rosterd must write to it; {advice}")]
    ReadOnly { target: Target, why: &'static str, advice: &'static str },
}

impl ConnectError {
    /// Whether it may pass without a change of the settings or of the server's set-up.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(..) | Self::NotNow(..))
    }

    fn new(target: Target, error: sqlx::Error) -> Self {
        if let Some(problem) = Problem::of(&error, &target) {
            return Self::Tls { target, problem };
        }
        let code = match &error {
            sqlx::Error::Database(said) => said.code().unwrap_or_default().into_owned(),
            sqlx::Error::Tls(error) if error.to_string().contains("does not support TLS") => {
                return Self::NoTls(target);
            }
            sqlx::Error::Protocol(words) if words.starts_with("unsupported authentication method") => {
                return Self::Method(target);
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => {
                return Self::Unreachable(target, Answer::new(error));
            }
            _ => return Self::Refused(target, Answer::new(error)),
        };
        let said = error.as_database_error().and_then(|said| said.try_downcast_ref::<PgDatabaseError>());
        // The server's words may be in any language; the name of its function is not.
        let is_role = said.and_then(PgDatabaseError::routine) == Some("InitializeSessionUserId");
        // What the server quotes may be a piece of a password, too.
        let answer = Answer::new(if target.is_shown { error } else { hidden() });
        match code.as_str() {
            "28P01" => Self::Password(target, answer),
            "28000" if is_role => Self::Role(target, answer),
            "3D000" => Self::Database(target, answer),
            "42501" => Self::ConnectPrivilege(target, answer),
            code if code.starts_with("28") => Self::Access(target, answer),
            code if PASSING.iter().any(|class| code.starts_with(class)) => Self::NotNow(target, answer),
            _ => Self::Refused(target, answer),
        }
    }
}

fn hidden() -> sqlx::Error {
    sqlx::Error::Protocol("its words are not repeated here, as they may quote a password".to_owned())
}

impl Store {
    /// The server, the database and the user.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Connects once outside the pool, which would hide some errors behind its own timeout, and looks at the version; then
    /// asks the pool.
    ///
    /// # Errors
    /// [`StoreError::Connect`] says what is wrong.
    pub async fn connect(&self) -> Result<(), StoreError> {
        let target = || self.target.clone();
        if let Some(problem) = self.target.files.problem() {
            return Err(ConnectError::Tls { target: target(), problem }.into());
        }
        let options = self.reserved.sessions().connect_options();
        let connection: PgConnection = match timeout(CONNECT, options.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if is_poolers(&error) => return Err(error.into()),
            Ok(Err(error)) => return Err(ConnectError::new(target(), error).into()),
            Err(_) => {
                let words = format!("no answer within {} s", CONNECT.as_secs());
                let error = sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words));
                return Err(ConnectError::new(target(), error).into());
            }
        };
        let version = connection.server_version_num().map(|version| version / 10_000);
        let _ = timeout(CLOSE, connection.close()).await;
        match version.filter(|version| !SUPPORTED.contains(version)) {
            Some(version) => Err(ConnectError::Version { target: target(), version }.into()),
            None => self.ping().await,
        }
    }

    /// Makes sure that the server takes writes.
    ///
    /// # Errors
    /// [`ConnectError::ReadOnly`] if it is a standby, or read-only by its settings.
    pub async fn require_writable(&self) -> Result<(), StoreError> {
        let server = sqlx::query!(
            r#"SELECT pg_is_in_recovery() AS "is_standby!",
                      current_setting('transaction_read_only') = 'on' AS "is_read_only!""#
        )
        .fetch_one(&self.reserved)
        .await?;
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

fn is_poolers(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|said| said.message().starts_with(TOO_MUCH_FOR_A_POOLER))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn target(url: &str) -> String {
        Target::new(url, &PgConnectOptions::from_str(url).expect("a URL")).to_string()
    }

    #[test]
    fn target_names_server_database_and_user_but_no_password() {
        let named = target("postgres://jo:hunter2@db.example.com:5433/roster");
        assert_eq!(named, r#"PostgreSQL at db.example.com:5433 (database "roster", user "jo")"#);
        let socket = target("postgres://jo:hunter2@%2Frun%2Fpostgresql/roster");
        assert_eq!(socket, r#"PostgreSQL at /run/postgresql/.s.PGSQL.5432 (database "roster", user "jo")"#);
    }

    #[test]
    fn target_hides_every_part_if_the_password_may_have_spilled_into_it() {
        for url in [
            "postgres://jo:12/canary@db/roster",
            "postgres://jo:12?canary@db/roster",
            "postgres://jo:12#canary@db",
        ] {
            let named = target(url);
            assert!(!named.contains("canary") && !named.contains("12") && named.contains("%40"), "{named}");
        }
    }
}
