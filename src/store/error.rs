//! Errors of the store, with one variant for each case that callers treat differently.

use sqlx::migrate::MigrateError;

use super::connect_error::ConnectError;
use super::database_error::{DatabaseError, is_refused_by_pooler, is_transient};
use super::seal::SealError;
use super::tls;
use crate::roster::AccountId;

/// Why an operation on the database failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `database.url` is not a PostgreSQL URL. It may hold a password, so it is not shown.
    #[error(
        "database.url is not a PostgreSQL URL; give one such as postgres://user:password@host:5432/database"
    )]
    Url,
    /// The database that the settings name cannot be used.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// Another process holds the account's lease now; this process may write nothing more.
    #[error(
        "lost the lease of account {0} to another rosterd process; this process stops writing the account"
    )]
    Fenced(AccountId),
    /// A standby of the database was promoted, and other lease holders may still know a lost event.
    #[error(
        "a standby of the database was promoted; no event is written until every lease holder has confirmed that no event \
         is lost, or its lease has expired"
    )]
    Undecided,
    /// A running process holds the account's lease.
    #[error(
        "rosterd process {by} writes account {account}; stop it, or remove the account from its settings, and try again"
    )]
    Held {
        account: AccountId,
        /// The process: host and process id.
        by: String,
    },
    #[error("cannot apply the migrations of the database's schema; `rosterd check` compares the versions")]
    Migrate(#[source] MigrateError),
    /// The database has the migrations of another schema, which no migration continues.
    #[error(
        "the database has the schema of an unreleased rosterd, which this one does not continue; give rosterd an empty \
         database: the first sync reads everything again, and consumers reload"
    )]
    OtherSchema,
    /// The server refused a statement of a migration.
    #[error("migration {version} failed and was not applied; fix the cause, and run `rosterd migrate` again")]
    Migration { version: i64, source: DatabaseError },
    /// Another role owns what the migrations must change.
    #[error(
        "{object} belongs to {owner}, and user {user} may not change it; connect as {owner}, run ALTER {object} OWNER TO \
         {user}, or give rosterd a separate database"
    )]
    Owner {
        /// Such as `TABLE roster.users`.
        object: String,
        owner: String,
        user: String,
    },
    /// A relation that rosterd did not create has a name that rosterd needs.
    #[error(
        "{object} exists and belongs to {owner}, but rosterd has applied no migration to this database; rename or drop \
         it, or give rosterd a separate database"
    )]
    Taken {
        /// Such as `TABLE roster.users`.
        object: String,
        owner: String,
    },
    /// The server takes no writes.
    #[error(
        "the database is read-only; set database.url to the primary server, or make this database writable"
    )]
    ReadOnly(#[source] DatabaseError),
    /// Other sessions hold a lock that a migration needs.
    #[error(
        "migration {version} needs a lock that is held by {holders}; end that session or its transaction, or try again \
         later; the migration was not applied"
    )]
    Locked {
        version: i64,
        /// The sessions: process id, program, user and state.
        holders: String,
    },
    #[error("another rosterd is applying migrations to this database; try again when it has finished")]
    Migrating,
    /// The server cannot be reached, is starting or stopping, or is short of a resource.
    #[error("the database does not answer, or not in time; check database.url and the server")]
    Unavailable(#[source] DatabaseError),
    /// TLS failed, or the server's certificate was refused.
    #[error(
        "the TLS connection to the database that database.url requires failed; check its sslmode (verify-full is best, \
         disable turns TLS off), its sslrootcert (the file of the authority that signed the server's certificate) and its \
         host (the name in that certificate)"
    )]
    Tls(#[source] DatabaseError),
    /// The database user has no right to do this.
    #[error(
        "the database user lacks a privilege; connect as the owner of the schemas roster and rosterd_internal, or let that \
         owner run `rosterd migrate` and grant what `rosterd check` names"
    )]
    Privilege(#[source] DatabaseError),
    #[error("tables of rosterd are missing in the database; run `rosterd migrate`")]
    NoSchema(#[source] DatabaseError),
    /// A pooler runs statements of one session on several server connections.
    #[error(
        "database.url leads through a pooler in transaction mode; set database.prepared_statements = false, or set \
         max_prepared_statements in its PgBouncer (1.21 or newer)"
    )]
    Pooler(#[source] DatabaseError),
    /// A statement wrote an unexpected number of rows.
    #[error(
        "a statement wrote {wrote} rows of {table} instead of {expected}, so its transaction was rolled back; check the \
         table's triggers and rules"
    )]
    RowCount { table: &'static str, expected: u64, wrote: u64 },
    #[error("cannot encrypt the credentials, so they were not stored")]
    Seal(#[from] SealError),
    /// The server refuses many records of a page: the cause is the database.
    #[error(
        "PostgreSQL refuses at least {refused} of the {changed} new or changed records of a page of {list}; the cause is the \
         database and not these records, so nothing of the page was stored; check the triggers, constraints, indexes and \
         settings of roster.{list} and roster.outbox"
    )]
    PageRefused {
        list: &'static str,
        /// How many records the server is known to refuse.
        refused: usize,
        /// How many records of the page are new or changed.
        changed: usize,
        /// The server's error for one of them.
        source: DatabaseError,
    },
    #[error("the database refused a statement")]
    Database(#[source] DatabaseError),
}

