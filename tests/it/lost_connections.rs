//! Connections to PostgreSQL whose packets are lost: neither end notices, and new connections work. The daemon closes
//! such a connection after `database.statement_timeout`, continues within three times this time, and loses nothing.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::{Daemon, Program};
use crate::scene::small_company;
use crate::statement_proxy::{StatementProxy, When};
use crate::wire::Wire;

/// A program with short time limits, and its daemon after the first cycle.
async fn daemon(sim: &Sim, url: &str, poll_interval: &str) -> (Program, Daemon) {
    let mut program = Program::new(sim, url);
    program
        .set("ROSTERD__DATABASE__STATEMENT_TIMEOUT", "2s")
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "2s")
        .set("ROSTERD__SYNC__POLL_INTERVAL", poll_interval);
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    (program, daemon)
}

#[tokio::test]
async fn silently_lost_connections_do_not_stop_the_polls() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let wire = Wire::to(database.url());
    let (program, daemon) = daemon(&sim, wire.url(), "1s").await;
    let mirror = Mirror { sim, store: store(database.url()) };
    for round in 0..4_u64 {
        let user = mirror.sim.create_user("Meanwhile", "Hired");
        // The delays hit moments between two cycles and within a cycle.
        sleep(Duration::from_millis(round * 300)).await;
        wire.lose_connections();
        mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
    }
    mirror.expect_right().await;
    assert_eq!(program.probe("/livez").await.0, 200);
    let ended_tasks = daemon.said.iter().filter(|line| line.contains("a task of the daemon")).count();
    assert_eq!(ended_tasks, 0);
}

#[tokio::test]
async fn silently_lost_connections_during_pagination_do_not_stop_the_first_read() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let sim = Sim::start(Company::seeded(3, 250, 250), options).await.unwrap();
    sim.inject(Fault::delay_request(Duration::from_millis(500)).on("/users?cursor").times(2));
    let database = TestDatabase::new().await;
    let wire = Wire::to(database.url());
    let mut program = Program::new(&sim, wire.url());
    program.set("ROSTERD__DATABASE__STATEMENT_TIMEOUT", "2s");
    let mut daemon = program.start();
    let mirror = Mirror { sim, store: store(database.url()) };
    mirror.until("SELECT seq = 100 FROM roster.outbox_head").await;
    wire.lose_connections();
    daemon.until("cycle.finished").await;
    mirror.expect_right().await;
}

#[tokio::test]
async fn unanswered_statement_fails_its_cycle_and_the_next_cycle_succeeds() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let proxy = StatementProxy::to(database.url()).await;
    let (program, mut daemon) = daemon(&sim, proxy.url(), "1s").await;
    // The transaction has locked the account, and the server does not notice that the connection was closed.
    let copy = proxy.catch(When::After, 1, "COPY roster.outbox");
    let users: Vec<_> = (0..101).map(|_| sim.create_user("Meanwhile", "Hired")).collect();
    let user = users[0];
    let _held = copy.caught().await;
    let failed = daemon.until("cycle.failed").await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("did not answer a statement within 2s"), "{error}");
    assert!(error.contains("database.statement_timeout"), "{error}");
    let mirror = Mirror { sim, store: store(database.url()) };
    mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
    mirror.expect_right().await;
    assert_eq!(program.probe("/livez").await.0, 200);
}

#[tokio::test]
async fn listener_with_a_silently_lost_connection_is_replaced() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let wire = Wire::to(database.url());
    let (program, daemon) = daemon(&sim, wire.url(), "1h").await;
    let mirror = Mirror { sim, store: store(database.url()) };
    mirror.until(listening(1)).await;
    for _ in 0..2 {
        wire.lose_connections();
        let user = mirror.sim.create_user("Asked", "For");
        // No poll is due for an hour, so that only the listener can receive the request.
        let began = Instant::now();
        program.call(&["sync"]).await.expect(0);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
    }
    drop(daemon);
}

/// A condition: at least `count` sessions listen for requests.
fn listening(count: usize) -> String {
    format!(
        "SELECT count(*) >= {count} FROM pg_stat_activity
          WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
}
