//! One process, killed and started again and again.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options};
use rand::RngExt;
use tokio::time::sleep;

use super::{Diary, Field, REACH, Replica};
use crate::database::store;
use crate::scene::Scene;
use crate::tap::{Held, When};

/// A moment in a process's life.
struct Point {
    name: &'static str,
    /// The statement it is at …
    text: &'static str,
    /// … or the COMMIT that follows that.
    is_commit: bool,
    comes: Comes,
}

/// What makes it come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// Sooner or later, as things are.
    ByItself,
    /// A process that has just started.
    AtStart,
    /// A deletion, or whatever else it takes a full read to find.
    WithDeletions,
    /// Events that are too old to be kept.
    WithAge,
    /// Tokens that have ended.
    WithRenewal,
}

const fn point(name: &'static str, text: &'static str, comes: Comes) -> Point {
    Point { name, text, is_commit: false, comes }
}

const fn commit(name: &'static str, text: &'static str, comes: Comes) -> Point {
    Point { name, text, is_commit: true, comes }
}

const PAGE: Point = commit("a page's commit", "INSERT INTO roster.outbox (", Comes::ByItself);

static POINTS: [Point; 17] = [
    PAGE,
    point("a page's rows", "INSERT INTO roster.user", Comes::ByItself),
    point("a page's events", "INSERT INTO roster.outbox (", Comes::ByItself),
    point("the head of the outbox", "UPDATE roster.outbox_head AS head SET seq", Comes::ByItself),
    point("the watermark", "INSERT INTO roster.watermarks", Comes::ByItself),
    commit("the watermark's commit", "INSERT INTO roster.watermarks", Comes::ByItself),
    point("a heartbeat", "WITH before AS MATERIALIZED", Comes::ByItself),
    commit("a heartbeat's commit", "WITH before AS MATERIALIZED", Comes::ByItself),
    commit("the taking of permits", "INSERT INTO roster.permits (budget", Comes::AtStart),
    commit("the taking of the account", "SET holder = $2, epoch = epoch + 1", Comes::AtStart),
    // Harvest's 404 is there.
    point("a tombstone", "SET deleted_at = now(), is_active = false", Comes::WithDeletions),
    commit("a tombstone's commit", "SET deleted_at = now(), is_active = false", Comes::WithDeletions),
    commit("the end of a full read", "SET next_full_at = $2", Comes::WithDeletions),
    point("a trim", "UPDATE roster.outbox_head SET floor_seq", Comes::WithAge),
    commit("a trim's commit", "UPDATE roster.outbox_head SET floor_seq", Comes::WithAge),
    point("the claim of a renewal", "INSERT INTO roster.credentials AS mine", Comes::WithRenewal),
    point("tokens that are not stored yet", "SET ciphertext = $2", Comes::WithRenewal),
];

struct Siege {
    field: Field,
    replica: Replica,
    points: Vec<&'static Point>,
}

impl Siege {
    async fn new(test: &'static str, rounds: u64, with_full_reads: bool) -> Self {
        let field = Field::new(Diary::of(test, rounds), with_full_reads).await;
        let replica = field.replica("replica").await;
        Self { field, replica, points: Vec::new() }
    }

    /// From the empty database on.
    async fn run(mut self) {
        self.field.edit();
        for _ in 0..6 {
            self.kill_anywhere().await;
        }
        self.peace().await;
        let first = self.field.mirror.number(LAST_FULL_READ).await;
        for round in 1..=self.field.diary.rounds {
            self.field.diary.round = round;
            self.field.trouble();
            self.round().await;
            assert_eq!(self.replica.daemon.child.try_wait().unwrap(), None, "it lives");
            self.field.check().await;
            if round % 8 == 0 || round == self.field.diary.rounds {
                self.peace().await;
            }
        }
        let last = self.field.mirror.number(LAST_FULL_READ).await;
        assert_eq!(last > first, self.field.with_full_reads, "this is what was to be tried");
        self.field.end();
    }

    async fn peace(&mut self) {
        self.field.settle(&mut self.replica).await;
        self.field.edit();
    }

    async fn round(&mut self) {
        match self.field.rng.random_range(0..20) {
            0..12 => self.kill_at_a_point().await,
            12 | 13 => self.kill_anywhere().await,
            14 if self.field.with_full_reads => self.kill_in_a_full_read().await,
            15 | 16 => self.cut_a_commit().await,
            17 => self.cut_everything().await,
            18 => self.crash_the_server().await,
            _ => self.much_trouble().await,
        }
    }

    async fn kill_at_a_point(&mut self) {
        let with_full_reads = self.field.with_full_reads;
        let possible = |point: &&Point| with_full_reads || point.comes != Comes::WithDeletions;
        let points: Vec<&Point> = POINTS.iter().filter(possible).collect();
        let point = self.field.draw(&mut self.points, &points);
        let (when, name) = self.when();
        self.field.diary.note(format!("killed {name} {}", point.name));
        if point.comes == Comes::ByItself && !with_full_reads && self.field.rng.random_bool(0.4) {
            // More to be read at once than the next poll would reach back for.
            self.field.diary.note("a silence before");
            self.kill(None).await;
            sleep(Duration::from_secs(REACH + 1)).await;
            self.replica.start();
        }
        let held = self.reach(point, when).await;
        self.kill(Some(held)).await;
        self.replica.program.set("ROSTERD__OUTBOX__RETENTION", "30d");
        self.replica.start();
    }

