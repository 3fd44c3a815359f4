//! A private PostgreSQL server, for users who have configured no database.
//!
//! rosterd finds the server's programs on this machine and creates a cluster once. All rosterd processes with the same
//! directory share one running server: the first process starts it, the last process stops it. After a `kill -9` of
//! rosterd or of the server, the next start recovers.
//!
//! ```text
//! data_dir/
//!   turn         locked while a process starts or stops the server
//!   users        locked (shared) by each process that uses the server
//!   pgpass       the password, in libpq's format
//!   programs/    downloaded programs of the server, on machines that have none
//!   server/      created completely under another name, then renamed
//!     data/      the cluster
//!     log        the server's log
//! ```
//!
//! The server listens only on loopback TCP and requires a random password (SCRAM). The path of a Unix socket is limited
//! to 107 bytes (103 on macOS), which is too short for some data directories.

mod cluster;
mod data_dir;
mod downloads;
mod error;
mod lock;
mod process;
mod server;
mod server_programs;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use self::data_dir::DataDir;
pub use self::downloads::DownloadOptions;
pub use self::error::LocalError;
use self::process::RunAs;
use self::server::{HOST, NAME, PostgresServer};
use self::server_programs::{SearchPaths, ServerPrograms};

#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The directory of all files; created if it does not exist.
    pub data_dir: PathBuf,
    /// False for tests: the server is created and written faster, and loses its data if the machine loses power.
    pub durable: bool,
    pub max_connections: u16,
    /// How to download the server's programs if the machine has none; `None`: never.
    pub download: Option<DownloadOptions>,
    /// False for tests: the machine's programs are ignored.
    pub use_installed: bool,
}

impl LocalOptions {
    /// A small, durable server in `data_dir`, of this machine's programs.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let (data_dir, download) = (data_dir.into(), None);
        Self { data_dir, durable: true, max_connections: 40, download, use_installed: true }
    }

    /// Finds the server's programs, and downloads them if necessary. Creates the directory.
    async fn prepare(
        &self,
        run_as: &RunAs,
        data_dir: DataDir,
    ) -> Result<(ServerPrograms, DataDir), LocalError> {
        let downloads = match &self.download {
            Some(download) => download.dir(&data_dir, run_as),
            None => data_dir.programs(),
        };
        let paths = if self.use_installed {
            SearchPaths::of_this_machine(downloads.clone())
        } else {
            SearchPaths::downloads_only(downloads.clone())
        };
        let found = server_programs::find(&paths, run_as, &data_dir).await;
        // Without programs and a download, no directory is created.
        let absent = match found {
            Ok(programs) => return Ok((programs, data_dir.create(run_as)?)),
            Err(error) => error,
        };
        let Some(download) = &self.download else {
            return Err(absent.without_download("database.download is false"));
        };
        let Some(archive) = download.archive(data_dir.major()?) else {
            return Err(absent.without_download("rosterd knows no archive for this platform"));
        };
        let data_dir = data_dir.create(run_as)?;
        // It marks the directory as one of rosterd's, if the download fails.
        lock::open(&data_dir.users())?;
        let downloads = download.dir(&data_dir, run_as);
        downloads::install(&archive, &downloads, run_as, download.report).await?;
        match server_programs::find(&paths, run_as, &data_dir).await {
            Ok(programs) => Ok((programs, data_dir)),
            Err(error) => Err(server_programs::failure(&downloads, run_as).await.unwrap_or(error)),
        }
    }
}

/// The longest waits for the turn and for the server to stop, which may do so later. If another process is starting
/// meanwhile, that process will stop the server later.
const STOP_LIMITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(8)];
/// The same for a drop, which blocks the thread of the async runtime.
const DROP_LIMITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// A use of the running server. When the last use ends, by [`stop`](Self::stop) or by a drop, the server is stopped.
#[derive(Debug)]
pub struct LocalPostgres {
    server: PostgresServer,
    /// The shared lock of this use; `None` after the use has ended.
    users: Option<File>,
    url: SecretString,
    port: u16,
    notes: Vec<String>,
}

