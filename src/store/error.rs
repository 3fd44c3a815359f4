//! What can go wrong at the database, told apart where the caller decides differently.

use std::fmt;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use super::diagnosis::ConnectError;
use super::seal::SealError;
use super::tls;
use crate::roster::AccountId;

/// Why an operation on the database failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `database.url` is no PostgreSQL URL. It may hold a password, so it is not shown.
    #[error(
        "database.url is not a PostgreSQL URL; give one such as postgres://user:password@host:5432/database"
    )]
    Url,
    /// The database that the settings name cannot be used.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// Another process has taken the account over: nothing of ours may be written any more.
    #[error("another rosterd has taken account {0} over")]
    Fenced(AccountId),
    /// A living process writes the account.
    #[error(
        "{by} writes account {account}; take the account out of its settings, or stop it, and come again"
    )]
    Held {
        /// The account.
        account: AccountId,
        /// The process: host and process id.
        by: String,
    },
    /// The migrations failed.
    #[error("cannot bring the database's schema up to date")]
    Migrate(#[source] MigrateError),
    /// The server refuses a statement of a migration.
    #[error("migration {version} failed and was not applied")]
    Migration {
        /// The migration.
        version: i64,
        /// What the server says.
        source: Answer,
    },
    /// Another role owns what the migrations must change.
    #[error(
        "{object} belongs to {owner}, and user {user} may not change it; connect as {owner}, run ALTER {object} OWNER TO \
         {user}, or give rosterd a database of its own"
    )]
    Owner {
        /// Such as `TABLE roster.users`.
        object: String,
        /// The role that owns it.
        owner: String,
        /// The role of this process.
        user: String,
    },
    /// A relation has the name of one of rosterd's, and rosterd has not made it.
    #[error(
        "{object} exists and belongs to {owner}, but rosterd has applied no migration to this database; rename or drop \
         it, or give rosterd a database of its own"
    )]
    Taken {
        /// Such as `TABLE roster.users`.
        object: String,
        /// The role that owns it.
        owner: String,
    },
    /// The server takes no writes.
    #[error(
        "the database is read-only; set database.url to the primary server, or let this database be written"
    )]
    ReadOnly(#[source] Answer),
    /// Other sessions hold a lock that a migration needs.
    #[error(
        "migration {version} needs a lock that is held by {holders}; end that session or its transaction, or try again \
         later; the migration was not applied"
    )]
    Locked {
        /// The migration.
        version: i64,
        /// The sessions: process id, program, user and state.
        holders: String,
    },
    /// Another rosterd brings the schema up to date.
    #[error("another rosterd is applying migrations to this database; try again when it has finished")]
    Migrating,
    /// The server cannot be reached, is starting or stopping, or has no room for us.
    #[error("the database does not answer, or not in time; check database.url and the server")]
    Unavailable(#[source] Answer),
    /// No encrypted way to the server, or not to the one that was meant.
    #[error(
        "no TLS with the database as database.url asks for it; check its sslmode (verify-full is best, disable does \
         without), its sslrootcert (the file of the authority that signed the server's certificate) and its host (the name \
         in that certificate)"
    )]
    Tls(#[source] Answer),
    /// This user of the database may not do what is needed.
    #[error(
        "the database user lacks a privilege; connect as the owner of the schemas roster and rosterd_internal, or let that \
         owner run `rosterd migrate` and grant what `rosterd check` names"
    )]
    Privilege(#[source] Answer),
    /// Nobody has made the tables yet.
    #[error("the database lacks tables of rosterd; run `rosterd migrate`")]
    NoSchema(#[source] Answer),
    /// Something in between takes sessions apart.
    #[error(
        "a pooler in transaction mode stands before the database; set database.prepared_statements = false, or give its \
         PgBouncer (1.21 or newer) max_prepared_statements"
    )]
    Pooler(#[source] Answer),
    /// A statement wrote another number of rows than it must.
    #[error("wrote {wrote} rows of {table} instead of {expected}; nothing was kept")]
    RowCount {
        /// The table.
        table: &'static str,
        /// How many it should have been.
        expected: u64,
        /// How many it was.
        wrote: u64,
    },
    /// A secret could not be sealed.
    #[error("cannot seal what must not be stored in clear")]
    Seal(#[from] SealError),
    /// The server refuses records, and not because of the records.
    #[error(
        "PostgreSQL refuses at least {refused} of the {changed} new or changed records of a page of {list}; the cause is the \
         database and not these records, so nothing of the page was stored; check the triggers, constraints, indexes and \
         settings of roster.{list} and roster.outbox"
    )]
    Refusing {
        /// The list.
        list: &'static str,
        /// How many it is known to refuse.
        refused: usize,
        /// Of how many.
        changed: usize,
        /// What the server says of one of them.
        source: Answer,
    },
    /// Anything else that the server says.
    #[error("the database refused a statement")]
    Database(#[source] Answer),
}

