//! More than one daemon on one database and account: one writes, the others stand by, and whoever sleeps through a
//! take-over changes nothing.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim, UserId};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::program::{Daemon, Program};
use crate::scene::Scene;

const EPOCH: &str = "SELECT epoch FROM roster.accounts";
const TTL: Duration = Duration::from_secs(3); // as `Program` sets it

/// The state that `/readyz` gives the account.
async fn state(program: &Program) -> (u16, String) {
    let (status, body) = program.probe("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["accounts"][0]["state"].as_str().unwrap().to_owned())
}

/// What it counts for itself: whether it writes the account.
async fn lease_held(program: &Program) -> String {
    let (_, metrics) = program.probe("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("rosterd_lease_held{")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_standby_is_ready_says_so_and_asks_harvest_nothing() {
    let scene = Scene::new().await;
    let (holder, mut standby) = (scene.program(), scene.program());
    // At another door, so that whatever it asks is seen.
    let door = Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap();
    standby.set("HARVEST_BASE_URL", door.base_url());
    let mut first = holder.start();
    first.until("cycle.finished").await;
    let mut second = standby.start();
    let said = second.until_said("standing by").await;
    assert!(said["holder"].as_str().unwrap().ends_with(&format!(":{}", first.child.id())), "{said}");
    assert_eq!(state(&standby).await, (200, "standby".to_owned()));
    assert_eq!(state(&holder).await, (200, "synced".to_owned()));
    assert_eq!((lease_held(&holder).await, lease_held(&standby).await), ("1".into(), "0".into()));
    // Some polls later the two have made the requests of one.
    scene.sim.hire("Ada", "Added");
    first.until("cycle.finished").await;
    scene.sim.hire("Bea", "Added");
    first.until("cycle.finished").await;
    assert!(door.requests().is_empty(), "{:?}", door.requests());
    let taken = "SELECT count(DISTINCT replica) FROM roster.permits WHERE free_at > now()";
    assert_eq!(scene.number(taken).await, 1, "nor does it keep permits");
    scene.expect_right().await;
}

#[tokio::test]
async fn a_killed_holder_is_followed_within_the_ttl_and_five_seconds() {
    let scene = Scene::new().await;
    let (mut first, standby) = (scene.program().start(), scene.program());
    first.until("cycle.finished").await;
    let mut second = standby.start();
    second.until_said("standing by").await;
    let epoch = scene.number(EPOCH).await;
    first.signal("-KILL");
    let killed = Instant::now();
    scene.sim.hire("Yan", "Young");
    second.until("lease.acquired").await;
    assert!(killed.elapsed() < TTL + Duration::from_secs(5), "after {:?}", killed.elapsed());
    while second.until("cycle.finished").await["users_changed"] != 1 {}
    scene.expect_right().await;
    assert_eq!(lease_held(&standby).await, "1");
    assert_eq!(scene.number(EPOCH).await, epoch + 1);
}

#[tokio::test]
async fn a_holder_that_stops_in_good_order_is_followed_at_once() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    program.set("ROSTERD__LEASE__TTL", "60s");
    let mut first = program.start();
    first.until("cycle.finished").await;
    let mut other = scene.program();
    let mut second = other.set("ROSTERD__LEASE__TTL", "60s").start();
    second.until_said("standing by").await;
    let listening = "SELECT count(*) = 2 FROM pg_stat_activity
                      WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    scene.until(listening).await;
    first.signal("-TERM");
    let told = Instant::now();
    second.until("lease.acquired").await;
    // Whoever only looked every third of the lease's time would come after twenty seconds.
    assert!(told.elapsed() < Duration::from_secs(2), "after {:?}", told.elapsed());
    assert_eq!(first.ended().await, Some(0));
    scene.sim.hire("Nora", "Next");
    while second.until("cycle.finished").await["users_changed"] != 1 {}
    scene.expect_right().await;
}

/// A holder and a standby; somebody's name is news that the holder is about to read.
struct Duel {
    scene: Scene,
    user: UserId,
    programs: [Program; 2],
    holder: Daemon,
    rival: Daemon,
}

impl Duel {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let mut programs = [scene.program(), scene.program()];
        // Totals are counted in the very tables that are locked here.
        for program in &mut programs {
            program.set("ROSTERD__SYNC__COUNT_PROBE", "false");
        }
        let mut holder = programs[0].start();
        holder.until("cycle.finished").await;
        let mut rival = programs[1].start();
        rival.until_said("standing by").await;
        let user = scene.sim.user_ids()[3];
        Self { scene, user, programs, holder, rival }
    }

    fn news(&self) {
        self.scene.sim.rename(self.user, "Old", "News");
    }

    /// Holds a lock until one of the holder's statements waits for it, stops the holder, and lets the lock go: the
    /// server answers somebody who does not listen.
    async fn freeze_behind(&self, lock: &'static str) {
        let mut connection = PgConnection::connect(self.scene.url()).await.unwrap();
        let mut lock_held = connection.begin().await.unwrap();
        sqlx::raw_sql(lock).execute(&mut *lock_held).await.unwrap();
        self.news();
        self.scene
            .until(
                "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                                 WHERE NOT granted AND application_name = 'rosterd'
                                   AND datname = current_database())",
            )
            .await;
        self.holder.signal("-STOP");
        lock_held.rollback().await.unwrap();
    }

    /// The holder sleeps: the rival takes over and stores what is newer still. The holder wakes, changes nothing, and
    /// stands by, until it is its turn again.
    async fn settle(mut self) {
        let (frozen, epoch) = (Instant::now(), self.scene.number(EPOCH).await);
        self.rival.until("lease.acquired").await;
        assert!(frozen.elapsed() < TTL + Duration::from_secs(5), "after {:?}", frozen.elapsed());
        self.scene.sim.rename(self.user, "Newer", "News");
        let name = format!("SELECT first_name = 'Newer' FROM roster.users WHERE id = {}", self.user);
        self.scene.until(name.clone()).await;
        let events = self.scene.number("SELECT seq FROM roster.outbox_head").await;

        self.holder.signal("-CONT");
        self.holder.until("lease.lost").await;
        self.holder.until_said("standing by").await;
        assert_eq!(state(&self.programs[0]).await, (200, "standby".to_owned()));
        let held = (lease_held(&self.programs[0]).await, lease_held(&self.programs[1]).await);
        assert_eq!(held, ("0".into(), "1".into()));
        assert_eq!(self.scene.number("SELECT seq FROM roster.outbox_head").await, events);
        self.scene.until(name).await;
        self.scene.expect_right().await;

        self.rival.signal("-TERM");
        self.holder.until("lease.acquired").await;
        self.scene.sim.hire("Last", "Word");
        while self.holder.until("cycle.finished").await["users_changed"] != 1 {}
        self.scene.expect_right().await;
        assert_eq!(self.scene.number(EPOCH).await, epoch + 2);
    }
}

