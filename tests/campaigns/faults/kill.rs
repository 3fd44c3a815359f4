//! One process, which is killed and restarted repeatedly.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options};
use rand::RngExt;
use tokio::time::sleep;

use super::{Environment, FaultLog, Replica, SKEW_BUFFER};
use crate::scene::Scene;
use crate::statement_proxy::{Held, When};

/// A statement, or the following COMMIT, at which to kill the process.
struct Point {
    name: &'static str,
    /// A part of the statement's text.
    text: &'static str,
    /// Whether the COMMIT after that statement is meant.
    is_commit: bool,
    condition: Condition,
}

/// When the process sends the statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Regularly.
    Always,
    AtStart,
    /// During full reads.
    FullRead,
    /// When events are older than the retention.
    OldEvents,
    /// When the access token has expired.
    ExpiredToken,
}

const fn point(name: &'static str, text: &'static str, condition: Condition) -> Point {
    Point { name, text, is_commit: false, condition }
}

const fn commit(name: &'static str, text: &'static str, condition: Condition) -> Point {
    Point { name, text, is_commit: true, condition }
}

const PAGE: Point = commit("a page's commit", "roster.outbox (seq", Condition::Always);

static POINTS: [Point; 17] = [
    PAGE,
    point("a page's rows", "(account_id, id, raw", Condition::Always),
    point("a page's events", "roster.outbox (seq", Condition::Always),
    point("the head of the outbox", "UPDATE roster.outbox_head AS head SET seq", Condition::Always),
    point("the watermark", "INSERT INTO roster.watermarks", Condition::Always),
    commit("the watermark's commit", "INSERT INTO roster.watermarks", Condition::Always),
    point("a heartbeat", "WITH before AS MATERIALIZED", Condition::Always),
    commit("a heartbeat's commit", "WITH before AS MATERIALIZED", Condition::Always),
    commit("an insertion of permits", "INSERT INTO roster.rate_permits (id", Condition::AtStart),
    commit("the acquisition of the lease", "SET holder = $2, epoch = epoch + 1", Condition::AtStart),
    // After Harvest's 404.
    point("a tombstone", "SET deleted_at = $4", Condition::FullRead),
    commit("a tombstone's commit", "SET deleted_at = $4", Condition::FullRead),
    commit("the end of a full read", "SET next_full_at = $2", Condition::FullRead),
    point("a retention run", "UPDATE roster.outbox_head SET floor_seq", Condition::OldEvents),
    commit("a retention run's commit", "UPDATE roster.outbox_head SET floor_seq", Condition::OldEvents),
    point("the claim of a renewal", "INSERT INTO roster.credentials AS mine", Condition::ExpiredToken),
    point("tokens that are not stored yet", "SET ciphertext = $2", Condition::ExpiredToken),
];

struct Campaign {
    environment: Environment,
    replica: Replica,
    points: Vec<&'static Point>,
}

impl Campaign {
    async fn new(test: &'static str, rounds: u64, with_full_reads: bool) -> Self {
        let environment = Environment::new(FaultLog::of(test, rounds), with_full_reads).await;
        let replica = environment.replica("replica").await;
        Self { environment, replica, points: Vec::new() }
    }

    /// Begins with an empty database.
    async fn run(mut self) {
        self.environment.edit();
        for _ in 0..6 {
            self.kill_anywhere().await;
        }
        self.converge().await;
        let first = self.environment.mirror.number(LAST_FULL_READ).await;
        for round in 1..=self.environment.faults.rounds {
            self.environment.faults.round = round;
            self.environment.maybe_fail_harvest();
            self.round().await;
            assert_eq!(self.replica.daemon.child.try_wait().unwrap(), None, "the process should be running");
            self.environment.check().await;
            if round % 8 == 0 || round == self.environment.faults.rounds {
                self.converge().await;
            }
        }
        let last = self.environment.mirror.number(LAST_FULL_READ).await;
        assert_eq!(
            last > first,
            self.environment.with_full_reads,
            "full reads should happen only if enabled"
        );
        self.environment.end();
    }

    async fn converge(&mut self) {
        self.environment.converge(&mut self.replica).await;
        self.environment.edit();
    }

    async fn round(&mut self) {
        match self.environment.rng.random_range(0..20) {
            0..12 => self.kill_at_a_point().await,
            12 | 13 => self.kill_anywhere().await,
            14 if self.environment.with_full_reads => self.kill_in_a_full_read().await,
            15 | 16 => self.cut_a_commit().await,
            17 => self.cut_everything().await,
            18 => self.crash_the_server().await,
            _ => self.fail_harvest_often().await,
        }
    }

    async fn kill_at_a_point(&mut self) {
        let with_full_reads = self.environment.with_full_reads;
        let possible = |point: &&Point| with_full_reads || point.condition != Condition::FullRead;
        let points: Vec<&Point> = POINTS.iter().filter(possible).collect();
        let point = self.environment.draw(&mut self.points, &points);
        let (when, name) = self.when();
        self.environment.faults.note(format!("killed {name} {}", point.name));
        if point.condition == Condition::Always && !with_full_reads && self.environment.rng.random_bool(0.4) {
            // A pause longer than the skew buffer.
            self.environment.faults.note("paused before");
            self.kill(None).await;
            sleep(Duration::from_secs(SKEW_BUFFER + 1)).await;
            self.replica.start();
        }
        let held = self.reach(point, when).await;
        self.kill(Some(held)).await;
        self.replica.program.set("ROSTERD__OUTBOX__RETENTION", "30d");
        self.replica.start();
    }

