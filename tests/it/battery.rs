//! The fault battery: the real program on a real server, edits at Harvest all the while, and everything that can break
//! breaks, by a seed. Whatever is broken when: nothing is lost, nothing is told twice, nobody is taken for gone who is
//! there.
//!
//! `BATTERY_ROUNDS` and `BATTERY_SEED` make it longer and other. A seed is one schedule of what happens in which order;
//! when exactly it happens is up to the machine.

mod edits;
mod kill;
mod replicas;

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

use self::edits::{Editor, Gone};
use crate::cluster::Cluster;
use crate::database::store;
use crate::mirror::{Mirror, Replay};
use crate::program::{Daemon, Program, STUCK};
use crate::tap::Tap;
use crate::wire::Wire;

/// The law is as strict in a shorter window, and a killed process's permits rest for less.
const WINDOW: Duration = Duration::from_secs(3);
const REQUESTS: usize = 100;

/// How far back each poll reaches, in seconds: little enough that what a process has missed in a silence of this length
/// is not read again by itself.
const REACH: u64 = 4;

/// How long it goes on, and with what.
fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// What was done: told where it ends badly, with the command that does it again, and counted where it ends well.
struct Diary {
    test: &'static str,
    seed: u64,
    rounds: u64,
    round: u64,
    said: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Diary {
    fn of(test: &'static str, rounds: u64) -> Self {
        let (rounds, seed) =
            (from_environment("BATTERY_ROUNDS", rounds), from_environment("BATTERY_SEED", 1));
        Self { test, seed, rounds, round: 0, said: Vec::new(), counts: BTreeMap::new() }
    }

    /// Notes what is done now.
    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.said.push(format!("round {}: {what}", self.round));
        *self.counts.entry(what).or_default() += 1;
    }

    fn sum_up(&self, events: u64, edits: usize, most: usize) {
        let mut line = format!(
            "battery::{}: seed {}, {} rounds, {edits} edits, {events} events, lost 0, doubled 0, at most {most} of \
             {REQUESTS} requests in any window;",
            self.test, self.seed, self.rounds
        );
        for (what, count) in &self.counts {
            write!(line, " {count} × {what},").unwrap();
        }
        println!("{}", line.trim_end_matches(','));
    }
}

impl Drop for Diary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}\nagain: BATTERY_SEED={} BATTERY_ROUNDS={} cargo test --locked --test it -- battery::{}",
                self.said.join("\n"),
                self.seed,
                self.rounds,
                self.test
            );
        }
    }
}

/// A process, and its own way to the database.
struct Replica {
    role: String,
    wire: Wire,
    tap: Tap,
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
            eprintln!("{}, the last first:\n{}", self.role, last.join("\n"));
        }
    }
}

/// Where it happens.
struct Field {
    diary: Diary,
    rng: StdRng,
    cluster: Cluster,
    mirror: Mirror,
    /// The first token of every process.
    first_token: String,
    with_full_reads: bool,
    gone: Gone,
    replay: Replay,
    events: u64,
    editing: Option<(CancellationToken, JoinHandle<(Editor, usize)>)>,
    idle: Option<Editor>,
    edits: usize,
}

impl Field {
    async fn new(diary: Diary, with_full_reads: bool) -> Self {
        let options = Options {
            max_per_page: 25,
            limit: Some(Limit { requests: REQUESTS, window: WINDOW }),
            ..Options::default()
        };
        let seed = diary.seed;
        let sim = Sim::start(Company::seeded(seed, 60, 90), options).await.unwrap();
        let cluster = Cluster::new().await;
        // What the server has answered outlives its crash, as it does where nobody says otherwise.
        cluster.execute("ALTER ROLE ALL SET synchronous_commit = on").await;
        let mirror = Mirror { store: store(cluster.url()), sim };
        mirror.store.migrate().await.unwrap();
        let gone = Gone::default();
        let editor = Editor::new(mirror.sim.clone(), seed, REACH / 2, with_full_reads, gone.clone());
        Self {
            diary,
            rng: StdRng::seed_from_u64(seed),
            cluster,
            first_token: mirror.sim.oauth().mint_refresh_token(),
            mirror,
            with_full_reads,
            gone,
            replay: Replay::default(),
            events: 0,
            editing: None,
            idle: Some(editor),
            edits: 0,
        }
    }

