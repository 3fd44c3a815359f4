//! Why rosterd cannot connect to the database that its settings name, and how an administrator can fix it.

use sqlx::postgres::PgDatabaseError;

use super::database_error::{DatabaseError, TRANSIENT};
use super::postgres_versions::SUPPORTED;
use super::target::Target;
use super::tls::TlsProblem;

/// Why rosterd cannot use the database. The exit code depends on [`is_transient`](Self::is_transient).
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "cannot connect to {0}; check that the server runs, and that database.url names its host and port"
    )]
    Unreachable(Target, #[source] DatabaseError),
    #[error("{0} accepts no connections at present; check the server")]
    NotNow(Target, #[source] DatabaseError),
    #[error(
        "{0} refused the password; correct the password in database.url (or PGPASSWORD, or the password file), and check \
         that the role exists"
    )]
    Password(Target, #[source] DatabaseError),
    #[error(
        "{0} has no such role, or the role may not log in; create it (CREATE ROLE {user} LOGIN PASSWORD '…'), or correct \
         the user in database.url",
        user = .0.user()
    )]
    Role(Target, #[source] DatabaseError),
    #[error(
        "{0} does not let this user connect from this host; allow it in the server's pg_hba.conf, or correct host, \
         database and user in database.url"
    )]
    Access(Target, #[source] DatabaseError),
    #[error(
        "{0} has no such database; create it (CREATE DATABASE {database} OWNER {user}), or correct the database in \
         database.url",
        database = .0.database(), user = .0.user()
    )]
    Database(Target, #[source] DatabaseError),
    #[error(
        "{0} does not let this user connect to this database; as its owner run GRANT CONNECT ON DATABASE {database} TO \
         {user}",
        database = .0.database(), user = .0.user()
    )]
    ConnectPrivilege(Target, #[source] DatabaseError),
    #[error("{0} refused the connection; check database.url and its options")]
    Refused(Target, #[source] DatabaseError),
    #[error(
        "{0} requires an authentication method that rosterd does not support; set scram-sha-256 in the server's \
         pg_hba.conf"
    )]
    Method(Target),
    #[error(
        "{0} has no TLS, but database.url requires it; set ssl = on at the server, or, if the network between is \
         trusted, set sslmode=disable in database.url"
    )]
    NoTls(Target),
    #[error("{target}: {problem}")]
    Tls { target: Target, problem: TlsProblem },
    #[error("{target} runs version {version}; rosterd supports PostgreSQL {} to {}", SUPPORTED.start(), SUPPORTED.end())]
    Version { target: Target, version: u32 },
    #[error("{target} is read-only ({why}), and rosterd must write to it; {advice}")]
    ReadOnly { target: Target, why: &'static str, advice: &'static str },
    #[error(
        "{target} cannot hold every name, or compares e-mail addresses wrongly ({why}); create another database with {with}"
    )]
    Text { target: Target, why: &'static str, with: &'static str },
}

impl ConnectError {
    /// Whether the cause may end without a change of the settings or of the server's configuration.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(..) | Self::NotNow(..))
    }

    pub(super) fn new(target: Target, error: sqlx::Error) -> Self {
        if let Some(problem) = TlsProblem::of(&error, target.host()) {
            return Self::Tls { target, problem };
        }
        let code = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
            sqlx::Error::Tls(error) if error.to_string().contains("does not support TLS") => {
                return Self::NoTls(target);
            }
            sqlx::Error::Protocol(text) if text.starts_with("unsupported authentication method") => {
                return Self::Method(target);
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => {
                return Self::Unreachable(target, DatabaseError(error));
            }
            _ => return Self::Refused(target, DatabaseError(error)),
        };
        let postgres =
            error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        // The server may translate its message, but not the name of its function.
        let is_role = postgres.and_then(PgDatabaseError::routine) == Some("InitializeSessionUserId");
        // The server's message may quote a piece of a password, too.
        let source = DatabaseError(if target.is_shown { error } else { without_message() });
        match code.as_str() {
            "28P01" => Self::Password(target, source),
            "28000" if is_role => Self::Role(target, source),
            "3D000" => Self::Database(target, source),
            "42501" => Self::ConnectPrivilege(target, source),
            code if code.starts_with("28") => Self::Access(target, source),
            code if TRANSIENT.iter().any(|class| code.starts_with(class)) => Self::NotNow(target, source),
            _ => Self::Refused(target, source),
        }
    }
}

fn without_message() -> sqlx::Error {
    sqlx::Error::Protocol("its message is not repeated here, as it may quote a password".to_owned())
}
