//! Runs the program as an operator or a service manager does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use harvest_sim::Sim;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::database::programs;
use crate::mirror::expect_only_reads;

/// How long a test waits for anything before it fails. A busy machine takes most of it.
pub const STUCK: Duration = Duration::from_mins(2);

/// A free port, which no outgoing connection takes before the program listens on it: Linux gives these ports above 32767.
pub fn free_port() -> u16 {
    const PORTS: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Another run of the tests at the same time begins with another port.
        let nth = (std::process::id() % PORTS * 100 + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(10_000 + nth).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `PATH` of this process, with downloaded programs of PostgreSQL, so that no private server downloads them again.
fn path() -> String {
    let downloaded = std::fs::read_dir(programs()).into_iter().flatten().flatten();
    let downloaded = downloaded.map(|entry| entry.path().join("bin").display().to_string());
    std::iter::once(std::env::var("PATH").unwrap()).chain(downloaded).collect::<Vec<_>>().join(":")
}

/// The program's settings and its Harvest. Calls inherit nothing from this process except `PATH`.
pub struct Program {
    environment: BTreeMap<String, String>,
    sim: Sim,
}

/// Checks the requests of calls that have no [`Daemon`].
impl Drop for Program {
    fn drop(&mut self) {
        expect_only_reads(&self.sim);
    }
}

impl Program {
    pub fn new(sim: &Sim, database_url: &str) -> Self {
        let port = free_port();
        let mut program = Self { environment: BTreeMap::new(), sim: sim.clone() };
        program
            .set("PATH", &path())
            .set("DATABASE_URL", database_url)
            .set("HARVEST_BASE_URL", sim.base_url())
            .set("HARVEST_ACCOUNT_ID", &sim.account_id().to_string())
            .set("HARVEST_ACCESS_TOKEN", &sim.token())
            .set("ROSTERD__LEASE__TTL", "3s")
            .set("ROSTERD__SYNC__POLL_INTERVAL", "1s")
            .set("ROSTERD__HTTP__LISTEN", &format!("127.0.0.1:{port}"));
        program
    }

    /// The address of the probes.
    pub fn listen(&self) -> &str {
        self.value("ROSTERD__HTTP__LISTEN")
    }

    pub fn value(&self, key: &str) -> &str {
        &self.environment[key]
    }

    /// Requests a path; returns the status and the body.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.listen()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits for this status of `/readyz`. The daemon logs and stores a cycle a moment before it counts as finished.
    pub async fn until_ready(&self, status: u16) {
        let give_up = Instant::now() + STUCK;
        while self.probe("/readyz").await.0 != status {
            assert!(Instant::now() < give_up, "/readyz does not answer {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `/metrics` as soon as it contains all of these. Its values of the database can be two seconds old.
    pub async fn until_metrics(&self, expected: &[&str]) -> String {
        let give_up = Instant::now() + STUCK;
        loop {
            let (status, metrics) = self.probe("/metrics").await;
            assert_eq!(status, 200, "{metrics}");
            match expected.iter().find(|it| !metrics.contains(**it)) {
                None => return metrics,
                Some(absent) => assert!(Instant::now() < give_up, "{absent} is not in {metrics}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.environment.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rosterd"));
        command.args(arguments).env_clear().envs(&self.environment).stdin(Stdio::null());
        command
    }

    /// A shell that runs a script with the program's environment, in which `rosterd` is the program.
    pub fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_rosterd")).parent().unwrap().display();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).env_clear().envs(&self.environment);
        command.env("PATH", format!("{program}:{}", self.value("PATH"))).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end on another thread, since the simulator needs the runtime.
    pub async fn call(&self, arguments: &[&str]) -> Called {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        Called(tokio::time::timeout(STUCK, output).await.expect("the program should end").unwrap())
    }

    /// Starts the daemon with the test's own stderr.
    pub fn start_into(&self, stderr: impl Into<Stdio>) -> Daemon {
        let child = self.command(&["run"]).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Daemon { child, log: mpsc::channel().1, said: Vec::new(), sim: self.sim.clone() }
    }

    pub fn start(&self) -> Daemon {
        self.start_command(&["run"])
    }

    /// Starts a command that runs until a signal.
    pub fn start_command(&self, arguments: &[&str]) -> Daemon {
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Daemon { child, log, said: Vec::new(), sim: self.sim.clone() }
    }
}

pub struct Called(pub Output);

impl Called {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// The messages for an operator: all lines that are not log entries.
    pub fn sentence(&self) -> String {
        self.stderr().lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.0.status.code(), Some(code), "{}\n{}", self.stdout(), self.stderr());
        self
    }
}

/// A running daemon, killed at the end of the test, which then checks that it sent only GET requests.
pub struct Daemon {
    pub child: Child,
    log: Receiver<String>,
    pub said: Vec<String>,
    sim: Sim,
}

impl Daemon {
    /// Reads the log until an entry has this event.
    pub async fn until(&mut self, event: &str) -> Value {
        self.until_entry(event, |entry| entry["event"] == event).await
    }

    /// Reads the log until a message contains these words.
    pub async fn until_said(&mut self, words: &str) -> Value {
        let said = |entry: &Value| entry["message"].as_str().is_some_and(|message| message.contains(words));
        self.until_entry(words, said).await
    }

    pub async fn until_entry(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let give_up = tokio::time::Instant::now() + STUCK;
        loop {
            while let Ok(line) = self.log.try_recv() {
                let entry: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                self.said.push(line);
                if wanted(&entry) {
                    return entry;
                }
            }
            assert!(tokio::time::Instant::now() < give_up, "no {what} in\n{}", self.said.join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The log until now.
    pub fn log(&mut self) -> String {
        self.said.extend(self.log.try_iter());
        self.said.join("\n")
    }

    /// The lines of the log to its end. The daemon must have ended.
    pub fn rest(&mut self) -> &[String] {
        self.said.extend(self.log.iter());
        &self.said
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub async fn ended(&mut self) -> Option<i32> {
        let give_up = tokio::time::Instant::now() + STUCK;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < give_up, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.said.extend(self.log.try_iter());
            let last = self.said.len().saturating_sub(60);
            eprintln!("the last log lines of the daemon:\n{}", self.said[last..].join("\n"));
        }
        expect_only_reads(&self.sim);
    }
}
