//! A full stderr: the daemon continues to work, stops in time, and counts the lines that it drops.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::metrics::scrape;
use crate::program::{Program, STUCK};
use crate::scene::Scene;
use crate::wire::Wire;

/// The maximum time from SIGTERM to the exit.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A pipe whose buffer is full. The reader must live as long as the pipe shall stay open.
async fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let (mut filling, count) = (writer.try_clone().unwrap(), written.clone());
    // The last write blocks until the reader reads or is dropped.
    thread::spawn(move || {
        let line = format!("{}\n", " ".repeat(4095));
        while filling.write_all(line.as_bytes()).is_ok() && count.fetch_add(1, Ordering::SeqCst) < 1024 {}
    });
    let mut before = usize::MAX;
    loop {
        sleep(Duration::from_millis(200)).await;
        let now = written.load(Ordering::SeqCst);
        if now > 0 && now == before {
            return (reader, writer);
        }
        before = now;
    }
}

/// Waits until the daemon listens, and expects that `/livez` answers.
async fn until_alive(program: &Program) {
    let give_up = Instant::now() + STUCK;
    while TcpStream::connect(program.listen()).await.is_err() {
        assert!(Instant::now() < give_up, "nothing listens");
        sleep(Duration::from_millis(20)).await;
    }
    let probe = tokio::time::timeout(Duration::from_secs(5), program.probe("/livez"));
    assert_eq!(probe.await.expect("/livez does not answer").0, 200);
}

#[tokio::test]
async fn daemon_with_a_full_stderr_pipe_polls_answers_livez_and_stops_within_ten_seconds() {
    for database_is_unreachable in [false, true] {
        let scene = Scene::new().await;
        let wire = Wire::to(scene.url());
        let (_reader, writer) = full_pipe().await;
        let mut program = scene.program();
        let mut daemon = program.set("RUST_LOG", "trace").set("DATABASE_URL", wire.url()).start_into(writer);
        until_alive(&program).await;
        scene.until("SELECT count(*) = 2 FROM roster.watermarks").await;
        let user = scene.sim.create_user("Una", "Heard");
        scene.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
        if database_is_unreachable {
            wire.hold();
        }
        until_alive(&program).await;
        daemon.signal("-TERM");
        let signalled = Instant::now();
        assert_eq!(daemon.ended().await, Some(0));
        assert!(signalled.elapsed() < STOP_LIMIT, "after {:?}", signalled.elapsed());
    }
}

#[tokio::test]
async fn second_signal_stops_a_daemon_with_a_full_stderr_pipe_at_once() {
    let scene = Scene::new().await;
    let (_reader, writer) = full_pipe().await;
    let program = scene.program();
    let mut daemon = program.start_into(writer);
    scene.until("SELECT count(*) = 2 FROM roster.watermarks").await;
    // A statement waits for a lock, so that the first signal alone would take seconds.
    let _lock = scene.lock_users().await;
    daemon.signal("-TERM");
    daemon.signal("-INT");
    let second_signal = Instant::now();
    let code = daemon.ended().await;
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    assert!(second_signal.elapsed() < Duration::from_secs(2), "after {:?}", second_signal.elapsed());
}

#[tokio::test]
async fn dropped_lines_are_counted_and_logged_once_stderr_is_read_again() {
    let scene = Scene::without_limit().await;
    let (reader, writer) = full_pipe().await;
    let mut program = scene.program();
    // Each query of a cycle is a line of the log.
    program.set("RUST_LOG", "debug,sqlx=trace,hyper=debug").set("ROSTERD__RATE_LIMIT__REQUESTS", "100000");
    let mut daemon = program.start_into(writer);
    until_alive(&program).await;
    let give_up = Instant::now() + STUCK;
    while scrape(&program).await.contains("\nrosterd_log_lines_dropped_total 0\n") {
        assert!(Instant::now() < give_up, "no line was dropped");
        daemon.signal("-HUP");
        sleep(Duration::from_millis(5)).await;
    }
    let is_drained = Arc::new(AtomicBool::new(false));
    let drained = is_drained.clone();
    let lines = thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        let lines =
            lines.inspect(|line| _ = drained.fetch_or(line.contains("log.dropped"), Ordering::SeqCst));
        lines.filter(|line| !line.trim().is_empty()).collect::<Vec<_>>()
    });
    // On a busy machine the queue can still be full otherwise, so that the last lines are dropped as well.
    while !is_drained.load(Ordering::SeqCst) {
        assert!(Instant::now() < give_up, "no line says how many were dropped");
        sleep(Duration::from_millis(20)).await;
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    let lines = lines.join().unwrap();
    let entries: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let position = |event: &str| entries.iter().position(|entry| entry["event"] == event);
    // The queue holds 4,096 lines.
    assert!(entries.len() > 4000, "{}", entries.len());
    let dropped = entries.iter().find(|entry| entry["event"] == "log.dropped").expect("nothing was dropped");
    assert!(dropped["lines"].as_u64().unwrap() > 0, "{dropped}");
    assert_eq!(dropped["level"], "WARN");
    // No line from before the queue was full is missing, and the last lines are printed.
    assert!(position("daemon.started").is_some());
    assert!(position("daemon.stopped").is_some(), "{:?}", lines.last());
}
