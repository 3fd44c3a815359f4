//! Injected faults: the real program runs on a real server while records change at Harvest. In each round a process,
//! the network, PostgreSQL or Harvest fails. No event may be lost or doubled, and no existing record treated as deleted.
//!
//! `FAULT_ROUNDS` sets the number of rounds, `FAULT_SEED` the seed. A seed determines the order of the faults, not their
//! exact time.

mod edits;
mod kill;
mod replicas;
mod webhooks;
mod writes;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use harvest_sim::{Company, Fault, Limit, Options, RetryAfter, Sim};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::edits::{Deleted, Editor};
use crate::cluster::Cluster;
use crate::database::store;
use crate::mirror::{Mirror, Replay};
use crate::program::{Daemon, Program, STUCK};
use crate::statement_proxy::{Held, StatementProxy};
use crate::wire::Wire;

/// Shorter than the default, so that the permits of a killed process are free sooner.
const WINDOW: Duration = Duration::from_secs(3);
const REQUESTS: usize = 100;

/// `sync.skew_buffer` in seconds: how far back each poll reads. After a longer pause, a poll does not repeat by itself
/// what an early watermark skipped.
const SKEW_BUFFER: u64 = 4;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// The faults of a run. A failed run prints them with the command that repeats it; a successful one prints their counts.
struct FaultLog {
    test: &'static str,
    seed: u64,
    rounds: u64,
    round: u64,
    lines: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl FaultLog {
    fn of(test: &'static str, rounds: u64) -> Self {
        let (rounds, seed) = (from_environment("FAULT_ROUNDS", rounds), from_environment("FAULT_SEED", 1));
        Self { test, seed, rounds, round: 0, lines: Vec::new(), counts: BTreeMap::new() }
    }

    /// Records a fault.
    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.lines.push(format!("round {}: {what}", self.round));
        *self.counts.entry(what).or_default() += 1;
    }

    fn sum_up(&self, results: &str, most: usize) {
        let mut line = format!(
            "faults::{}: seed {}, {} rounds, {results}, lost 0, doubled 0, at most {most} of {REQUESTS} requests in any \
             window;",
            self.test, self.seed, self.rounds
        );
        for (what, count) in &self.counts {
            write!(line, " {count} × {what},").unwrap();
        }
        println!("{}", line.trim_end_matches(','));
    }
}

impl Drop for FaultLog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}\nrepeat: FAULT_SEED={} FAULT_ROUNDS={} cargo test --locked --test campaigns -- faults::{}",
                self.lines.join("\n"),
                self.seed,
                self.rounds,
                self.test
            );
        }
    }
}

/// A process, and its own proxies to the database.
struct Replica {
    role: String,
    wire: Wire,
    proxy: StatementProxy,
    program: Program,
    daemon: Daemon,
}

impl Replica {
    fn start(&mut self) {
        self.daemon = self.program.start();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.daemon.log();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            eprintln!("the last log lines of {}, latest first:\n{}", self.role, last.join("\n"));
        }
    }
}

/// What all processes of a run share: Harvest, the server, and the state of the checks.
struct Environment {
    faults: FaultLog,
    rng: StdRng,
    cluster: Cluster,
    mirror: Mirror,
    /// The refresh token in the settings of every process.
    first_token: String,
    with_full_reads: bool,
    deleted: Deleted,
    replay: Replay,
    events: u64,
    editing: Option<(CancellationToken, JoinHandle<(Editor, usize)>)>,
    idle: Option<Editor>,
    edits: usize,
}

