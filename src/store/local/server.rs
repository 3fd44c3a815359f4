//! The running server: connecting to it, starting it, stopping it.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

use super::data_dir::DataDir;
use super::error::LocalError;
use super::process::{RunAs, run, tail};
use super::server_programs::ServerPrograms;

pub(super) const HOST: &str = "127.0.0.1";
/// The name of the database and of its owner.
pub(super) const NAME: &str = "rosterd";

/// The longest wait for the server to start; after a crash it replays its log.
const START_LIMIT: Duration = Duration::from_mins(1);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The attempts to start the server. Another program may take the free port in between, and the processes of a killed
/// server need a moment to exit.
const MAX_LAUNCHES: u32 = 5;
/// In bytes. A larger log is renamed when the server starts.
const LOG_LIMIT: u64 = 1 << 20;

/// The server's settings. They are on the command line, so that they always match this version of rosterd.
const SETTINGS: [(&str, &str); 10] = [
    ("listen_addresses", HOST),
    ("unix_socket_directories", ""),
    ("shared_buffers", "32MB"),
    ("huge_pages", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_checkpoints", "off"),
    // DETAIL lines and statements can hold names or pay data, so the log has neither.
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("cluster_name", NAME),
];
/// Settings that make writes faster for a server that may lose its data.
const NOT_DURABLE: [(&str, &str); 3] =
    [("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];

#[derive(Debug)]
pub(super) struct PostgresServer {
    pub(super) binaries: ServerPrograms,
    pub(super) data_dir: DataDir,
    pub(super) run_as: RunAs,
    pub(super) durable: bool,
    pub(super) max_connections: u16,
}

impl PostgresServer {
    /// Starts the server unless it runs, and returns its port. The caller holds the turn.
    ///
    /// The server runs if a connection with the password succeeds. The pid file is used only for the port and, if no
    /// server answers, to decide between waiting and starting.
    pub(super) async fn ensure_running(&self, password: &SecretString) -> Result<u16, LocalError> {
        let deadline = Instant::now() + START_LIMIT;
        let mut launches = 0;
        loop {
            match PidFile::read(&self.data_dir)? {
                Some(PidFile { pid, port }) if serves(pid, &self.data_dir) => {
                    let Err(error) = connect(port, password).await else { return Ok(port) };
                    if is_refusal(&error) {
                        let (dir, pgpass) = (self.data_dir.dir().to_owned(), self.data_dir.pgpass());
                        return Err(LocalError::PasswordRefused { dir, pgpass });
                    }
                    // The server is starting, replaying its log, or stopping.
                    if Instant::now() > deadline {
                        let dir = self.data_dir.dir().to_owned();
                        return Err(LocalError::Unanswered { dir, pid, port, source: error });
                    }
                }
                stale => {
                    // If another process of the same user has the process id of a stale file, as can happen after a
                    // reboot, PostgreSQL believes that its server is running.
                    if stale.is_some() {
                        remove_if_there(&PidFile::path(&self.data_dir))?;
                    }
                    launches += 1;
                    match self.launch().await {
                        Err(error) if launches == MAX_LAUNCHES || Instant::now() > deadline => {
                            return Err(error);
                        }
                        Err(_) => tokio::time::sleep(RETRY_INTERVAL * 5).await,
                        Ok(()) => continue,
                    }
                }
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Stops the server if it runs. Blocks the thread; `pg_ctl` ends after `limit`.
    pub(super) fn stop(&self, limit: Duration) -> Result<(), LocalError> {
        // pg_ctl would signal any process that has the process id of a stale file.
        match PidFile::read(&self.data_dir)? {
            Some(PidFile { pid, .. }) if serves(pid, &self.data_dir) => {}
            _ => return Ok(()),
        }
        let mut stop = self.pg_ctl("stop");
        stop.args(["--mode=fast", "--wait"]).arg(format!("--timeout={}", limit.as_secs()));
        let failed = |outcome| LocalError::Program { program: "pg_ctl stop".to_owned(), outcome };
        let output = stop.output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(tail(&String::from_utf8_lossy(&output.stderr))))
        }
    }

    /// Starts the server on a free port and waits until it accepts connections.
    async fn launch(&self) -> Result<(), LocalError> {
        let log = self.data_dir.log();
        let log_start =
            rotate_log_if_large(&log).map_err(|error| LocalError::files("read the log", &log, error))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| LocalError::files("find a free port for", self.data_dir.dir(), error))?
            .port();
        let durability = if self.durable { &[][..] } else { &NOT_DURABLE };
        let mut settings = vec![format!("-c port={port} -c max_connections={}", self.max_connections)];
        settings.extend(SETTINGS.iter().chain(durability).map(|(name, value)| format!("-c {name}={value}")));
        let mut start = self.pg_ctl("start");
        // With a log file the server does not keep rosterd's pipes open.
        start.arg("--log").arg(&log).arg("--options").arg(settings.join(" "));
        start.arg("--wait").arg(format!("--timeout={}", START_LIMIT.as_secs()));
        // pg_ctl's own error only refers to the log.
        match run(start, START_LIMIT + CONNECT_LIMIT).await {
            Ok(_) => Ok(()),
            Err(error) => match read_from(&log, log_start) {
                Ok(text) if !text.trim().is_empty() => {
                    Err(LocalError::Start { dir: self.data_dir.dir().to_owned(), log, tail: tail(&text) })
                }
                _ => Err(error),
            },
        }
    }

    fn pg_ctl(&self, what: &str) -> Command {
        let mut command = self.run_as.command(self.binaries.program("pg_ctl"));
        command.arg(what).arg("--silent").arg("--pgdata").arg(self.data_dir.data());
        command
    }
}

/// Connects, and creates the database if it does not exist: the first start may have been killed before it did.
async fn connect(port: u16, password: &SecretString) -> Result<(), sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(HOST)
        .port(port)
        .username(NAME)
        .password(password.expose_secret())
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
        .application_name("rosterd local");
    let attempt = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(NAME)
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            sqlx::query("CREATE DATABASE rosterd").execute(&mut connection).await?;
        }
        connection.close().await
    };
    let timed_out = || sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| Err(timed_out()))
}

