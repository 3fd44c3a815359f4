//! Notifications of the daemon to systemd.

use std::os::unix::net::UnixDatagram;

use crate::program::STUCK;
use crate::scene::Scene;

#[tokio::test]
async fn systemd_is_notified_of_readiness_watchdog_and_stop() {
    let scene = Scene::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(STUCK)).unwrap();
    let mut program = scene.program();
    program.set("NOTIFY_SOCKET", path.to_str().unwrap()).set("WATCHDOG_USEC", "600000");
    let mut daemon = program.start();
    let notified = tokio::task::spawn_blocking(move || {
        let receive = move || {
            let mut message = [0; 64];
            let length = socket.recv(&mut message).expect("no further notification");
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        while !receive().contains("READY=1") {}
        for _ in 0..3 {
            while !receive().contains("WATCHDOG=1") {}
        }
        receive
    });
    let receive = notified.await.unwrap();
    daemon.signal("-TERM");
    tokio::task::spawn_blocking(move || while !receive().contains("STOPPING=1") {}).await.unwrap();
    assert_eq!(daemon.ended().await, Some(0));
}
