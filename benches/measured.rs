//! Shared parts of the benchmarks: rosterd as a child process, and a consumer that notes arrival times.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use sqlx::postgres::{PgListener, PgPool};
use tokio::task::JoinHandle;

/// The command `rosterd`, with these settings only.
pub fn rosterd(arguments: &[&str], environment: &[(&str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rosterd"));
    command.args(arguments).env_clear().envs(environment.iter().map(|(key, value)| (key, value)));
    command.env("ROSTERD__HARVEST__USER_AGENT_CONTACT", "bench@example.com");
    command
}

/// `rosterd run`, killed on drop.
pub struct Daemon(Child);

impl Daemon {
    /// Starts the daemon and writes its log to `log`.
    pub fn start(environment: &[(&str, String)], log: &Path) -> Self {
        Self::start_command("run", environment, log)
    }

    /// The same for another command that runs until a signal.
    pub fn start_command(name: &str, environment: &[(&str, String)], log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        let mut command = rosterd(&[name], environment);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// CPU time so far, in seconds.
    pub fn cpu(&self) -> f64 {
        cpu(self.0.id(), OWN).unwrap()
    }

    /// Memory in MiB: `VmRSS` for the current value, `VmHWM` for the peak.
    pub fn memory(&self, what: &str) -> f64 {
        memory(self.0.id(), what).unwrap()
    }

    /// Stops the daemon with SIGTERM and waits for its exit.
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

/// Resources of a finished process.
pub struct Ended {
    pub took: Duration,
    /// CPU time in seconds.
    pub cpu: f64,
    /// Peak memory in MiB.
    pub peak: f64,
}

/// Runs a command to its end. Run one at a time, because the CPU time includes all children that end meanwhile.
pub fn run(command: &mut Command) -> Ended {
    let children = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let seconds =
            |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs()).as_secs_f64();
        seconds(usage.user_time()) + seconds(usage.system_time())
    };
    let (cpu, began, mut peak) = (children(), Instant::now(), 0.0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = loop {
        // The kernel keeps the peak, so the last sample before the end has it.
        peak = memory(child.id(), "VmHWM:").unwrap_or(peak);
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(status.success(), "{status}");
    Ended { took: began.elapsed(), cpu: children() - cpu, peak }
}

/// Fields of `/proc/PID/stat` after the name, for [`cpu`]: time of the process, and of the children that have ended.
pub const OWN: std::ops::Range<usize> = 11..13;
pub const WITH_ENDED_CHILDREN: std::ops::Range<usize> = 11..15;

/// CPU time so far, in seconds; `None` if the process has ended.
pub fn cpu(pid: u32, fields: std::ops::Range<usize>) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = rest.split_whitespace().skip(fields.start).take(fields.len());
    Some(ticks.map(|it| it.parse::<f64>().unwrap()).sum::<f64>() / 100.0)
}

/// In MiB; `None` if the process has ended.
fn memory(pid: u32, what: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
pub fn real(count: usize) -> f64 {
    count as f64
}

/// Arrival time of each user's first event, by account and id.
pub type Arrivals = HashMap<(i64, i64), Instant>;

/// A consumer that waits for notifications. It ends after this number of changes, or after `patience`.
pub async fn consumer(pool: PgPool, changes: usize, patience: Duration) -> JoinHandle<Arrivals> {
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("roster_outbox").await.unwrap();
    let mut mine: i64 =
        sqlx::query_scalar("SELECT seq FROM roster.outbox_head").fetch_one(&pool).await.unwrap();
    tokio::spawn(async move {
        let give_up = Instant::now() + patience;
        let mut arrivals = Arrivals::new();
        while arrivals.len() < changes && Instant::now() < give_up {
            let _ = tokio::time::timeout(Duration::from_secs(1), listener.recv()).await;
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
                arrivals.entry((account, id)).or_insert(now);
            }
        }
        arrivals
    })
}

/// The quantile `share.0 / share.1` of the sorted values.
pub fn quantile(sorted: &[Duration], share: (usize, usize)) -> Duration {
    let at = (sorted.len() * share.0).div_ceil(share.1).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}
