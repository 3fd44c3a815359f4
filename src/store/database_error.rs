//! The text of an error of PostgreSQL or sqlx, without values of rows.

use std::fmt;

use sqlx::postgres::PgDatabaseError;

use super::tls;

/// SQLSTATEs, or their classes, of errors that end without a change of rosterd's settings: connection trouble, wrong
/// password, no such database, deadlock, insufficient resources, locks and statements that took too long, operator
/// intervention.
pub(super) const TRANSIENT: [&str; 9] = ["08", "28", "3D", "40001", "40P01", "53", "55P03", "57014", "57P"];

/// Classes of SQLSTATEs whose messages describe the statement or the server, and so quote no value. The messages of
/// other errors may quote what a row holds.
const WITHOUT_VALUES: [&str; 8] = ["0A", "25", "26", "3F", "42", "55", "58", "XX"];

/// PgBouncer's message if a client sends a startup parameter that PgBouncer does not know. Its SQLSTATE is unspecific.
const UNSUPPORTED_STARTUP_PARAMETER: &str = "unsupported startup parameter";

/// An error of PostgreSQL or sqlx. Its text quotes no value of a row.
pub struct DatabaseError(pub(super) sqlx::Error);

impl DatabaseError {
    /// Whether a trigger or a function may have chosen the message and the SQLSTATE: the source files of PostgreSQL's
    /// procedural languages are `pl_exec.c`, `plpy_elog.c`, `plperl.c` and the like. If a disk is full, a lock is not
    /// available or the server shuts down during a function, PostgreSQL names another source file.
    fn is_raised_by_a_function(&self) -> bool {
        let postgres =
            self.0.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        postgres.is_some_and(|error| {
            error.r#where().is_some() && error.file().is_some_and(|file| file.starts_with("pl"))
        })
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = tls::handshake_error(&self.0) {
            return match error {
                rustls::Error::InvalidCertificate(rustls::CertificateError::Other(error)) => {
                    write!(f, "the server's certificate is not valid: {}", error.0)
                }
                error => error.fmt(f),
            };
        }
        let error = match &self.0 {
            sqlx::Error::Database(error) => error,
            // Without sqlx's prefix.
            sqlx::Error::Io(error) => return error.fmt(f),
            sqlx::Error::Tls(error) => return error.fmt(f),
            sqlx::Error::PoolTimedOut => return f.write_str("no connection to the server in time"),
            error => return error.fmt(f),
        };
        let code = error.code().unwrap_or_default();
        let has_no_value = WITHOUT_VALUES.iter().chain(&TRANSIENT).any(|class| code.starts_with(class));
        if has_no_value && !self.is_raised_by_a_function() {
            // sqlx's own text adds a line number of PostgreSQL's source.
            return f.write_str(error.message());
        }
        let name = |what, name: Option<&str>| name.map(|name| format!(", {what} {name}")).unwrap_or_default();
        let (table, constraint) = (name("table", error.table()), name("constraint", error.constraint()));
        write!(
            f,
            "SQLSTATE {code}{table}{constraint}; its message is not repeated here, as it may quote a record"
        )
    }
}

impl fmt::Debug for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DatabaseError {}

/// Whether this is a temporary failure of the server or of the connection.
pub(super) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        // A proxy that loses its server closes the connection in the middle of a message.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| TRANSIENT.iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// Whether PgBouncer refused a startup parameter.
pub(super) fn is_refused_by_pooler(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().starts_with(UNSUPPORTED_STARTUP_PARAMETER))
}