    fn when(&mut self) -> (When, &'static str) {
        *self.environment.pick(&[(When::Before, "before"), (When::After, "after")])
    }

    /// Waits until the process has reached the point, and holds it there.
    async fn reach(&mut self, point: &Point, when: When) -> Held {
        let first = if point.is_commit { When::Before } else { when };
        match point.condition {
            Condition::Always | Condition::FullRead => {}
            Condition::AtStart => self.kill(None).await,
            Condition::OldEvents => {
                self.kill(None).await;
                // Reads all events, so that none is too old to be read.
                self.environment.check().await;
                self.replica.program.set("ROSTERD__OUTBOX__RETENTION", "4s");
            }
            Condition::ExpiredToken => self.environment.mirror.sim.oauth().revoke_access_tokens(),
        }
        let catch = self.replica.proxy.catch(first, 1, point.text);
        if matches!(point.condition, Condition::AtStart | Condition::OldEvents) {
            self.replica.start();
        }
        let held = self.environment.requesting_cycles(catch.caught()).await;
        if point.is_commit { held.then(when, "COMMIT").caught().await } else { held }
    }

    async fn kill(&mut self, held: Option<Held>) {
        self.environment.kill(&mut self.replica, held).await;
    }

    /// Kills the process at a statement with a random number.
    async fn kill_anywhere(&mut self) {
        let nth = self.environment.rng.random_range(1..120);
        let (when, name) = self.when();
        self.environment.faults.note(format!("killed {name} any statement"));
        let held = self.replica.proxy.catch(when, nth, "").caught().await;
        self.kill(Some(held)).await;
        self.replica.start();
    }

    async fn kill_in_a_full_read(&mut self) {
        self.environment.faults.note("killed in a full read");
        self.environment.mirror.sim.inject(Fault::delay_request(Duration::from_secs(1)).on("cursor"));
        self.environment.mirror.until_asked("cursor").await;
        self.kill(None).await;
        self.replica.start();
    }

    /// The process cannot know whether the commit was executed.
    async fn cut_a_commit(&mut self) {
        let (when, name) = self.when();
        self.environment.faults.note(format!("connection cut {name} a page's commit"));
        self.reach(&PAGE, when).await.cut();
    }

    async fn cut_everything(&mut self) {
        self.environment.faults.note("all connections cut");
        self.replica.wire.cut().await;
        self.pause(1000).await;
        self.replica.wire.restore();
    }

    async fn crash_the_server(&mut self) {
        let (when, name) = self.when();
        self.environment.faults.note(format!("server crashed {name} a page's commit"));
        let held = self.reach(&PAGE, when).await;
        self.environment.crash_the_server(&mut self.replica, Some(held)).await;
    }

    async fn fail_harvest_often(&mut self) {
        for _ in 0..3 {
            let (name, fault) = self.environment.harvest_fault();
            self.environment.faults.note(name);
            self.environment.mirror.sim.inject(fault);
        }
        self.pause(2000).await;
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_millis(self.environment.rng.random_range(0..most))).await;
    }
}

const LAST_FULL_READ: &str =
    "SELECT (extract(epoch FROM max(last_full_at)) * 1000)::bigint FROM roster.accounts";

/// Otherwise a run of few rounds would not notice that a point is never reached.
#[test]
fn each_point_is_a_statement_of_the_program() {
    let mut source = String::new();
    let mut dirs = vec![std::path::PathBuf::from("src/store")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else {
                source.push_str(&std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    // Composed of the names of table and columns.
    let composed = ["(account_id, id, raw", "roster.outbox (seq"];
    for text in POINTS.iter().map(|point| point.text).filter(|text| !composed.contains(text)) {
        assert!(source.contains(text), "{text}");
    }
}

#[tokio::test]
async fn killed_process_loses_no_event_with_full_reads() {
    Campaign::new("kill::killed_process_loses_no_event_with_full_reads", 12, true).await.run().await;
}

/// Without full reads, which would repair what an early watermark loses.
#[tokio::test]
async fn killed_process_loses_no_event_without_full_reads() {
    Campaign::new("kill::killed_process_loses_no_event_without_full_reads", 12, false).await.run().await;
}

/// With the default limit and window, and many pages to read.
#[tokio::test]
async fn crash_loop_stays_within_the_rate_limit() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let scene = Scene::of(Company::seeded(2, 1500, 3000), options).await;
    let mut program = scene.program();
    program
        .set("ROSTERD__HTTP__LISTEN", "127.0.0.1:0")
        .set("ROSTERD__HARVEST__PER_PAGE", "100")
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "2s");
    for _ in 0..12 {
        let mut daemon = program.start();
        let sent = scene.sim.requests().len();
        daemon.until("lease.acquired").await;
        // The process sends fewer requests if it gets no permits.
        let _ = tokio::time::timeout(Duration::from_millis(600), async {
            while scene.sim.requests().len() < sent + 8 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        daemon.signal("-KILL");
        daemon.ended().await;
        scene.execute("UPDATE roster.replicas SET expires_at = now()").await;
    }
    program.start().until("cycle.finished").await;
    let (most, sent) =
        (scene.sim.max_requests_in_window(Duration::from_secs(15)), scene.sim.requests().len());
    println!("faults: a crash loop sends at most {most} requests in 15 seconds, {sent} in all");
    assert!(most <= 100, "{most}");
    scene.expect_right().await;
}
