//! `sync.poll_interval = "auto"`: quick while something changes, slow when nothing does.

use tokio::time::timeout;

use crate::program::{Daemon, STUCK};
use crate::scene::Scene;

/// What the next poll found, and after how many milliseconds it is followed by another.
async fn poll(daemon: &mut Daemon) -> (u64, u64) {
    let said = daemon.until("cycle.finished").await;
    (said["events"].as_u64().unwrap(), said["interval_ms"].as_u64().unwrap())
}

#[tokio::test]
async fn polls_are_quick_after_a_change_and_slower_with_each_that_finds_nothing() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    program.set("ROSTERD__SYNC__POLL_INTERVAL", "auto").set("RUST_LOG", "info,rosterd::sync=debug");
    let mut daemon = program.start();
    assert_eq!(poll(&mut daemon).await, (60, 5000), "the first read finds everybody");
    // Two by themselves, in less than the time to one at the slowest.
    let unasked = async { [poll(&mut daemon).await, poll(&mut daemon).await] };
    assert_eq!(timeout(STUCK, unasked).await.expect("nobody polls"), [(0, 7500), (0, 11_250)]);
    // Others before their time, so that nobody has to wait.
    for interval in [16_875, 25_312] {
        daemon.signal("-HUP");
        assert_eq!(poll(&mut daemon).await, (0, interval));
    }
    scene.sim.hire("Ida", "Idle");
    daemon.signal("-HUP");
    assert_eq!(poll(&mut daemon).await, (1, 5000));
    assert_eq!(poll(&mut daemon).await, (0, 7500));
    scene.expect_right().await;
}
