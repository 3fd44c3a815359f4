//! What can go wrong, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no private PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The machine has no server to run.
    #[error(
        "no database is configured and no PostgreSQL server of version 15 to 18 was found here ({seen}): install \
         one (Debian, Ubuntu: `apt install postgresql`; Fedora, RHEL: `dnf install postgresql-server`; macOS: \
         `brew install postgresql@17`) or set DATABASE_URL to a server you have"
    )]
    NoBinaries {
        /// Servers of other versions, or "none".
        seen: String,
    },

    /// The cluster needs a server of its own major version.
    #[error(
        "the private database in {dir} was made by PostgreSQL {major}, which was not found here ({seen}): install \
         PostgreSQL {major}, or move that directory away to begin with an empty database"
    )]
    OtherMajor {
        /// Where the cluster is.
        dir: PathBuf,
        /// The version that made it.
        major: u32,
        /// What is installed instead.
        seen: String,
    },

    /// A directory that somebody uses for something else.
    #[error(
        "{dir} is not empty and holds no private database of rosterd: set database.data_dir to a directory of its own"
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },

    /// We are root, and there is nobody else to run the server.
    #[error(
        "PostgreSQL does not run as root and there is neither a user `postgres` nor `nobody` to run it: run rosterd \
         as an ordinary user or set DATABASE_URL"
    )]
    NoUser,

    /// We are root, and the user that runs the server cannot reach the directory.
    #[error(
        "the user {user}, who runs the private PostgreSQL, cannot enter {dir}: set database.data_dir to a directory it can reach"
    )]
    OutOfReach {
        /// Who runs the server.
        user: String,
        /// The directory.
        dir: PathBuf,
    },

    /// A file or directory would not do what was asked.
    #[error("could not {doing} {path}: check that it exists and that you may use it")]
    Files {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The cluster is there, the password is not.
    #[error(
        "the private database in {dir} is there but its password file {pgpass} is not, or cannot be read: put it \
         back, or move that directory away to begin with an empty database"
    )]
    PasswordLost {
        /// Where the cluster is.
        dir: PathBuf,
        /// Where the password should be.
        pgpass: PathBuf,
    },

    /// The server does not know our password.
    #[error(
        "the private PostgreSQL in {dir} refused the password in {pgpass}: put the right file back, or move that \
         directory away to begin with an empty database"
    )]
    PasswordRefused {
        /// Where the cluster is.
        dir: PathBuf,
        /// Where the password came from.
        pgpass: PathBuf,
    },

    /// Another rosterd has been starting or stopping the server for too long.
    #[error(
        "another rosterd is still starting or stopping the private PostgreSQL in {dir}: try again when it is done"
    )]
    Busy {
        /// The directory.
        dir: PathBuf,
    },

    /// A program of the server failed.
    #[error(
        "running {program} for the private PostgreSQL failed ({outcome}): see to that or set DATABASE_URL to a server you have"
    )]
    Program {
        /// Which program.
        program: String,
        /// How it ended and the last that it said.
        outcome: String,
    },

    /// The server would not start.
    #[error(
        "the private PostgreSQL in {dir} did not start: mend what its log {log} ends with, or set DATABASE_URL to a server you have: {tail}"
    )]
    Start {
        /// Where the cluster is.
        dir: PathBuf,
        /// The whole log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },

    /// The server runs and does not answer.
    #[error(
        "the private PostgreSQL in {dir} runs as process {pid} but did not answer on port {port} in time: look at its log, or stop it and try again"
    )]
    Unanswered {
        /// Where the cluster is.
        dir: PathBuf,
        /// The server's process.
        pid: u32,
        /// Where it should answer.
        port: u16,
        /// The last try's failure.
        source: sqlx::Error,
    },
}

impl LocalError {
    pub(super) fn files(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Files { doing, path: path.to_owned(), source }
    }
}