#[tokio::test]
async fn a_holder_frozen_in_mid_page_changes_nothing_that_is_newer() {
    let duel = Duel::new().await;
    duel.scene.sim.inject(Fault::delay(Duration::from_secs(1)).on("updated_since"));
    duel.news();
    duel.scene.until_asked("/users?").await;
    duel.holder.signal("-STOP");
    duel.settle().await;
}

#[tokio::test]
async fn a_holder_frozen_between_reading_and_its_transaction_commits_nothing() {
    let duel = Duel::new().await;
    duel.freeze_behind("LOCK TABLE roster.users IN ACCESS EXCLUSIVE MODE").await;
    duel.settle().await;
}

#[tokio::test]
async fn a_holder_frozen_within_its_transaction_keeps_nobody_waiting() {
    let duel = Duel::new().await;
    duel.freeze_behind("SELECT FROM roster.outbox_head FOR UPDATE").await;
    duel.settle().await;
}

/// Silent for long enough to be followed, and awake again while it waits for Harvest: it need not come to the database to
/// learn of it, nor send anything more.
#[tokio::test]
async fn a_holder_that_slept_while_it_waited_for_harvest_learns_of_it_by_its_heartbeat() {
    let scene = Scene::new().await;
    let (front, program) = (scene.program(), scene.program());
    let mut holder = front.start();
    holder.until("cycle.finished").await;
    scene.sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(60)).times(1));
    holder.until("harvest.throttled").await;
    holder.signal("-STOP");
    let mut rival = program.start();
    rival.until("lease.acquired").await;
    holder.signal("-CONT");
    holder.until("lease.lost").await;
    holder.until_said("standing by").await;
    assert_eq!(state(&front).await, (200, "standby".to_owned()));
}
