//! Signals and failures while the daemon starts.

use std::net::TcpListener;
use std::time::Duration;

use tokio::time::Instant;

use crate::scene::Scene;
use crate::wire::Wire;

#[tokio::test]
async fn sighup_while_the_daemon_starts_does_not_stop_it() {
    let scene = Scene::new().await;
    let wire = Wire::to(scene.url());
    wire.cut().await;
    let mut program = scene.program();
    let mut daemon = program.set("DATABASE_URL", wire.url()).start();
    daemon.until_said("waiting for the database").await;
    daemon.signal("-HUP");
    wire.restore();
    daemon.until("cycle.finished").await;
    scene.expect_right().await;
}

#[tokio::test]
async fn port_in_use_is_tried_for_ten_seconds_and_then_exits_with_69() {
    let scene = Scene::new().await;
    let program = scene.program();
    let occupied_port = TcpListener::bind(program.listen()).unwrap();
    let began = Instant::now();
    let called = program.call(&["run"]).await;
    let sentence = called.expect(69).sentence();
    assert!(sentence.contains("cannot listen on 127.0.0.1:"), "{sentence}");
    assert!((9..20).contains(&began.elapsed().as_secs()), "after {:?}", began.elapsed());

    let mut daemon = program.start();
    daemon.until_said("another process listens on 127.0.0.1:").await;
    drop(occupied_port);
    daemon.until("cycle.finished").await;
    assert_eq!(program.probe("/livez").await.0, 200);
}

#[tokio::test]
async fn sigterm_while_the_port_is_in_use_stops_the_daemon_at_once() {
    let scene = Scene::new().await;
    let program = scene.program();
    let _occupied_port = TcpListener::bind(program.listen()).unwrap();
    let mut daemon = program.start();
    daemon.until_said("another process listens on 127.0.0.1:").await;
    daemon.signal("-TERM");
    let signalled = Instant::now();
    assert_eq!(daemon.ended().await, Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(2), "after {:?}", signalled.elapsed());
}
