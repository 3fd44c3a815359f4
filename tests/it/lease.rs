//! Several daemons on one database and account: one writes, the others are standbys. A daemon that was suspended during a
//! take-over writes nothing.

use std::time::Duration;

use harvest_sim::{Fault, RetryAfter, UserId};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::program::{Daemon, Program};
use crate::scene::{Scene, small_company};

const EPOCH: &str = "SELECT epoch FROM roster.accounts";
const TTL: Duration = Duration::from_secs(3); // as `Program` sets it

/// The status of `/readyz` and the account's state.
async fn state(program: &Program) -> (u16, String) {
    let (status, body) = program.probe("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["accounts"][0]["state"].as_str().unwrap().to_owned())
}

/// The value of the metric `rosterd_lease_held`.
async fn lease_held(program: &Program) -> String {
    let (_, metrics) = program.probe("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("rosterd_lease_held{")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn standby_is_ready_and_sends_no_request_to_harvest() {
    let scene = Scene::new().await;
    let (holder, mut standby) = (scene.program(), scene.program());
    // The standby gets its own Harvest, which records its requests.
    let other_sim = small_company().await;
    standby.set("HARVEST_BASE_URL", other_sim.base_url());
    let mut first = holder.start();
    first.until("cycle.finished").await;
    let mut second = standby.start();
    let said = second.until_said("standby: another process").await;
    assert!(said["holder"].as_str().unwrap().ends_with(&format!(":{}", first.child.id())), "{said}");
    assert_eq!(state(&standby).await, (200, "standby".to_owned()));
    assert_eq!(state(&holder).await, (200, "synced".to_owned()));
    assert_eq!((lease_held(&holder).await, lease_held(&standby).await), ("1".into(), "0".into()));
    // After some polls only the holder has sent requests.
    scene.sim.create_user("Ada", "Added");
    first.until("cycle.finished").await;
    scene.sim.create_user("Bea", "Added");
    first.until("cycle.finished").await;
    assert!(other_sim.requests().is_empty(), "{:?}", other_sim.requests());
    scene.expect_right().await;
}

#[tokio::test]
async fn killed_holder_is_replaced_within_the_ttl_and_five_seconds() {
    let scene = Scene::new().await;
    let (mut first, standby) = (scene.program().start(), scene.program());
    first.until("cycle.finished").await;
    let mut second = standby.start();
    second.until_said("standby: another process").await;
    let epoch = scene.number(EPOCH).await;
    first.signal("-KILL");
    let killed = Instant::now();
    scene.sim.create_user("Ada", "Added");
    second.until("lease.acquired").await;
    assert!(killed.elapsed() < TTL + Duration::from_secs(5), "after {:?}", killed.elapsed());
    while second.until("cycle.finished").await["users_changed"] != 1 {}
    scene.expect_right().await;
    assert_eq!(lease_held(&standby).await, "1");
    assert_eq!(scene.number(EPOCH).await, epoch + 1);
}

#[tokio::test]
async fn stopped_holder_is_replaced_at_once() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    program.set("ROSTERD__LEASE__TTL", "60s");
    let mut first = program.start();
    first.until("cycle.finished").await;
    let mut other = scene.program();
    let mut second = other.set("ROSTERD__LEASE__TTL", "60s").start();
    second.until_said("standby: another process").await;
    let listening = "SELECT count(*) = 2 FROM pg_stat_activity
                      WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    scene.until(listening).await;
    first.signal("-TERM");
    let signalled = Instant::now();
    second.until("lease.acquired").await;
    // Without a notification the standby would look after a third of the TTL, 20 seconds.
    assert!(signalled.elapsed() < Duration::from_secs(2), "after {:?}", signalled.elapsed());
    assert_eq!(first.ended().await, Some(0));
    scene.sim.create_user("Nora", "Next");
    while second.until("cycle.finished").await["users_changed"] != 1 {}
    scene.expect_right().await;
}

/// A holder and a standby. The holder reads a new name of one user and is suspended meanwhile.
struct TakeOver {
    scene: Scene,
    user: UserId,
    programs: [Program; 2],
    holder: Daemon,
    standby: Daemon,
}

impl TakeOver {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let mut programs = [scene.program(), scene.program()];
        // The count check would wait for the lock on the same tables.
        for program in &mut programs {
            program.set("ROSTERD__SYNC__COUNT_PROBE", "false");
        }
        let mut holder = programs[0].start();
        holder.until("cycle.finished").await;
        let mut standby = programs[1].start();
        standby.until_said("standby: another process").await;
        let user = scene.sim.user_ids()[3];
        Self { scene, user, programs, holder, standby }
    }

    fn rename_user(&self) {
        self.scene.sim.rename(self.user, "Old", "News");
    }

    /// Suspends the holder while one of its statements waits for a lock, then releases the lock. The suspended holder
    /// does not read the server's response.
    async fn suspend_at(&self, lock: &'static str) {
        let mut connection = PgConnection::connect(self.scene.url()).await.unwrap();
        let mut lock_held = connection.begin().await.unwrap();
        sqlx::raw_sql(lock).execute(&mut *lock_held).await.unwrap();
        self.rename_user();
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

    /// The standby takes over and stores a newer name. The holder continues, writes nothing, becomes the standby, and
    /// takes over again after the other daemon stops.
    async fn expect_one_writer(mut self) {
        let (suspended, epoch) = (Instant::now(), self.scene.number(EPOCH).await);
        self.standby.until("lease.acquired").await;
        assert!(suspended.elapsed() < TTL + Duration::from_secs(5), "after {:?}", suspended.elapsed());
        self.scene.sim.rename(self.user, "Newer", "News");
        let name = format!("SELECT first_name = 'Newer' FROM roster.users WHERE id = {}", self.user);
        self.scene.until(name.clone()).await;
        let events = self.scene.number("SELECT seq FROM roster.outbox_head").await;

        self.holder.signal("-CONT");
        self.holder.until("lease.lost").await;
        self.holder.until_said("standby: another process").await;
        assert_eq!(state(&self.programs[0]).await, (200, "standby".to_owned()));
        let held = (lease_held(&self.programs[0]).await, lease_held(&self.programs[1]).await);
        assert_eq!(held, ("0".into(), "1".into()));
        assert_eq!(self.scene.number("SELECT seq FROM roster.outbox_head").await, events);
        self.scene.until(name).await;
        self.scene.expect_right().await;

        self.standby.signal("-TERM");
        self.holder.until("lease.acquired").await;
        self.scene.sim.create_user("Last", "Word");
        while self.holder.until("cycle.finished").await["users_changed"] != 1 {}
        self.scene.expect_right().await;
        assert_eq!(self.scene.number(EPOCH).await, epoch + 2);
    }
}

#[tokio::test]
async fn holder_suspended_during_a_request_overwrites_no_newer_record() {
    let take_over = TakeOver::new().await;
    take_over.scene.sim.inject(Fault::delay_request(Duration::from_secs(1)).on("updated_since"));
    take_over.rename_user();
    take_over.scene.until_asked("/users?").await;
    take_over.holder.signal("-STOP");
    take_over.expect_one_writer().await;
}

#[tokio::test]
async fn holder_suspended_before_its_transaction_commits_nothing() {
    let take_over = TakeOver::new().await;
    take_over.suspend_at("LOCK TABLE roster.users IN ACCESS EXCLUSIVE MODE").await;
    take_over.expect_one_writer().await;
}

#[tokio::test]
async fn holder_suspended_in_its_transaction_does_not_block_the_standby() {
    let take_over = TakeOver::new().await;
    take_over.suspend_at("SELECT FROM roster.outbox_head FOR UPDATE").await;
    take_over.expect_one_writer().await;
}

/// The holder waits for Harvest after the suspension and sends no statement except the heartbeat.
#[tokio::test]
async fn holder_suspended_while_rate_limited_learns_of_its_lost_lease_by_the_heartbeat() {
    let scene = Scene::new().await;
    let (first, second) = (scene.program(), scene.program());
    let mut holder = first.start();
    holder.until("cycle.finished").await;
    scene.sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(60)).times(1));
    holder.until("harvest.throttled").await;
    holder.signal("-STOP");
    let mut standby = second.start();
    standby.until("lease.acquired").await;
    holder.signal("-CONT");
    holder.until("lease.lost").await;
    holder.until_said("standby: another process").await;
    assert_eq!(state(&first).await, (200, "standby".to_owned()));
}