impl Environment {
    async fn new(faults: FaultLog, with_full_reads: bool) -> Self {
        let options = Options {
            max_per_page: 25,
            limit: Some(Limit { requests: REQUESTS, window: WINDOW }),
            ..Options::default()
        };
        let seed = faults.seed;
        let sim = Sim::start(Company::seeded(seed, 60, 90), options).await.unwrap();
        let cluster = Cluster::new().await;
        // PostgreSQL's default, which the test server changes: a commit survives a crash of the server.
        cluster.execute("ALTER ROLE ALL SET synchronous_commit = on").await;
        let mirror = Mirror { store: store(cluster.url()), sim };
        mirror.store.migrate().await.unwrap();
        let deleted = Deleted::default();
        let editor = Editor::new(mirror.sim.clone(), seed, SKEW_BUFFER / 2, with_full_reads, deleted.clone());
        Self {
            faults,
            rng: StdRng::seed_from_u64(seed),
            cluster,
            first_token: mirror.sim.oauth().issue_refresh_token(),
            mirror,
            with_full_reads,
            deleted,
            replay: Replay::default(),
            events: 0,
            editing: None,
            idle: Some(editor),
            edits: 0,
        }
    }

    /// Starts a process that logs in as its own role.
    async fn replica(&self, role: &str) -> Replica {
        self.mirror.execute(format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{role}'")).await;
        let wire = Wire::to(self.cluster.url());
        let proxy = StatementProxy::to(wire.url()).await;
        let mut url = Url::parse(proxy.url()).unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(role)).unwrap();
        let sim = &self.mirror.sim;
        let mut program = Program::new(sim, url.as_str());
        program
            // Another process may take a fixed port before a killed process restarts.
            .set("ROSTERD__HTTP__LISTEN", "127.0.0.1:0")
            .set("HARVEST_ACCESS_TOKEN", "")
            .set("HARVEST_OAUTH_CLIENT_ID", &sim.oauth().client_id())
            .set("HARVEST_OAUTH_CLIENT_SECRET", &sim.oauth().client_secret())
            .set("HARVEST_OAUTH_REFRESH_TOKEN", &self.first_token)
            .set("ROSTERD__HARVEST__IDENTITY_URL", sim.identity_url())
            .set("ROSTERD__HARVEST__PER_PAGE", "25")
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "2s")
            .set("ROSTERD__RATE_LIMIT__WINDOW", &format!("{}s", WINDOW.as_secs()))
            .set("ROSTERD__SYNC__SKEW_BUFFER", &format!("{SKEW_BUFFER}s"))
            .set("ROSTERD__SYNC__FULL_INTERVAL", if self.with_full_reads { "3s" } else { "100d" })
            .set("ROSTERD__SYNC__COUNT_PROBE", if self.with_full_reads { "true" } else { "false" })
            // Deletions are never held for review.
            .set("ROSTERD__SYNC__DELETION_GUARD__FRACTION", "1");
        let daemon = program.start();
        Replica { role: role.to_owned(), wire, proxy, program, daemon }
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.rng.random_range(0..of.len())]
    }

    /// Draws from a shuffled deck: every item comes once before any item comes again.
    fn draw<T: Clone>(&mut self, deck: &mut Vec<T>, all: &[T]) -> T {
        if deck.is_empty() {
            deck.extend_from_slice(all);
            deck.shuffle(&mut self.rng);
        }
        deck.pop().unwrap()
    }

    /// Starts to change records at Harvest.
    fn edit(&mut self) {
        let stop = CancellationToken::new();
        let editor = self.idle.take().unwrap();
        self.editing = Some((stop.clone(), editor.work(stop)));
    }

    /// Kills the process. The held statement is lost or executed, at random.
    async fn kill(&mut self, replica: &mut Replica, held: Option<Held>) {
        replica.daemon.signal("-KILL");
        replica.daemon.ended().await;
        match held {
            Some(held) if self.rng.random_bool(0.5) => held.cut(),
            held => drop(held),
        }
        let role = &replica.role;
        let is_closed = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = '{role}')");
        self.mirror.until(is_closed).await;
        // Saves the time until other processes notice. Permits of requests in flight keep their time.
        let time_passes = "UPDATE roster.replicas SET expires_at = now();
                           UPDATE roster.credentials SET claimed_until = now() WHERE claimed_until IS NOT NULL";
        self.mirror.execute(time_passes).await;
    }

    /// Crashes and restarts PostgreSQL. The held statement is lost.
    async fn crash_the_server(&mut self, replica: &mut Replica, held: Option<Held>) {
        self.cluster.crash().await;
        held.into_iter().for_each(Held::cut);
        self.cluster.start().await;
        replica.wire.lead_to(self.cluster.url());
        self.mirror.store = store(self.cluster.url());
    }

    /// Makes Harvest fail in every second round.
    fn maybe_fail_harvest(&mut self) {
        if self.rng.random_bool(0.5) {
            return;
        }
        let (name, fault) = self.harvest_fault();
        self.faults.note(name);
        self.mirror.sim.inject(fault);
    }

    fn harvest_fault(&mut self) -> (&'static str, Fault) {
        let skip = self.rng.random_range(0..6);
        let (name, fault) = match self.rng.random_range(0..if self.with_full_reads { 9 } else { 7 }) {
            0 => ("connection reset", Fault::reset()),
            1 => ("truncated response", Fault::truncate_body()),
            2 => ("lost response", Fault::lost_response()),
            3 => ("slow response", Fault::slow_response(Duration::from_millis(400))),
            4 => ("delayed response", Fault::delay_request(Duration::from_millis(300)).times(3)),
            5 => ("status 502", Fault::html(502)),
            6 => ("status 429", Fault::html(429).retry_after(RetryAfter::Seconds(1))),
            // Absent from the list, but not deleted.
            _ => {
                let users = self.mirror.sim.user_ids();
                let hidden = [*self.pick(&users), *self.pick(&users)].map(i64::from);
                return ("hidden users", Fault::hide_records(hidden).on("/v2/users?").times(6));
            }
        };
        (name, fault.on("/v2/").skip_first(skip))
    }

    /// Checks what must be true at any time, in one snapshot.
    async fn check(&mut self) {
        let events = self.mirror.expect_replay(&mut self.replay).await;
        self.events += events.len() as u64;
        let deleted = self.deleted.lock().unwrap();
        for event in events.iter().filter(|event| event.r#type.ends_with(".deleted")) {
            let aggregate = event.r#type.split('.').next().unwrap();
            let id = event.payload["id"].as_i64().unwrap();
            assert!(deleted.contains(&(aggregate, id)), "{aggregate} {id} exists");
        }
    }

    /// Stops all changes and faults, and waits until the mirror equals Harvest.
    async fn converge(&mut self, replica: &mut Replica) {
        self.faults.lines.push("no faults".to_owned());
        let (stop, editing) = self.editing.take().unwrap();
        stop.cancel();
        let (editor, edits) = editing.await.unwrap();
        self.edits += edits;
        self.idle = Some(editor);
        self.mirror.sim.clear_faults();
        self.mirror.sim.show_pending_changes();
        if self.with_full_reads {
            // The first full read may have begun before.
            for _ in 0..2 {
                let now: String = sqlx::query_scalar("SELECT clock_timestamp()::text")
                    .fetch_one(self.mirror.store.pool())
                    .await
                    .unwrap();
                let is_read =
                    format!("SELECT coalesce(min(last_full_at) > '{now}', false) FROM roster.watermarks");
                self.until(is_read).await;
            }
            self.until("SELECT NOT EXISTS (SELECT FROM roster.missed_records)".to_owned()).await;
        } else {
            let give_up = Instant::now() + STUCK;
            while replica.program.call(&["sync"]).await.0.status.code() != Some(0) {
                assert!(Instant::now() < give_up, "no cycle succeeds");
            }
        }
        self.mirror.expect_mirror_equals_source().await;
        self.check().await;
    }

    /// Waits until a query returns true, and requests cycles meanwhile.
    async fn until(&self, condition: String) {
        self.requesting_cycles(self.mirror.until(condition)).await;
    }

    async fn requesting_cycles<T>(&self, waiting: impl Future<Output = T>) -> T {
        tokio::pin!(waiting);
        loop {
            self.mirror.execute("NOTIFY roster_sync").await;
            if let Ok(done) = timeout(Duration::from_millis(300), &mut waiting).await {
                return done;
            }
        }
    }

    fn end(&self) {
        let most = self.mirror.sim.max_requests_in_window(WINDOW);
        assert!(most <= REQUESTS, "{most} requests in one window");
        self.faults.sum_up(&format!("{} edits, {} events", self.edits, self.events), most);
    }
}