/// What the server says of a statement, or sqlx of its answer.
pub struct Answer(sqlx::Error);

/// Classes of SQLSTATEs with which PostgreSQL speaks of the statement or of itself, and so in words that quote no value. In
/// other errors it may quote what a row holds.
const OF_THE_STATEMENT: [&str; 8] = ["0A", "25", "26", "3F", "42", "55", "58", "XX"];

impl Answer {
    pub(super) fn new(error: sqlx::Error) -> Self {
        Self(error)
    }

    /// Whether a trigger or a function may have chosen the words, and the SQLSTATE: the source files of PostgreSQL's
    /// procedural languages are `pl_exec.c`, `plpy_elog.c`, `plperl.c` and the like. A full disk, a lock or a shutdown that
    /// PostgreSQL meets within a function comes from other files.
    fn is_raised(&self) -> bool {
        let postgres =
            self.0.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        postgres.is_some_and(|error| {
            error.r#where().is_some() && error.file().is_some_and(|file| file.starts_with("pl"))
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = tls::handshake(&self.0) {
            return match error {
                rustls::Error::InvalidCertificate(rustls::CertificateError::Other(error)) => {
                    write!(f, "the server's certificate is not valid: {}", error.0)
                }
                error => error.fmt(f),
            };
        }
        let error = match &self.0 {
            sqlx::Error::Database(error) => error,
            // The words of the operating system alone.
            sqlx::Error::Io(error) => return error.fmt(f),
            sqlx::Error::Tls(error) => return error.fmt(f),
            sqlx::Error::PoolTimedOut => return f.write_str("no connection to the server in time"),
            error => return error.fmt(f),
        };
        let code = error.code().unwrap_or_default();
        let quotes_no_value = OF_THE_STATEMENT.iter().chain(&PASSING).any(|class| code.starts_with(class));
        if quotes_no_value && !self.is_raised() {
            // Not sqlx's own form of it, which adds a line number of PostgreSQL's source.
            return f.write_str(error.message());
        }
        let name = |what, name: Option<&str>| name.map(|name| format!(", {what} {name}")).unwrap_or_default();
        let (table, constraint) = (name("table", error.table()), name("constraint", error.constraint()));
        write!(
            f,
            "SQLSTATE {code}{table}{constraint}; its words are not repeated here, as they may quote a record"
        )
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Answer {}

/// SQLSTATE `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// SQLSTATEs of a table, or a schema, that is not there.
const NOT_THERE: [&str; 2] = ["42P01", "3F000"];

/// SQLSTATEs `lock_not_available`, `deadlock_detected` and `query_canceled`.
const LOCK_CONFLICT: [&str; 3] = ["55P03", "40P01", "57014"];

/// SQLSTATEs of statements that were prepared elsewhere, or whose names are taken.
const NOT_PREPARED_HERE: [&str; 2] = ["26000", "42P05"];

/// What PgBouncer says to a session that wants more than it knows of; under a SQLSTATE that says nothing.
pub(super) const TOO_MUCH_FOR_A_POOLER: &str = "unsupported startup parameter";

/// SQLSTATE `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let (is_tls, is_unavailable) = (is_tls(&error), is_unavailable(&error));
        let said = error.as_database_error();
        let is_pooler = said.is_some_and(|said| said.message().starts_with(TOO_MUCH_FOR_A_POOLER));
        let code = said.and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        let answer = Answer(error);
        match &*code {
            _ if is_pooler => Self::Pooler(answer),
            INSUFFICIENT_PRIVILEGE => Self::Privilege(answer),
            READ_ONLY => Self::ReadOnly(answer),
            code if NOT_THERE.contains(&code) => Self::NoSchema(answer),
            code if NOT_PREPARED_HERE.contains(&code) => Self::Pooler(answer),
            _ if is_tls => Self::Tls(answer),
            _ if is_unavailable => Self::Unavailable(answer),
            _ => Self::Database(answer),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => error.into(),
            MigrateError::ExecuteMigration(error, version) => match error.into() {
                Self::Database(source) => Self::Migration { version, source },
                error => error,
            },
            error => Self::Migrate(error),
        }
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

impl StoreError {
    /// The server refuses what was written; the cause may be one record.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Database(Answer(sqlx::Error::Database(error)))
            if error.code().is_some_and(|code| REFUSING.iter().any(|class| code.starts_with(class))))
            && !self.is_version_conflict()
    }

    /// A refusal that is not the records' fault.
    #[must_use]
    pub fn of_the_database(self, list: &'static str, refused: usize, changed: usize) -> Self {
        match self {
            Self::Database(source) => Self::Refusing { list, refused, changed, source },
            error => error,
        }
    }

    /// A record's new version is not above its last one: the row was deleted, or its version lowered, by hand.
    pub fn is_version_conflict(&self) -> bool {
        matches!(self, Self::Database(Answer(sqlx::Error::Database(error)))
            if error.is_unique_violation()
                && error.table().is_some_and(|table| WITH_VERSIONS.contains(&table))
                && error.constraint() != Some("outbox_pkey"))
    }

    /// The server has such a row already.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(Answer(sqlx::Error::Database(error))) if error.is_unique_violation())
    }

    /// Why the server does not take a value, without the value.
    pub fn refusal(&self) -> String {
        match self {
            Self::Database(Answer(sqlx::Error::Database(error))) => {
                format!("PostgreSQL does not take it (SQLSTATE {})", error.code().unwrap_or_default())
            }
            _ => "PostgreSQL does not take it".to_owned(),
        }
    }

    /// A lock of another session was in the way, or PostgreSQL cancelled the statement that waited for it.
    pub(super) fn is_lock_conflict(&self) -> bool {
        let Self::Unavailable(Answer(error)) = self else { return false };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| LOCK_CONFLICT.contains(&&*code))
    }

