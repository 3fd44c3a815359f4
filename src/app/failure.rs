//! The failure of a command: an exit code for scripts and a message for people.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::harvest::HarvestError;
use crate::settings::SettingsError;
use crate::store::local::LocalError;
use crate::store::{StoreError, Target};
use crate::sync::error::CycleError;
use crate::telemetry::{chain, sentences};

/// Exit codes, from `sysexits.h` if it defines one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Differences were found, the record does not exist, the mirror is older than requested, or the user declined.
    Differences = 1,
    /// The command line is invalid. clap exits with the same code.
    Usage = 2,
    Data = 65,
    /// Harvest, the database or the port to listen on is not available.
    Unavailable = 69,
    Internal = 70,
    /// Another process holds the lease, or another session holds a lock that a migration needs.
    Busy = 75,
    /// Harvest refused the token, the account or a write, or the settings refuse the write.
    Credentials = 77,
    Settings = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    /// Whether the error is from the database and does not name the database.
    needs_database: bool,
    database: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into(), needs_database: false, database: None }
    }

    /// Adds the database, if the error is from the database and does not name it.
    #[must_use]
    pub fn at(self, target: &Target) -> Self {
        let database = self.needs_database.then(|| target.to_string());
        Self { database: database.or(self.database), ..self }
    }

    /// The message and its causes in one line.
    pub(super) fn chain(&self) -> String {
        chain(&*self.error)
    }

    /// A task of the daemon ended although the daemon was not asked to stop.
    pub(crate) fn task_died() -> Self {
        let message =
            "a task of the daemon ended unexpectedly; this is a bug in rosterd; see its log for the cause";
        Self::new(Exit::Internal, message)
    }
}

/// The message, its causes and the database, one line each.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentences(&*self.error).join("\n  because: "))?;
        self.database.as_ref().map_or(Ok(()), |database| write!(f, "\n  database: {database}"))
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Settings, error)
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        let is_temporary = matches!(&error, LocalError::Download(error) if error.is_temporary());
        Self::new(if is_temporary { Exit::Unavailable } else { Exit::Settings }, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Url
            | StoreError::Owner { .. }
            | StoreError::Taken { .. }
            | StoreError::ReadOnly(_)
            | StoreError::Tls(_)
            | StoreError::Privilege(_)
            | StoreError::Pooler(_)
            | StoreError::OtherSchema
            | StoreError::NoSchema(_) => Exit::Settings,
            StoreError::Fenced(_)
            | StoreError::Held { .. }
            | StoreError::Locked { .. }
            | StoreError::Migrating => Exit::Busy,
            StoreError::PageRefused { .. } => Exit::Unavailable,
            error if error.is_unavailable() => Exit::Unavailable,
            StoreError::Connect(_) => Exit::Settings,
            _ => Exit::Internal,
        };
        let names_database = matches!(
            error,
            StoreError::Url
                | StoreError::Connect(_)
                | StoreError::Seal(_)
                | StoreError::Fenced(_)
                | StoreError::Held { .. }
        );
        Self { needs_database: !names_database, ..Self::new(exit, error) }
    }
}

impl From<HarvestError> for Failure {
    fn from(error: HarvestError) -> Self {
        let exit = if error.is_credentials() { Exit::Credentials } else { Exit::Unavailable };
        Self::new(exit, error)
    }
}

impl From<CycleError> for Failure {
    fn from(error: CycleError) -> Self {
        match error {
            CycleError::Harvest(error) => error.into(),
            CycleError::Store(error) => error.into(),
            error @ (CycleError::LostAdministrator { .. } | CycleError::OtherCompany { .. }) => {
                Self::new(Exit::Credentials, error)
            }
            error
            @ (CycleError::EmptyUserList | CycleError::EmptyAssignmentList | CycleError::Stalled(_)) => {
                Self::new(Exit::Unavailable, error)
            }
            error @ CycleError::Stopped => Self::new(Exit::Busy, error),
        }
    }
}
