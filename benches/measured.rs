//! What the measurements of the running daemon share: a private PostgreSQL, the program as a child, and who hears of an
//! event when.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use rosterd::store::local::LocalPostgres;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A private PostgreSQL, gone with this.
pub struct Server {
    postgres: LocalPostgres,
    directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("rosterd-bench-").tempdir().unwrap();
        let postgres = LocalPostgres::start(&directory.path().join("postgres")).await.unwrap();
        Self { postgres, directory }
    }

    /// An empty database of that name.
    pub async fn database(&self, name: &str) -> String {
        let url = self.postgres.url().expose_secret();
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{name}")
    }

    /// Where files can be put.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub async fn stop(self) {
        self.postgres.stop().await.unwrap();
    }
}

/// The program, with these settings and no others.
fn rosterd(arguments: &[&str], environment: &[(&str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rosterd"));
    command.args(arguments).env_clear().envs(environment.iter().map(|(key, value)| (key, value)));
    command.env("ROSTERD__HARVEST__USER_AGENT_CONTACT", "bench@example.com");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// `rosterd run`, ended with this.
pub struct Daemon(Child);

impl Daemon {
    /// Its log goes to `log`.
    pub fn start(environment: &[(&str, String)], log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        Self(rosterd(&["run"], environment).stderr(log).spawn().unwrap())
    }

    /// Seconds of CPU so far.
    pub fn cpu(&self) -> f64 {
        cpu(self.0.id())
    }

    /// Memory in MiB: `VmRSS` now, or `VmHWM` at its highest.
    pub fn memory(&self, what: &str) -> f64 {
        memory(self.0.id(), what).unwrap()
    }

    /// Asks it to stop, and waits.
    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that has ended.
pub struct Ended {
    pub took: Duration,
    /// Seconds of CPU.
    pub cpu: f64,
    /// Its memory at its highest, in MiB.
    pub peak: f64,
}

/// Runs `rosterd` to its end. One at a time: CPU is that of all children that have ended meanwhile.
pub fn run(arguments: &[&str], environment: &[(&str, String)]) -> Ended {
    let children = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let seconds =
            |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs()).as_secs_f64();
        seconds(usage.user_time()) + seconds(usage.system_time())
    };
    let (cpu, began, mut peak) = (children(), Instant::now(), 0.0);
    let mut child = rosterd(arguments, environment).stderr(Stdio::null()).spawn().unwrap();
    let status = loop {
        // The kernel keeps the highest, so the last look before the end has it.
        peak = memory(child.id(), "VmHWM:").unwrap_or(peak);
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(status.success(), "{status}");
    Ended { took: began.elapsed(), cpu: children() - cpu, peak }
}

fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(|it| it.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

/// Seconds of CPU so far of the server processes that the program has connections to, which it keeps open.
pub async fn servers_cpu(pool: &PgPool) -> f64 {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'rosterd' AND datname = current_database()",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    pids.into_iter().map(|pid| cpu(pid.unsigned_abs())).sum()
}

/// In MiB; `None` where the process has ended.
fn memory(pid: u32, what: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
pub fn real(count: usize) -> f64 {
    count as f64
}

/// Bytes of WAL and transactions so far.
pub async fn written(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
                (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// When each change of a person came out of the outbox: by account and id.
pub type Heard = HashMap<(i64, i64), Instant>;

/// A consumer that the doorbell wakes; ends once it has heard of so many changes, or after `patience`.
pub async fn consumer(pool: PgPool, changes: usize, patience: Duration) -> JoinHandle<Heard> {
    let mut bell = PgListener::connect_with(&pool).await.unwrap();
    bell.listen("roster_outbox").await.unwrap();
    let mut mine: i64 =
        sqlx::query_scalar("SELECT seq FROM roster.outbox_head").fetch_one(&pool).await.unwrap();
    tokio::spawn(async move {
        let give_up = Instant::now() + patience;
        let mut heard = Heard::new();
        while heard.len() < changes && Instant::now() < give_up {
            let _ = tokio::time::timeout(Duration::from_secs(1), bell.recv()).await;
            let events: Vec<(i64, i64, i64)> = sqlx::query_as(
                "SELECT seq, account_id, (payload ->> 'id')::bigint FROM roster.outbox
                  WHERE seq > $1 AND aggregatetype = 'user' ORDER BY seq",
            )
            .bind(mine)
            .fetch_all(&pool)
            .await
            .unwrap();
            let now = Instant::now();
            for (seq, account, id) in events {
                mine = seq;
                heard.entry((account, id)).or_insert(now);
            }
        }
        heard
    })
}

/// Waits for the database to say yes.
pub async fn until(pool: &PgPool, question: &str) {
    loop {
        // No table, no yes.
        let asked = sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(pool).await;
        if asked.unwrap_or(false) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The value that this share of the sorted values does not exceed.
pub fn quantile(sorted: &[Duration], share: (usize, usize)) -> Duration {
    let at = (sorted.len() * share.0).div_ceil(share.1).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}