/// Whether the server refused the password (SQLSTATE class 28).
fn is_refusal(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code.starts_with("28"))
}

/// The process id and the port from the pid file in the data directory.
#[derive(Debug, Default, PartialEq, Eq)]
struct PidFile {
    pid: u32,
    port: u16,
}

impl PidFile {
    fn path(data_dir: &DataDir) -> PathBuf {
        data_dir.data().join("postmaster.pid")
    }

    /// `None` without a file. A truncated file gives process id 0, which is no server.
    fn read(data_dir: &DataDir) -> Result<Option<Self>, LocalError> {
        let path = Self::path(data_dir);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Self::parse(&text).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LocalError::files("read", &path, error)),
        }
    }

    /// The lines are: process id, data directory, start time, port, and others.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        Some(Self { pid: lines.next()?.parse().ok()?, port: lines.nth(2)?.parse().ok()? })
    }
}

/// Whether process `pid` is the server of this cluster: its working directory is the data directory, or (without
/// `/proc`) its command line names it. If this cannot be read, the answer is yes, because a second server would do more
/// harm.
fn serves(pid: u32, data_dir: &DataDir) -> bool {
    let data = data_dir.data();
    if pid == 0 {
        return false;
    }
    if Path::new("/proc/self/cwd").exists() {
        return match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(cwd) => cwd == data,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
    }
    let ps =
        Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).stdin(Stdio::null()).output();
    match ps {
        Ok(output) => String::from_utf8_lossy(&output.stdout).contains(&*data.to_string_lossy()),
        Err(_) => true,
    }
}

/// Renames a log that is too large, and returns the length of the current log.
fn rotate_log_if_large(log: &Path) -> io::Result<u64> {
    match fs::symlink_metadata(log) {
        Ok(found) if found.len() <= LOG_LIMIT => Ok(found.len()),
        Ok(_) => fs::rename(log, log.with_extension("old")).map(|()| 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn read_from(log: &Path, start: u64) -> io::Result<String> {
    let mut file = fs::File::open(log)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn remove_if_there(path: &Path) -> Result<(), LocalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LocalError::files("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_pid_file_gives_neither_process_nor_port() {
        let whole = "4242\n/srv/data\n1700000000\n54321\n\n127.0.0.1\n  1 2\nready   \n";
        assert_eq!(PidFile::parse(whole), Some(PidFile { pid: 4242, port: 54321 }));
        for cut in ["", "4242\n/srv/data\n", "not a number\n\n\n5432\n"] {
            assert_eq!(PidFile::parse(cut), None);
        }
    }
}
