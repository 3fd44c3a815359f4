//! What a service manager of systemd's kind hears.

use std::os::unix::net::UnixDatagram;

use crate::program::STUCK;
use crate::scene::Scene;

#[tokio::test]
async fn systemd_hears_that_it_is_ready_turns_and_stops() {
    let scene = Scene::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(STUCK)).unwrap();
    let mut program = scene.program();
    program.set("NOTIFY_SOCKET", path.to_str().unwrap()).set("WATCHDOG_USEC", "600000");
    let mut daemon = program.start();
    let heard = tokio::task::spawn_blocking(move || {
        let hear = move || {
            let mut message = [0; 64];
            let length = socket.recv(&mut message).expect("nothing more is said");
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        while !hear().contains("READY=1") {}
        for _ in 0..3 {
            while !hear().contains("WATCHDOG=1") {}
        }
        hear
    });
    let hear = heard.await.unwrap();
    daemon.signal("-TERM");
    tokio::task::spawn_blocking(move || while !hear().contains("STOPPING=1") {}).await.unwrap();
    assert_eq!(daemon.ended().await, Some(0));
}
