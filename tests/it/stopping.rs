//! SIGTERM in each state of the daemon: exit code 0 within ten seconds, no partial page, the lease released.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options};
use tokio::time::Instant;

use crate::program::{Daemon, Program, STUCK};
use crate::scene::Scene;
use crate::wire::Wire;

/// The maximum time from SIGTERM to the exit, as documented.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A company with several pages in each list.
async fn scene_with_pages() -> Scene {
    let options = Options { max_per_page: 100, ..Options::default() };
    Scene::of(Company::seeded(3, 250, 250), options).await
}

async fn stop(daemon: &mut Daemon) {
    daemon.signal("-TERM");
    let signalled = Instant::now();
    let code = daemon.ended().await;
    assert!(signalled.elapsed() < STOP_LIMIT, "after {:?}", signalled.elapsed());
    let log = daemon.rest();
    assert_eq!(code, Some(0), "{log:?}");
    assert!(log.iter().any(|line| line.contains("daemon.stopped")), "{log:?}");
}

/// The lease is released, the process is not registered any more, and no cycle is recorded as running.
async fn expect_all_released(scene: &Scene) {
    for left in [
        "SELECT count(*) FROM roster.accounts WHERE holder IS NOT NULL",
        "SELECT count(*) FROM roster.replicas",
        "SELECT count(*) FROM roster.cycles WHERE outcome IS NULL OR finished_at IS NULL",
    ] {
        assert_eq!(scene.number(left).await, 0, "{left}");
    }
}

/// The next daemon continues from the stored state and repeats no event.
async fn expect_next_daemon_to_complete(scene: &Scene, program: &Program) {
    let mut next = program.start();
    next.until("cycle.finished").await;
    scene.expect_right().await;
    stop(&mut next).await;
}

#[tokio::test]
async fn sigterm_during_pagination_keeps_whole_pages_and_no_watermark() {
    for (moment, path, events) in
        [("in the first page", "/users?", 0), ("between two pages", "/users?cursor", 100)]
    {
        let scene = scene_with_pages().await;
        scene.sim.inject(Fault::delay_request(STUCK).on(path));
        let program = scene.program();
        let mut daemon = program.start();
        scene.until_asked(path).await;
        scene.until(format!("SELECT seq = {events} FROM roster.outbox_head")).await;
        stop(&mut daemon).await;
        expect_all_released(&scene).await;
        assert_eq!(scene.number("SELECT count(*) FROM roster.watermarks").await, 0, "{moment}");
        assert_eq!(scene.number("SELECT seq FROM roster.outbox_head").await, events, "{moment}");
        scene.expect_outbox_replays_to_the_mirror().await;
        let abandoned = "SELECT count(*) FROM roster.cycles WHERE outcome = 'abandoned'";
        assert_eq!(scene.number(abandoned).await, i64::from(events > 0), "{moment}");
        expect_next_daemon_to_complete(&scene, &program).await;
    }
}

#[tokio::test]
async fn sigterm_while_idle_stops_the_daemon() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let mut daemon = program.set("ROSTERD__SYNC__POLL_INTERVAL", "1h").start();
    daemon.until("cycle.finished").await;
    stop(&mut daemon).await;
    expect_all_released(&scene).await;
    scene.expect_right().await;
}

#[tokio::test]
async fn sigterm_while_postgresql_is_unreachable_stops_the_daemon_and_loses_nothing() {
    for refuses_connections in [true, false] {
        let scene = Scene::new().await;
        let wire = Wire::to(scene.url());
        let mut program = scene.program();
        let mut daemon = program.set("DATABASE_URL", wire.url()).start();
        daemon.until("cycle.finished").await;
        scene.sim.create_user("Una", "Ware");
        if refuses_connections {
            wire.cut().await;
        } else {
            wire.hold();
        }
        daemon.until("budget.unreachable").await;
        stop(&mut daemon).await;
        wire.restore();
        expect_next_daemon_to_complete(&scene, &program).await;
    }
}

#[tokio::test]
async fn sigterm_while_waiting_for_the_database_at_the_start_stops_the_daemon() {
    let scene = Scene::new().await;
    let wire = Wire::to(scene.url());
    wire.cut().await;
    let mut program = scene.program();
    program.set("DATABASE_URL", wire.url());
    let mut daemon = program.start();
    daemon.until_said("waiting for the database").await;
    stop(&mut daemon).await;
    // Without a signal the daemon waits until the database answers.
    let mut daemon = program.start();
    daemon.until_said("waiting for the database").await;
    wire.restore();
    daemon.until("cycle.finished").await;
    stop(&mut daemon).await;
    expect_all_released(&scene).await;
}

#[tokio::test]
async fn second_signal_stops_a_blocked_daemon_at_once_and_one_signal_within_ten_seconds() {
    let scene = Scene::new().await;
    let program = scene.program();
    for (second, code) in [(Some("-TERM"), 143), (Some("-INT"), 130), (None, 0)] {
        let mut daemon = program.start();
        daemon.until("lease.acquired").await;
        let mut lock = scene.lock_users().await;
        if let Some(second) = second {
            daemon.signal("-TERM");
            daemon.until_said("a second signal stops at once").await;
            daemon.signal(second);
            let second_signal = Instant::now();
            assert_eq!(daemon.ended().await, Some(code));
            assert!(second_signal.elapsed() < Duration::from_secs(2), "after {:?}", second_signal.elapsed());
        } else {
            stop(&mut daemon).await;
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
        // The next process waits neither for the lease of this one nor for its transaction.
        scene.execute("UPDATE roster.replicas SET expires_at = now()").await;
        scene.until("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
    }
    expect_next_daemon_to_complete(&scene, &program).await;
}
