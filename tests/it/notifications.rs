//! `NOTIFY roster_sync`: the cycles that notifications by any login of the database and requests by the owner start.

use std::time::Duration;

use harvest_sim::{Request, Sim};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::cluster::Cluster;
use crate::program::{Program, STUCK};
use crate::scene::{Scene, small_company};

/// When Harvest got the first request of each incremental cycle.
fn cycle_starts(sim: &Sim) -> Vec<std::time::Instant> {
    let is_start = |request: &&Request| {
        request.path.contains("/user_assignments?") && request.path.contains("updated_since")
    };
    sim.requests().iter().filter(is_start).map(|request| request.at).collect()
}

#[tokio::test]
async fn notification_flood_by_another_login_starts_at_most_one_cycle_per_five_seconds() {
    let cluster = Cluster::new().await;
    cluster.execute("CREATE ROLE stranger LOGIN PASSWORD 'secret'").await;
    let sim = small_company().await;
    let mut program = Program::new(&sim, cluster.url());
    let mut daemon = program.set("ROSTERD__SYNC__POLL_INTERVAL", "1h").start();
    daemon.until("cycle.finished").await;

    let mut url = Url::parse(cluster.url()).unwrap();
    url.set_username("stranger").unwrap();
    url.set_password(Some("secret")).unwrap();
    let mut stranger = PgConnection::connect(url.as_str()).await.unwrap();
    let request = sqlx::query("INSERT INTO roster.requests (account_id, kind) VALUES (1, 'sync')");
    assert!(request.execute(&mut stranger).await.is_err(), "only rosterd's own role may request a cycle");
    sim.clear_requests();
    let give_up = Instant::now() + STUCK;
    while cycle_starts(&sim).len() < 3 {
        assert!(Instant::now() < give_up, "fewer than three cycles started");
        sqlx::query("NOTIFY roster_sync").execute(&mut stranger).await.unwrap();
    }
    let starts = cycle_starts(&sim);
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The simulator sees the requests later than the cycles start, on a busy machine by up to a second.
    assert!(gaps.iter().all(|gap| *gap > Duration::from_secs(4)), "{gaps:?}");
    assert_eq!(program.probe("/livez").await.0, 200);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn delegated_sync_runs_exactly_one_cycle_immediately() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let mut daemon = program.set("ROSTERD__SYNC__POLL_INTERVAL", "1h").start();
    daemon.until("cycle.finished").await;
    for _ in 0..2 {
        scene.sim.clear_requests();
        let began = Instant::now();
        let synced = program.call(&["sync"]).await;
        assert!(synced.expect(0).stdout().contains("what changed read"), "{}", synced.stdout());
        assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
        assert_eq!(cycle_starts(&scene.sim).len(), 1);
    }
    // Longer than the five seconds that a notification without a request may have to wait.
    sleep(Duration::from_secs(6)).await;
    assert_eq!(cycle_starts(&scene.sim).len(), 1, "a second cycle followed");
    scene.expect_right().await;
}
