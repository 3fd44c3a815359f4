//! Connections to PostgreSQL whose packets are lost: neither end notices, and new connections work. The daemon closes them
//! after `database.statement_timeout`, goes on within three times that, and loses nothing.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::{Daemon, Program};
use crate::tap::{Tap, When};
use crate::wire::Wire;

async fn small_company() -> Sim {
    Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap()
}

/// A program with limits that suit a test, and its daemon after the first cycle.
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
async fn connections_that_are_lost_silently_do_not_stop_an_account() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let wire = Wire::to(database.url());
    let (program, daemon) = daemon(&sim, wire.url(), "1s").await;
    let mirror = Mirror { sim, store: store(database.url()) };
    for round in 0..4_u64 {
        let user = mirror.sim.hire("Meanwhile", "Hired");
        // Between two cycles, and in the middle of one.
        sleep(Duration::from_millis(round * 300)).await;
        wire.lose_connections();
        mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
    }
    mirror.expect_right().await;
    assert_eq!(program.probe("/livez").await.0, 200);
    let lost = daemon.said.iter().filter(|line| line.contains("a task of the daemon")).count();
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn connections_that_are_lost_silently_during_pagination_do_not_stop_the_first_read() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let sim = Sim::start(Company::seeded(3, 250, 250), options).await.unwrap();
    sim.inject(Fault::delay(Duration::from_millis(500)).on("/users?cursor").times(2));
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
async fn a_statement_without_an_answer_fails_its_cycle_and_the_next_cycle_succeeds() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let tap = Tap::to(database.url()).await;
    let (program, mut daemon) = daemon(&sim, tap.url(), "1s").await;
    // The transaction has locked the account, and the server does not learn that the connection was closed.
    let lost = tap.catch(When::After, 1, "INSERT INTO roster.outbox");
    let user = sim.hire("Meanwhile", "Hired");
    let _held = lost.caught().await;
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
async fn a_listener_whose_connection_is_lost_silently_is_replaced() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let wire = Wire::to(database.url());
    let (program, daemon) = daemon(&sim, wire.url(), "1h").await;
    let mirror = Mirror { sim, store: store(database.url()) };
    mirror.until(listening(1)).await;
    for _ in 0..2 {
        wire.lose_connections();
        let user = mirror.sim.hire("Asked", "For");
        // No poll is due for an hour: only the listener can hear of the request.
        let began = Instant::now();
        program.call(&["sync"]).await.expect(0);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
    }
    drop(daemon);
}

/// Whether so many sessions listen for requests.
fn listening(count: usize) -> String {
    format!(
        "SELECT count(*) >= {count} FROM pg_stat_activity
          WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
}
