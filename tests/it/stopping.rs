//! Told to stop, wherever it is: exit 0 within ten seconds, nothing half-written, the account given back.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options};
use tokio::time::Instant;

use crate::program::{Daemon, Program, STUCK};
use crate::scene::Scene;
use crate::wire::Wire;

/// The contract's.
const LIMIT: Duration = Duration::from_secs(10);

/// Several pages of each list.
async fn paged() -> Scene {
    let options = Options { max_per_page: 100, ..Options::default() };
    Scene::of(Company::seeded(3, 250, 250), options).await
}

async fn stop(daemon: &mut Daemon) {
    daemon.signal("-TERM");
    let told = Instant::now();
    let code = daemon.ended().await;
    assert!(told.elapsed() < LIMIT, "after {:?}", told.elapsed());
    let said = daemon.rest();
    assert_eq!(code, Some(0), "{said:?}");
    assert!(said.iter().any(|line| line.contains("daemon.stopped")), "{said:?}");
}

/// Nothing of the process is left that somebody would have to wait for, and no cycle looks as if it ran.
async fn expect_all_given_back(scene: &Scene) {
    for left in [
        "SELECT count(*) FROM roster.accounts WHERE holder IS NOT NULL",
        "SELECT count(*) FROM roster.replicas",
        "SELECT count(*) FROM roster.cycles WHERE outcome IS NULL OR finished_at IS NULL",
    ] {
        assert_eq!(scene.number(left).await, 0, "{left}");
    }
}

/// The next one goes on from there, and tells nothing twice.
async fn expect_the_next_to_put_it_right(scene: &Scene, program: &Program) {
    let mut next = program.start();
    next.until("cycle.finished").await;
    scene.expect_right().await;
    stop(&mut next).await;
}

#[tokio::test]
async fn told_in_mid_page_or_in_mid_walk_it_keeps_whole_pages_and_no_watermark() {
    for (what, path, events) in
        [("in the first page", "/users?", 0), ("between two pages", "/users?cursor", 100)]
    {
        let scene = paged().await;
        scene.sim.inject(Fault::delay(STUCK).on(path));
        let program = scene.program();
        let mut daemon = program.start();
        scene.until_asked(path).await;
        scene.until(format!("SELECT seq = {events} FROM roster.outbox_head")).await;
        stop(&mut daemon).await;
        expect_all_given_back(&scene).await;
        assert_eq!(scene.number("SELECT count(*) FROM roster.watermarks").await, 0, "{what}");
        assert_eq!(scene.number("SELECT seq FROM roster.outbox_head").await, events, "{what}");
        scene.expect_outbox_replays_to_the_mirror().await;
        let abandoned = "SELECT count(*) FROM roster.cycles WHERE outcome = 'abandoned'";
        assert_eq!(scene.number(abandoned).await, i64::from(events > 0), "{what}");
        expect_the_next_to_put_it_right(&scene, &program).await;
    }
}

#[tokio::test]
async fn told_while_it_waits_for_the_next_poll_it_stops() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let mut daemon = program.set("ROSTERD__SYNC__POLL_INTERVAL", "1h").start();
    daemon.until("cycle.finished").await;
    stop(&mut daemon).await;
    expect_all_given_back(&scene).await;
    scene.expect_right().await;
}

#[tokio::test]
async fn told_while_postgresql_is_away_it_stops_and_loses_nothing() {
    for gone in [true, false] {
        let scene = Scene::new().await;
        let wire = Wire::to(scene.url());
        let mut program = scene.program();
        let mut daemon = program.set("DATABASE_URL", wire.url()).start();
        daemon.until("cycle.finished").await;
        scene.sim.hire("Una", "Ware");
        if gone {
            wire.cut().await;
        } else {
            wire.hold();
        }
        daemon.until("budget.unreachable").await;
        stop(&mut daemon).await;
        wire.mend();
        expect_the_next_to_put_it_right(&scene, &program).await;
    }
}

#[tokio::test]
async fn told_while_it_waits_for_the_database_at_the_start_it_stops_at_once() {
    let scene = Scene::new().await;
    let wire = Wire::to(scene.url());
    wire.cut().await;
    let mut program = scene.program();
    program.set("DATABASE_URL", wire.url());
    let mut daemon = program.start();
    daemon.until_said("waiting for the database").await;
    stop(&mut daemon).await;
    // And without being told, it waits until the database is there.
    let mut daemon = program.start();
    daemon.until_said("waiting for the database").await;
    wire.mend();
    daemon.until("cycle.finished").await;
    stop(&mut daemon).await;
    expect_all_given_back(&scene).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_without_one_a_lock_does_not_hold_it_up() {
    let scene = Scene::new().await;
    let program = scene.program();
    for (second, code) in [(Some("-TERM"), 143), (Some("-INT"), 130), (None, 0)] {
        let mut daemon = program.start();
        daemon.until("daemon.started").await;
        let mut lock = scene.lock_users().await;
        if let Some(second) = second {
            daemon.signal("-TERM");
            daemon.until_said("a second signal stops at once").await;
            daemon.signal(second);
            let insisted = Instant::now();
            assert_eq!(daemon.ended().await, Some(code));
            assert!(insisted.elapsed() < Duration::from_secs(2), "after {:?}", insisted.elapsed());
        } else {
            stop(&mut daemon).await;
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
    }
    expect_the_next_to_put_it_right(&scene, &program).await;
}