impl LocalPostgres {
    /// Starts the server of the data directory, or uses it if it is already running.
    pub async fn start(options: &LocalOptions) -> Result<Self, LocalError> {
        let run_as = RunAs::choose()?;
        let (data_dir, note) = DataDir::choose(&options.data_dir, &run_as)?;
        let (binaries, data_dir) = options.prepare(&run_as, data_dir).await?;
        let users = lock::open(&data_dir.users())?;
        let server = PostgresServer {
            binaries,
            data_dir,
            run_as,
            durable: options.durable,
            max_connections: options.max_connections,
        };
        // Built before the server is started, so that `Drop` stops the server if the start is cancelled. The turn is
        // declared later, so it is released before `Drop` waits for it.
        let mut local = Self {
            server,
            users: None,
            url: SecretString::default(),
            port: 0,
            notes: note.into_iter().collect(),
        };
        let _turn = lock::take_turn(&local.server.data_dir).await?;
        lock::join(&users, &local.server.data_dir)?;
        local.users = Some(users);

        let password = cluster::ensure(&local.server).await?;
        local.port = local.server.ensure_running(&password).await?;
        // The password is alphanumeric and needs no escaping.
        local.url =
            format!("postgres://{NAME}:{}@{HOST}:{}/{NAME}", password.expose_secret(), local.port).into();
        Ok(local)
    }

    /// The connection URL with the password.
    pub fn url(&self) -> &SecretString {
        &self.url
    }

    /// The server's directory. It differs from the options' directory if the server's user cannot enter that one.
    pub fn data_dir(&self) -> &Path {
        self.server.data_dir.dir()
    }

    /// A shell command that opens psql on this database. It names the password file instead of the password, which
    /// would stay in the shell's history.
    pub fn psql_hint(&self) -> String {
        format!(
            "PGPASSFILE={} {} -h {HOST} -p {} -U {NAME} {NAME}",
            shell_word(&self.server.data_dir.pgpass()),
            shell_word(&self.server.binaries.psql()),
            self.port,
        )
    }

    /// The psql program of the server's version.
    pub fn psql(&self) -> PathBuf {
        self.server.binaries.psql()
    }

    /// Sentences for the administrator, such as that another directory is used.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ends this use, and stops the server if this was the last use.
    pub async fn stop(mut self) -> Result<(), LocalError> {
        let dir = self.server.data_dir.dir().to_owned();
        let stopping = tokio::task::spawn_blocking(move || self.leave(STOP_LIMITS));
        stopping
            .await
            .unwrap_or_else(|error| Err(LocalError::files("stop the server in", &dir, error.into())))
    }

    /// Ends this use. Blocks, because `Drop` cannot wait otherwise.
    fn leave(&mut self, [turn, stop]: [Duration; 2]) -> Result<(), LocalError> {
        let Some(users) = self.users.take() else { return Ok(()) };
        let data_dir = &self.server.data_dir;
        let _turn = lock::take_turn_to_stop(data_dir, turn)?;
        if lock::leave_last(&users, data_dir)? { self.server.stop(stop) } else { Ok(()) }
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        if let Err(error) = self.leave(DROP_LIMITS) {
            // The next start uses the running server.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the private PostgreSQL server was not stopped; the next start of rosterd uses it"
            );
        }
    }
}

/// The path, quoted as one word of a POSIX shell.
fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@+".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_word_with_spaces_and_quotes_is_quoted() {
        assert_eq!(shell_word(Path::new("/var/lib/postgresql@17/pgpass")), "/var/lib/postgresql@17/pgpass");
        assert_eq!(shell_word(Path::new("/Jane's Data/pgpass")), r"'/Jane'\''s Data/pgpass'");
    }
}