/// SQLSTATE `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// SQLSTATEs `undefined_table` and `invalid_schema_name`.
const UNDEFINED: [&str; 2] = ["42P01", "3F000"];

/// SQLSTATEs `lock_not_available`, `deadlock_detected` and `query_canceled`.
const LOCK_CONFLICT: [&str; 3] = ["55P03", "40P01", "57014"];

/// SQLSTATEs of statements that were prepared on another server connection, or whose names are taken on this one.
const PREPARED_ELSEWHERE: [&str; 2] = ["26000", "42P05"];

/// SQLSTATE `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// Classes of SQLSTATEs with which the server can refuse one record: an invalid value, a constraint, a limit (a long
/// text in an index), and the error of a trigger that names no SQLSTATE.
const RECORD_REFUSALS: [&str; 4] = ["22", "23", "54", "P0"];

/// Tables with a unique key of record and version. `outbox` also has `seq` as its primary key.
const VERSIONED_TABLES: [&str; 3] = ["outbox", "user_history", "user_assignment_history"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let is_tls = matches!(error, sqlx::Error::Tls(_)) || tls::handshake_error(&error).is_some();
        let (is_transient, is_pooler) = (is_transient(&error), is_refused_by_pooler(&error));
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        let code = code.unwrap_or_default().into_owned();
        let source = DatabaseError(error);
        match &*code {
            _ if is_pooler => Self::Pooler(source),
            INSUFFICIENT_PRIVILEGE => Self::Privilege(source),
            READ_ONLY => Self::ReadOnly(source),
            code if UNDEFINED.contains(&code) => Self::NoSchema(source),
            code if PREPARED_ELSEWHERE.contains(&code) => Self::Pooler(source),
            _ if is_tls => Self::Tls(source),
            _ if is_transient => Self::Unavailable(source),
            _ => Self::Database(source),
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
    /// The server's error, if it refused a statement and no other variant fits.
    fn refused_statement(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        match self {
            Self::Database(DatabaseError(error)) => error.as_database_error(),
            _ => None,
        }
    }

    /// Whether one record can be the cause of the server's refusal.
    pub(crate) fn is_refusal(&self) -> bool {
        let code = self.refused_statement().and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| RECORD_REFUSALS.iter().any(|class| code.starts_with(class)))
            && !self.is_version_conflict()
    }

    /// Turns the refusal of one record into the refusal of its page.
    #[must_use]
    pub(crate) fn into_page_refused(self, list: &'static str, refused: usize, changed: usize) -> Self {
        match self {
            Self::Database(source) => Self::PageRefused { list, refused, changed, source },
            error => error,
        }
    }

    /// Whether a record's new version is not above its last one: an administrator deleted the row or lowered its
    /// version manually.
    pub(crate) fn is_version_conflict(&self) -> bool {
        self.refused_statement().is_some_and(|error| {
            error.is_unique_violation()
                && error.table().is_some_and(|table| VERSIONED_TABLES.contains(&table))
                && error.constraint() != Some("outbox_pkey")
        })
    }

    /// Whether the table has a row with this key already.
    pub(crate) fn is_unique_violation(&self) -> bool {
        self.refused_statement().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Why the server refuses a record, without the record's values.
    pub(crate) fn refusal_reason(&self) -> String {
        match self.refused_statement() {
            Some(error) => {
                format!("PostgreSQL refuses the record (SQLSTATE {})", error.code().unwrap_or_default())
            }
            None => "PostgreSQL refuses the record".to_owned(),
        }
    }

    /// Whether a lock of another session was in the way, or the statement that waited for the lock was cancelled.
    pub(super) fn is_lock_conflict(&self) -> bool {
        let Self::Unavailable(DatabaseError(error)) = self else { return false };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| LOCK_CONFLICT.contains(&&*code))
    }

    /// Whether a later attempt can succeed without a change of the settings.
    pub(crate) fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Tls(_) | Self::ReadOnly(_) => true,
            Self::Connect(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// Returns [`StoreError::RowCount`] if a statement wrote another number of rows than expected.
pub(super) fn ensure_rows(table: &'static str, expected: usize, wrote: u64) -> Result<(), StoreError> {
    let expected = expected as u64;
    if wrote == expected { Ok(()) } else { Err(StoreError::RowCount { table, expected, wrote }) }
}
