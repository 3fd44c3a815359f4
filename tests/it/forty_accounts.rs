//! Forty accounts in one process: it reads each of them with as many connections as for one.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harvest_sim::{Company, Options, Sim};
use sqlx::{Connection, PgConnection};

use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::Program;

const ACCOUNTS: i64 = 40;
/// The default of `database.max_connections`.
const CONNECTIONS: i64 = 4;

/// The largest number of the daemon's connections at any time until `stop` is set.
async fn most_connections(url: String, stop: Arc<AtomicBool>) -> i64 {
    let mut observer = PgConnection::connect(&url).await.unwrap();
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        let now: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name = 'rosterd' AND datname = current_database()",
        )
        .fetch_one(&mut observer)
        .await
        .unwrap();
        most = most.max(now);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    most
}

/// Waits until a query returns true. Uses a connection that is not counted as the daemon's.
async fn until(url: &str, condition: &'static str) {
    let mut observer = PgConnection::connect(url).await.unwrap();
    let give_up = tokio::time::Instant::now() + crate::program::STUCK;
    loop {
        let is_true: bool = sqlx::query_scalar(condition).fetch_one(&mut observer).await.unwrap();
        if is_true {
            return;
        }
        assert!(tokio::time::Instant::now() < give_up, "still false: {condition}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_accounts_are_read_with_as_many_connections_as_one() {
    let mut companies = (1..=ACCOUNTS).map(|id| {
        let company = Company::seeded(id.unsigned_abs(), 4, 6);
        company.with_account_id(id).with_token(format!("{id}.pt.not-a-real-token"))
    });
    let first = companies.next().unwrap();
    let sims = Sim::start_many(first, companies, &Options::default()).await.unwrap();
    let database = TestDatabase::new().await;
    let mut settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for sim in &sims {
        let (id, token) = (sim.account_id(), sim.token());
        writeln!(settings, "[[accounts]]\nid = {id}\naccess_token = \"{token}\"\n").unwrap();
    }
    let mut program = Program::new(&sims[0], database.url());
    program
        .set("ROSTERD_CONFIG", settings.path().to_str().unwrap())
        .set("HARVEST_ACCOUNT_ID", "")
        .set("HARVEST_ACCESS_TOKEN", "")
        .set("ROSTERD__RATE_LIMIT__SCOPE", "token")
        // On a busy machine forty polls take seconds, and an account is stale after three intervals.
        .set("ROSTERD__SYNC__POLL_INTERVAL", "5s");
    let stop = Arc::new(AtomicBool::new(false));
    let observer = tokio::spawn(most_connections(database.url().to_owned(), stop.clone()));
    let mut daemon = program.start();

    let all = "SELECT count(*) = 40 FROM roster.accounts WHERE last_full_at IS NOT NULL";
    until(database.url(), all).await;
    for sim in &sims {
        sim.create_user("Nora", "Newcomer");
    }
    let hired = "SELECT count(*) = 40 FROM roster.users WHERE last_name = 'Newcomer'";
    until(database.url(), hired).await;
    stop.store(true, Ordering::Relaxed);
    let most = observer.await.unwrap();
    assert!((1..=CONNECTIONS).contains(&most), "{most} connections");
    program.until_ready(200).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    assert!(!daemon.rest().iter().any(|line| line.contains("cycle.failed")), "{}", daemon.log());
    for sim in sims {
        Mirror { sim, store: store(database.url()) }.expect_mirror_equals_source().await;
    }
}
