//! Errors of the private PostgreSQL server, each with a fix.

use std::io;
use std::path::{Path, PathBuf};

use crate::download::DownloadError;

/// Why the private PostgreSQL server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The machine has no supported PostgreSQL server.
    #[error(
        "no database is configured and no PostgreSQL server of version 15 to 18 was found on this machine ({seen}), and \
         {no_download}; install one (Debian, Ubuntu: `apt install postgresql`; Fedora, RHEL: `dnf install \
         postgresql-server`; macOS: `brew install postgresql@17`) or set DATABASE_URL to an existing server"
    )]
    NoBinaries {
        /// Installed servers of other versions, or "none of any version".
        seen: String,
        /// Why rosterd downloads none.
        no_download: &'static str,
    },

    /// The machine has no supported PostgreSQL server, and none could be downloaded.
    #[error(
        "no database is configured, no PostgreSQL server of version 15 to 18 was found on this machine, and rosterd could \
         not download one; install it (Debian, Ubuntu: `apt install postgresql`; Fedora, RHEL: `dnf install \
         postgresql-server`; macOS: `brew install postgresql@17`), set database.download_url to a mirror, or set \
         DATABASE_URL to an existing server"
    )]
    Download(#[source] DownloadError),

    #[error(
        "the PostgreSQL that rosterd downloaded into {dir} does not run on this machine ({outcome}); install what it needs, \
         or install PostgreSQL (Debian, Ubuntu: `apt install postgresql`; Fedora, RHEL: `dnf install postgresql-server`; \
         macOS: `brew install postgresql@17`); remove {dir} to download it again"
    )]
    Unusable {
        dir: PathBuf,
        /// What `postgres --version` printed.
        outcome: String,
    },

    /// The cluster needs a server of the major version that created it.
    #[error(
        "the private database in {dir} was made by PostgreSQL {major}, which was not found on this machine ({seen}); \
         install PostgreSQL {major}, or move that directory away to begin with an empty database"
    )]
    OtherMajor { dir: PathBuf, major: u32, seen: String },

    #[error(
        "{dir} is not empty and holds no private database of rosterd; set database.data_dir to an empty or new directory"
    )]
    NotOurs { dir: PathBuf },

    /// rosterd runs as root, and no other user exists that could run the server.
    #[error(
        "PostgreSQL does not run as root and there is neither a user `postgres` nor `nobody` to run it; run rosterd \
         as an ordinary user, or set DATABASE_URL"
    )]
    NoUser,

    /// rosterd runs as root, and the user that runs the server cannot enter the directory.
    #[error(
        "the user {user}, which runs the private PostgreSQL server, cannot enter {dir}; set database.data_dir to a directory that \
         this user can enter"
    )]
    OutOfReach { user: String, dir: PathBuf },

    #[error("cannot {doing} {path}; check that it exists and that rosterd's user may use it")]
    Files {
        /// The operation, such as "read".
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// The cluster exists, but its password file does not.
    #[error(
        "the private database in {dir} exists, but its password file {pgpass} does not or cannot be read; restore \
         the file, or move that directory away to begin with an empty database"
    )]
    PasswordLost { dir: PathBuf, pgpass: PathBuf },

    #[error(
        "the private PostgreSQL server in {dir} refused the password in {pgpass}; restore the file, or move that \
         directory away to begin with an empty database"
    )]
    PasswordRefused { dir: PathBuf, pgpass: PathBuf },

    /// Another rosterd is starting or stopping the server for too long.
    #[error(
        "another rosterd is still starting or stopping the private PostgreSQL server in {dir}; try again when it has finished"
    )]
    Busy { dir: PathBuf },

    #[error(
        "running {program} for the private PostgreSQL server failed ({outcome}); fix the cause, or set DATABASE_URL to an \
         existing server"
    )]
    Program {
        program: String,
        /// How it ended, and the end of its output.
        outcome: String,
    },

    #[error(
        "the private PostgreSQL server in {dir} did not start; fix the error at the end of its log {log}, or set DATABASE_URL to \
         an existing server; the log ends with: {tail}"
    )]
    Start { dir: PathBuf, log: PathBuf, tail: String },

    #[error(
        "the private PostgreSQL server in {dir} runs as process {pid} but did not answer on port {port} in time; check its log, or \
         stop it and try again"
    )]
    Unanswered { dir: PathBuf, pid: u32, port: u16, source: sqlx::Error },
}

impl LocalError {
    /// The same error with the reason why rosterd downloads no server.
    pub(super) fn without_download(self, reason: &'static str) -> Self {
        match self {
            Self::NoBinaries { seen, .. } => Self::NoBinaries { seen, no_download: reason },
            other => other,
        }
    }

    pub(super) fn files(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Files { doing, path: path.to_owned(), source }
    }
}
