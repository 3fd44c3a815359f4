//! The running server: joining it, starting it, stopping it.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

use super::binaries::Binaries;
use super::place::Place;
use super::programs::{RunAs, run, tail};
use super::{LocalError, Patience};

/// Where the server listens.
pub(super) const HOST: &str = "127.0.0.1";
/// The name of the user who owns everything in it, and of the database.
pub(super) const NAME: &str = "rosterd";

/// How long the server may take to come up; after a crash it has its log to replay.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long the server may take to stop, in seconds; it goes on stopping when we have left.
const STOP_SECONDS: u64 = 8;
/// The same for a drop.
const DROP_SECONDS: u64 = 1;
/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often a server that does not answer yet is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a start is tried. Somebody else may take the port that was free a moment ago, and the processes of
/// a server that was killed need a moment to notice and go.
const LAUNCHES: u32 = 5;
/// A log that has grown larger than this is put aside when the server starts.
const LOG_LIMIT: u64 = 1 << 20;

/// What a small private server needs, given on the command line so that it is never older than the program.
const SETTINGS: [(&str, &str); 10] = [
    ("listen_addresses", HOST),
    ("unix_socket_directories", ""),
    ("shared_buffers", "32MB"),
    ("huge_pages", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_checkpoints", "off"),
    // A row in a DETAIL line or a value in a statement is somebody's name or pay: the log has neither.
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("cluster_name", NAME),
];
/// What makes writing quick where nothing needs to outlive a power cut.
const NOT_DURABLE: [(&str, &str); 3] =
    [("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];

/// How to run the server of one data directory.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) binaries: Binaries,
    pub(super) place: Place,
    pub(super) run_as: RunAs,
    pub(super) durable: bool,
    pub(super) max_connections: u16,
}

impl Server {
    /// Joins the running server, or starts it; returns its port. Only in one's turn.
    ///
    /// Whether it lives is decided by connecting with the password. Its pid file says where to connect and, when
    /// nobody answers, whether to wait or to start: that is all it is trusted with.
    pub(super) async fn ensure_running(&self, password: &SecretString) -> Result<u16, LocalError> {
        let deadline = Instant::now() + START_LIMIT;
        let mut launches = 0;
        loop {
            match PidFile::read(&self.place)? {
                Some(PidFile { pid, port }) if serves(pid, &self.place) => {
                    let Err(error) = connect(port, password).await else { return Ok(port) };
                    if is_refusal(&error) {
                        let (dir, pgpass) = (self.place.dir().to_owned(), self.place.pgpass());
                        return Err(LocalError::PasswordRefused { dir, pgpass });
                    }
                    // It is coming up, replaying its log, or on its way out.
                    if Instant::now() > deadline {
                        let dir = self.place.dir().to_owned();
                        return Err(LocalError::Unanswered { dir, pid, port, source: error });
                    }
                }
                stale => {
                    // PostgreSQL takes a stale pid file for a live server when the number belongs by now to some
                    // other process of the same user, as it may after a reboot.
                    if stale.is_some() {
                        remove_if_there(&PidFile::path(&self.place))?;
                    }
                    launches += 1;
                    match self.launch().await {
                        Err(error) if launches == LAUNCHES || Instant::now() > deadline => return Err(error),
                        Err(_) => tokio::time::sleep(PAUSE * 5).await,
                        Ok(()) => continue,
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Stops the server if it runs. Blocking, and bounded by `pg_ctl`'s own time-out.
    pub(super) fn stop(&self, patience: Patience) -> Result<(), LocalError> {
        // pg_ctl would signal whatever process has the number in a stale file.
        match PidFile::read(&self.place)? {
            Some(PidFile { pid, .. }) if serves(pid, &self.place) => {}
            _ => return Ok(()),
        }
        let mut stop = self.pg_ctl("stop");
        let seconds = match patience {
            Patience::Stop => STOP_SECONDS,
            Patience::Drop => DROP_SECONDS,
        };
        stop.args(["--mode=fast", "--wait"]).arg(format!("--timeout={seconds}"));
        let failed = |outcome| LocalError::Program { program: "pg_ctl stop".to_owned(), outcome };
        let output = stop.output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(tail(&String::from_utf8_lossy(&output.stderr))))
        }
    }

    /// Starts the server on a free port and waits until it takes connections.
    async fn launch(&self) -> Result<(), LocalError> {
        let log = self.place.log();
        let earlier =
            put_aside_if_large(&log).map_err(|error| LocalError::files("look at the log", &log, error))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| LocalError::files("find a free port for", self.place.dir(), error))?
            .port();
        let durability = if self.durable { &[][..] } else { &NOT_DURABLE };
        let mut settings = vec![format!("-c port={port} -c max_connections={}", self.max_connections)];
        settings.extend(SETTINGS.iter().chain(durability).map(|(name, value)| format!("-c {name}={value}")));
        let mut start = self.pg_ctl("start");
        // With a log the server holds on to none of our pipes.
        start.arg("--log").arg(&log).arg("--options").arg(settings.join(" "));
        start.arg("--wait").arg(format!("--timeout={}", START_LIMIT.as_secs()));
        // pg_ctl itself only says to look at the log.
        match run(start, START_LIMIT + CONNECT_LIMIT).await {
            Ok(_) => Ok(()),
            Err(error) => match read_from(&log, earlier) {
                Ok(said) if !said.trim().is_empty() => {
                    Err(LocalError::Start { dir: self.place.dir().to_owned(), log, tail: tail(&said) })
                }
                _ => Err(error),
            },
        }
    }

    fn pg_ctl(&self, what: &str) -> Command {
        let mut command = self.run_as.command(self.binaries.program("pg_ctl"));
        command.arg(what).arg("--silent").arg("--pgdata").arg(self.place.data());
        command
    }
}

/// Connects, and makes the database where a first start was cut short before it came to that.
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
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(NAME)
            .fetch_one(&mut connection)
            .await?;
        if !there {
            sqlx::query("CREATE DATABASE rosterd").execute(&mut connection).await?;
        }
        connection.close().await
    };
    let late = || sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CONNECT_LIMIT, attempt).await.unwrap_or_else(|_| Err(late()))
}

/// Whether the server is there but does not take our word (SQLSTATE class 28).
fn is_refusal(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code.starts_with("28"))
}

