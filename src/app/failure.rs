//! How a command ends when it does not end well: an exit code that a script can act on, and a sentence for a person.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::harvest::HarvestError;
use crate::settings::SettingsError;
use crate::store::StoreError;
use crate::store::diagnosis::Target;
use crate::store::local::LocalError;
use crate::sync::cycle::CycleError;
use crate::telemetry::sentences;

/// Exit codes, after `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Differences were found, there is no such record, the mirror is older than asked, or a question was answered with no.
    Differences = 1,
    /// The command line is wrong or incomplete; clap exits with the same code.
    Usage = 2,
    /// Harvest, the database or the port to listen on is not available.
    Unavailable = 69,
    /// A fault in rosterd.
    Internal = 70,
    /// Another rosterd is at work, or another session holds a lock that a migration needs.
    Busy = 75,
    /// Harvest refused the token or does not know the account.
    Credentials = 77,
    /// The settings are invalid.
    Settings = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    /// Whether the error is the database's, and does not say which database.
    is_unplaced: bool,
    place: Option<String>,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into(), is_unplaced: false, place: None }
    }

    /// Adds which database it was, if the error is the database's and does not say so.
    #[must_use]
    pub fn at(self, target: &Target) -> Self {
        let place = self.is_unplaced.then(|| target.to_string());
        Self { place: place.or(self.place), ..self }
    }

    /// A task of the daemon ended although nothing had stopped it.
    pub fn task_died() -> Self {
        let fault = "a task of the daemon ended by itself; this is a fault in rosterd, its log says more";
        Self::new(Exit::Internal, fault)
    }
}

/// The sentence, then its causes and the database, a line each.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentences(&*self.error).join("\n  because: "))?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, "\n  database: {place}"))
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Settings, error)
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        Self::new(Exit::Settings, error)
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
            | StoreError::NoSchema(_) => Exit::Settings,
            StoreError::Fenced(_)
            | StoreError::Held { .. }
            | StoreError::Locked { .. }
            | StoreError::Migrating => Exit::Busy,
            StoreError::Refusing { .. } => Exit::Unavailable,
            error if error.is_unavailable() => Exit::Unavailable,
            StoreError::Connect(_) => Exit::Settings,
            _ => Exit::Internal,
        };
        let is_placed = matches!(
            error,
            StoreError::Url
                | StoreError::Connect(_)
                | StoreError::Seal(_)
                | StoreError::Fenced(_)
                | StoreError::Held { .. }
        );
        Self { is_unplaced: !is_placed, ..Self::new(exit, error) }
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
            error @ (CycleError::Demoted { .. } | CycleError::OtherCompany { .. }) => {
                Self::new(Exit::Credentials, error)
            }
            error @ (CycleError::NobodyThere | CycleError::NothingThere | CycleError::Stalled(_)) => {
                Self::new(Exit::Unavailable, error)
            }
            error @ CycleError::Stopped => Self::new(Exit::Busy, error),
        }
    }
}