    /// A process, known to the server by a name of its own.
    async fn replica(&self, role: &str) -> Replica {
        self.mirror.execute(format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{role}'")).await;
        let wire = Wire::to(self.cluster.url());
        let tap = Tap::to(wire.url()).await;
        let mut url = Url::parse(tap.url()).unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(role)).unwrap();
        let sim = &self.mirror.sim;
        let mut program = Program::new(sim, url.as_str());
        program
            // One that was killed may find its port taken when it is back.
            .set("ROSTERD__HTTP__LISTEN", "127.0.0.1:0")
            .set("HARVEST_ACCESS_TOKEN", "")
            .set("HARVEST_OAUTH_CLIENT_ID", &sim.oauth().client_id())
            .set("HARVEST_OAUTH_CLIENT_SECRET", &sim.oauth().client_secret())
            .set("HARVEST_OAUTH_REFRESH_TOKEN", &self.first_token)
            .set("ROSTERD__HARVEST__IDENTITY_URL", sim.identity_url())
            .set("ROSTERD__HARVEST__PER_PAGE", "25")
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "2s")
            .set("ROSTERD__RATE_LIMIT__WINDOW", &format!("{}s", WINDOW.as_secs()))
            .set("ROSTERD__SYNC__SKEW_BUFFER", &format!("{REACH}s"))
            .set("ROSTERD__SYNC__FULL_INTERVAL", if self.with_full_reads { "3s" } else { "100d" })
            .set("ROSTERD__SYNC__COUNT_PROBE", if self.with_full_reads { "true" } else { "false" })
            // How much goes at once is another story.
            .set("ROSTERD__SYNC__DELETION_GUARD__FRACTION", "1");
        let daemon = program.start();
        Replica { role: role.to_owned(), wire, tap, program, daemon }
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.rng.random_range(0..of.len())]
    }

    /// The next of a shuffled deck: each has its turn before any has its second.
    fn draw<T: Clone>(&mut self, deck: &mut Vec<T>, all: &[T]) -> T {
        if deck.is_empty() {
            deck.extend_from_slice(all);
            deck.shuffle(&mut self.rng);
        }
        deck.pop().unwrap()
    }

    /// The company goes on.
    fn edit(&mut self) {
        let stop = CancellationToken::new();
        let editor = self.idle.take().unwrap();
        self.editing = Some((stop.clone(), editor.work(stop)));
    }

    /// Harvest is in trouble now and then.
    fn trouble(&mut self) {
        if self.rng.random_bool(0.5) {
            return;
        }
        let (name, fault) = self.fault();
        self.diary.note(name);
        self.mirror.sim.inject(fault);
    }

    fn fault(&mut self) -> (&'static str, Fault) {
        let skip = self.rng.random_range(0..6);
        let (name, fault) = match self.rng.random_range(0..if self.with_full_reads { 9 } else { 7 }) {
            0 => ("a reset", Fault::reset()),
            1 => ("an answer cut short", Fault::cut()),
            2 => ("an answer that is lost", Fault::lost_answer()),
            3 => ("a slow answer", Fault::slow_answer(Duration::from_millis(400))),
            4 => ("a delay", Fault::delay(Duration::from_millis(300)).times(3)),
            5 => ("a 502", Fault::html(502)),
            6 => ("a 429", Fault::html(429).retry_after(RetryAfter::Seconds(1))),
            // Whoever believed it would take somebody for gone.
            _ => {
                let users = self.mirror.sim.user_ids();
                let hidden = [*self.pick(&users), *self.pick(&users)].map(i64::from);
                return ("people hidden", Fault::hide(hidden).on("/v2/users?").times(6));
            }
        };
        (name, fault.on("/v2/").skipping(skip))
    }

    /// What must be true at every moment, from one snapshot.
    async fn check(&mut self) {
        let news = self.mirror.expect_replay(&mut self.replay).await;
        self.events += news.len() as u64;
        let gone = self.gone.lock().unwrap();
        for event in news.iter().filter(|event| event.r#type.ends_with(".deleted")) {
            let aggregate = event.r#type.split('.').next().unwrap();
            let id = event.payload["id"].as_i64().unwrap();
            assert!(gone.contains(&(aggregate, id)), "{aggregate} {id} is there");
        }
    }

    /// Peace: whoever is at work brings the mirror to the truth.
    async fn settle(&mut self, replica: &mut Replica) {
        self.diary.said.push("peace".to_owned());
        let (stop, editing) = self.editing.take().unwrap();
        stop.cancel();
        let (editor, edits) = editing.await.unwrap();
        self.edits += edits;
        self.idle = Some(editor);
        self.mirror.sim.clear_faults();
        self.mirror.sim.surface_all();
        if self.with_full_reads {
            // The second one has begun in peace.
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
                assert!(Instant::now() < give_up, "no good cycle");
            }
        }
        self.mirror.expect_mirror_equals_source().await;
        self.check().await;
    }

    /// Waits for the database to say yes, with a daemon that does not wait for its next poll.
    async fn until(&self, question: String) {
        self.nudging(self.mirror.until(question)).await;
    }

    async fn nudging<T>(&self, waiting: impl Future<Output = T>) -> T {
        tokio::pin!(waiting);
        loop {
            self.mirror.execute("NOTIFY roster_sync").await;
            if let Ok(done) = timeout(Duration::from_millis(300), &mut waiting).await {
                return done;
            }
        }
    }

    fn end(&self) {
        let most = self.mirror.sim.most_in_any_window(WINDOW);
        assert!(most <= REQUESTS, "{most} requests in one window");
        self.diary.sum_up(self.events, self.edits, most);
    }
}