/// What a server writes into its data directory: its process and its port.
#[derive(Debug, Default, PartialEq, Eq)]
struct PidFile {
    pid: u32,
    port: u16,
}

impl PidFile {
    fn path(place: &Place) -> PathBuf {
        place.data().join("postmaster.pid")
    }

    /// `None` without a file. One that cannot be understood was cut short, and names no process.
    fn read(place: &Place) -> Result<Option<Self>, LocalError> {
        let path = Self::path(place);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Self::parse(&text).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LocalError::files("read", &path, error)),
        }
    }

    /// Lines: pid, data directory, start time, port, and more that we do not need.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        Some(Self { pid: lines.next()?.parse().ok()?, port: lines.nth(2)?.parse().ok()? })
    }
}

/// Whether process `pid` is the server of this cluster: it works in its data directory, or (without `/proc`) was
/// started with it on its command line. In doubt it is: to start a second server would be the greater harm.
fn serves(pid: u32, place: &Place) -> bool {
    let data = place.data();
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

/// The length of the log, once an overlong one is out of the way.
fn put_aside_if_large(log: &Path) -> io::Result<u64> {
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
    fn a_pid_file_tells_process_and_port_and_one_cut_short_tells_neither() {
        let whole = "4242\n/srv/data\n1700000000\n54321\n\n127.0.0.1\n  1 2\nready   \n";
        assert_eq!(PidFile::parse(whole), Some(PidFile { pid: 4242, port: 54321 }));
        for cut in ["", "4242\n/srv/data\n", "not a number\n\n\n5432\n"] {
            assert_eq!(PidFile::parse(cut), None);
        }
    }
}