    fn when(&mut self) -> (When, &'static str) {
        *self.field.pick(&[(When::Before, "before"), (When::After, "after")])
    }

    /// The process at that point, held there.
    async fn reach(&mut self, point: &Point, when: When) -> Held {
        let first = if point.is_commit { When::Before } else { when };
        match point.comes {
            Comes::ByItself | Comes::WithDeletions => {}
            Comes::AtStart => self.kill(None).await,
            Comes::WithAge => {
                self.kill(None).await;
                // Nobody is behind.
                self.field.check().await;
                self.replica.program.set("ROSTERD__OUTBOX__RETENTION", "4s");
            }
            Comes::WithRenewal => self.field.mirror.sim.oauth().revoke_access_tokens(),
        }
        let catch = self.replica.tap.catch(first, 1, point.text);
        if matches!(point.comes, Comes::AtStart | Comes::WithAge) {
            self.replica.start();
        }
        let held = self.field.nudging(catch.caught()).await;
        if point.is_commit { held.then(when, "COMMIT").caught().await } else { held }
    }

    /// Ends the process as nothing can prevent, and with it what it was about to say, or not yet.
    async fn kill(&mut self, held: Option<Held>) {
        self.replica.daemon.signal("-KILL");
        self.replica.daemon.ended().await;
        match held {
            Some(held) if self.field.rng.random_bool(0.5) => held.cut(),
            held => drop(held),
        }
        let role = &self.replica.role;
        let left = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = '{role}')");
        self.field.mirror.until(left).await;
        // It is known to be dead: nobody need wait for that. What it has sent counts as long as it does.
        let time_passes = "UPDATE roster.replicas SET expires_at = now();
                           UPDATE roster.credentials SET claimed_until = now() WHERE claimed_until IS NOT NULL";
        self.field.mirror.execute(time_passes).await;
    }

    /// At a statement of which only the number is known, without a pause.
    async fn kill_anywhere(&mut self) {
        let nth = self.field.rng.random_range(1..120);
        let (when, name) = self.when();
        self.field.diary.note(format!("killed {name} any statement"));
        let held = self.replica.tap.catch(when, nth, "").caught().await;
        self.kill(Some(held)).await;
        self.replica.start();
    }

    async fn kill_in_a_full_read(&mut self) {
        self.field.diary.note("killed in a full read");
        self.field.mirror.sim.inject(Fault::delay(Duration::from_secs(1)).on("cursor"));
        self.field.mirror.until_asked("cursor").await;
        self.kill(None).await;
        self.replica.start();
    }

    /// Nobody can know whether it was carried out.
    async fn cut_a_commit(&mut self) {
        let (when, name) = self.when();
        self.field.diary.note(format!("connection cut {name} a page's commit"));
        self.reach(&PAGE, when).await.cut();
    }

    async fn cut_everything(&mut self) {
        self.field.diary.note("all connections cut");
        self.replica.wire.cut().await;
        self.pause(1000).await;
        self.replica.wire.mend();
    }

    async fn crash_the_server(&mut self) {
        let (when, name) = self.when();
        self.field.diary.note(format!("server crashed {name} a page's commit"));
        let held = self.reach(&PAGE, when).await;
        self.field.cluster.crash().await;
        held.cut();
        self.field.cluster.start().await;
        self.replica.wire.lead_to(self.field.cluster.url());
        self.field.mirror.store = store(self.field.cluster.url());
    }

    async fn much_trouble(&mut self) {
        for _ in 0..3 {
            let (name, fault) = self.field.fault();
            self.field.diary.note(name);
            self.field.mirror.sim.inject(fault);
        }
        self.pause(2000).await;
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_millis(self.field.rng.random_range(0..most))).await;
    }
}

const LAST_FULL_READ: &str =
    "SELECT (extract(epoch FROM max(last_full_at)) * 1000)::bigint FROM roster.accounts";

#[tokio::test]
async fn nothing_is_lost_with_full_reads() {
    Siege::new("kill::nothing_is_lost_with_full_reads", 12, true).await.run().await;
}

/// Full reads put right what a watermark that ran ahead has missed: without them it shows.
#[tokio::test]
async fn nothing_is_lost_without_full_reads() {
    Siege::new("kill::nothing_is_lost_without_full_reads", 12, false).await.run().await;
}

/// With the real figures, and many pages to ask for.
#[tokio::test]
async fn a_crash_loop_asks_no_more_than_is_allowed() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let scene = Scene::of(Company::seeded(2, 1500, 3000), options).await;
    let mut program = scene.program();
    program
        .set("ROSTERD__HTTP__LISTEN", "127.0.0.1:0")
        .set("ROSTERD__HARVEST__PER_PAGE", "100")
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "2s");
    for _ in 0..12 {
        let mut daemon = program.start();
        let asked = scene.sim.requests().len();
        daemon.until("lease.acquired").await;
        // As far as permits are left for it.
        let _ = tokio::time::timeout(Duration::from_millis(600), async {
            while scene.sim.requests().len() < asked + 8 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        daemon.signal("-KILL");
        daemon.ended().await;
        scene.execute("UPDATE roster.replicas SET expires_at = now()").await;
    }
    program.start().until("cycle.finished").await;
    let (most, asked) = (scene.sim.most_in_any_window(Duration::from_secs(15)), scene.sim.requests().len());
    println!("battery: a crash loop asks at most {most} times in 15 seconds, {asked} in all");
    assert!(most <= 100, "{most}");
    scene.expect_right().await;
}