    /// Worth waiting for.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Tls(_) | Self::ReadOnly(_) => true,
            Self::Connect(error) => error.is_passing(),
            _ => false,
        }
    }
}

/// Tables in which each version of a record stands once. `outbox` has `seq` as its primary key besides.
const WITH_VERSIONS: [&str; 4] = ["outbox", "user_history", "user_assignment_history", "rate_versions"];

/// Classes of SQLSTATEs with which one record can be refused: an invalid value, a constraint, a limit (a long text in an
/// index), and the error of a trigger that names no SQLSTATE.
const REFUSING: [&str; 4] = ["22", "23", "54", "P0"];

/// SQLSTATEs, or their classes, of what passes or is put right at the server: connection trouble, wrong password, no such
/// database, deadlock, insufficient resources, locks and statements that took too long, operator intervention.
pub(super) const PASSING: [&str; 9] = ["08", "28", "3D", "40001", "40P01", "53", "55P03", "57014", "57P"];

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        // A proxy whose server is gone hangs up in the middle of a sentence.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| PASSING.iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

fn is_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Tls(_)) || tls::handshake(error).is_some()
}

/// Says so when a statement wrote too few or too many rows; the transaction is then rolled back.
pub(super) fn ensure_rows(table: &'static str, expected: usize, wrote: u64) -> Result<(), StoreError> {
    let expected = expected as u64;
    if wrote == expected { Ok(()) } else { Err(StoreError::RowCount { table, expected, wrote }) }
}
