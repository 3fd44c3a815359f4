//! `sync.poll_interval = "auto"`: short after a change, longer with each poll without a change.

use std::time::Duration;

use tokio::time::timeout;

use crate::program::Daemon;
use crate::scene::Scene;

/// The longest interval of `auto`.
const LONGEST: Duration = Duration::from_mins(1);

/// The number of events of the next poll, and the milliseconds until the poll after it.
async fn poll(daemon: &mut Daemon) -> (u64, u64) {
    let said = daemon.until("cycle.finished").await;
    (said["events"].as_u64().unwrap(), said["interval_ms"].as_u64().unwrap())
}

#[tokio::test]
async fn auto_interval_is_short_after_a_change_and_grows_with_each_poll_without_one() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    program.set("ROSTERD__SYNC__POLL_INTERVAL", "auto").set("RUST_LOG", "info,rosterd::sync=debug");
    let mut daemon = program.start();
    assert_eq!(poll(&mut daemon).await, (60, 5000), "the first read creates all records");
    // Two polls start by themselves, in less time than the longest interval.
    let scheduled = async { [poll(&mut daemon).await, poll(&mut daemon).await] };
    assert_eq!(timeout(LONGEST, scheduled).await.expect("no poll"), [(0, 7500), (0, 11_250)]);
    // A signal starts the next ones early, to save the time of the test.
    for interval in [16_875, 25_312] {
        daemon.signal("-HUP");
        assert_eq!(poll(&mut daemon).await, (0, interval));
    }
    scene.sim.create_user("Ida", "Idle");
    daemon.signal("-HUP");
    assert_eq!(poll(&mut daemon).await, (1, 5000));
    assert_eq!(poll(&mut daemon).await, (0, 7500));
    scene.expect_right().await;
}
