//! The budget of requests at its edges: processes that cannot register in the database, and the budgets of tokens.

use std::io::Write;
use std::time::Duration;

use harvest_sim::{Company, Options, Sim};
use rosterd::harvest::pace::{Lane, Limits};
use rosterd::store::Connections;
use rosterd::store::permits::{self, Ask, Replica};
use rosterd::sync::budget::Budgets;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::program::{Program, STUCK};

const WINDOW: Duration = Duration::from_millis(1500);

/// A simulated Harvest that counts requests and refuses none.
async fn sim(company: Company) -> Sim {
    Sim::start(company, Options { limit: None, ..Options::default() }).await.unwrap()
}

async fn pool(database: &TestDatabase) -> Connections {
    PgPoolOptions::new().max_connections(2).connect(database.url()).await.unwrap().into()
}

async fn names(pool: &Connections) -> Vec<String> {
    let query = "SELECT DISTINCT budget FROM roster.permits ORDER BY 1";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_that_cannot_register_while_a_daemon_is_busy_keeps_to_the_limit() {
    const UNKNOWN: i64 = 7;
    let sim = sim(Company::seeded(5, 60, 200)).await;
    let database = TestDatabase::new().await;
    let mut program = Program::new(&sim, database.url());
    program
        .set("ROSTERD__RATE_LIMIT__REQUESTS", "20")
        .set("ROSTERD__RATE_LIMIT__WINDOW", "1500ms")
        .set("ROSTERD__RATE_LIMIT__RESERVE", "2")
        .set("ROSTERD__HARVEST__PER_PAGE", "1");
    let mut daemon = program.start();
    daemon.until("daemon.started").await;

    let and = if database.url().contains('?') { '&' } else { '?' };
    program.set("DATABASE_URL", &format!("{}{and}options[default_transaction_read_only]=on", database.url()));
    let mut settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for id in 1..=UNKNOWN {
        writeln!(settings, "[[accounts]]\nid = {id}\naccess_token = \"{}\"", sim.token()).unwrap();
    }
    program.set("ROSTERD_CONFIG", settings.path().to_str().unwrap());
    program.call(&["check"]).await;

    let refused = sim.requests().into_iter().filter(|request| request.status == Some(404)).count();
    assert_eq!(refused, usize::try_from(UNKNOWN).unwrap(), "one request for each account that is not there");
    let most = sim.most_in_any_window(WINDOW);
    assert!((18..=20).contains(&most), "{most} requests in a window");
}

#[tokio::test]
async fn check_that_cannot_register_and_has_no_reserve_sends_nothing() {
    let sim = sim(Company::seeded(5, 5, 5)).await;
    let database = TestDatabase::blank().await;
    let mut program = Program::new(&sim, database.url());
    program.set("ROSTERD__RATE_LIMIT__RESERVE", "0");
    for command in [&["check"][..], &["sync", "--dry-run"]] {
        let called = program.call(command).await;
        called.expect(78);
        let said = called.stdout() + &called.sentence();
        assert!(said.contains("set rate_limit.reserve to 1 or more"), "{said}");
    }
    assert_eq!(sim.requests().len(), 0);
}

#[tokio::test]
async fn budget_of_a_token_has_one_name_in_a_database_and_another_in_the_next() {
    let sim = sim(Company::seeded(5, 5, 5)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        // Not a copy, which would have the original's salt.
        let database = TestDatabase::blank().await;
        let mut program = Program::new(&sim, database.url());
        program.set("ROSTERD__RATE_LIMIT__SCOPE", "token");
        program.call(&["sync"]).await.expect(0);
        program.call(&["check"]).await.expect(0);
        let names = names(&pool(&database).await).await;
        assert_eq!(names.len(), 1, "{names:?}");
        seen.extend(names);
    }
    assert_ne!(seen[0], seen[1]);
    let unsalted = Uuid::new_v5(&rosterd::roster::event::NAMESPACE, sim.token().as_bytes()).to_string();
    assert!(seen.iter().all(|name| name.starts_with("token ") && !name.contains(&unsalted)), "{seen:?}");
}

#[tokio::test]
async fn heartbeats_go_on_while_permit_grants_wait_for_locks() {
    const TTL: Duration = Duration::from_secs(3);
    let database = TestDatabase::new().await;
    let names: Vec<String> = (0..12).map(|nth| format!("budget {nth}")).collect();
    let mut locks = PgConnection::connect(database.url()).await.unwrap();
    let one = PgPoolOptions::new().max_connections(1).connect_lazy(database.url()).unwrap();
    let replica = Replica { id: Uuid::new_v4(), name: "test".to_owned() };
    let limits =
        Limits { requests: 10, window: Duration::from_secs(1), reserve: 0, grace: Duration::from_secs(1) };
    let budgets = Budgets::start(one.into(), replica, TTL, limits, names.clone());
    budgets.registered().await;
    for name in &names {
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('rosterd.permits/' || $1, 0))")
            .bind(name)
            .execute(&mut locks)
            .await
            .unwrap();
    }
    let waiting: Vec<_> = names
        .iter()
        .map(|name| {
            let pace = budgets.pace(name).unwrap();
            AbortOnDropHandle::new(tokio::spawn(async move { drop(pace.permit(Lane::Poll).await) }))
        })
        .collect();
    let (standing, began) = (budgets.standing(), Instant::now());
    while began.elapsed() < TTL * 4 {
        let silent = standing.borrow().beat_at.unwrap().elapsed();
        assert!(silent < TTL, "no heartbeat for {silent:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(waiting.iter().all(|permit| !permit.is_finished()), "the locks are held");
    locks.close().await.unwrap();
    for permit in waiting {
        timeout(STUCK, permit).await.expect("stuck").unwrap();
    }
    budgets.stop().await;
}

#[tokio::test]
async fn permits_of_a_budget_that_is_no_longer_used_are_removed_after_a_day() {
    let database = TestDatabase::new().await;
    let pool = pool(&database).await;
    let ask =
        |budget| Ask { budget, replica: Uuid::new_v4(), permits: 1, of: 10, hold: Duration::from_mins(1) };
    for budget in ["gone", "paused"] {
        permits::take(&pool, ask(budget)).await.unwrap().unwrap();
    }
    sqlx::query("UPDATE roster.permits SET free_at = now() - interval '25 hours' WHERE budget = 'gone'")
        .execute(&pool)
        .await
        .unwrap();
    permits::take(&pool, ask("used")).await.unwrap().unwrap();
    assert_eq!(names(&pool).await, ["paused", "used"]);
}
