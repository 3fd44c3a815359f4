//! Request budgets: processes that cannot register in the database, budgets per token, and unused budgets.

use std::io::Write;
use std::time::Duration;

use harvest_sim::{Company, Options, Sim};
use rosterd::daemon::limiter::LimiterTask;
use rosterd::harvest::rate_limit::{Priority, RateLimits};
use rosterd::roster::permits::{PermitRequest, Returned};
use rosterd::store::Pool;
use rosterd::store::permits::{self, Replica};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::program::{Program, STUCK};

const RATE_LIMIT_WINDOW: Duration = Duration::from_millis(1500);

/// A simulated Harvest that counts requests and refuses none.
async fn sim(company: Company) -> Sim {
    Sim::start(company, Options { limit: None, ..Options::default() }).await.unwrap()
}

async fn pool(database: &TestDatabase) -> Pool {
    PgPoolOptions::new().max_connections(2).connect(database.url()).await.unwrap().into()
}

async fn budget_names(pool: &Pool) -> Vec<String> {
    let query = "SELECT DISTINCT budget FROM roster.rate_permits WHERE budget <> '' ORDER BY 1";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_that_cannot_register_while_a_daemon_is_busy_keeps_to_the_limit() {
    const UNKNOWN_ACCOUNTS: i64 = 7;
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

    let separator = if database.url().contains('?') { '&' } else { '?' };
    program.set(
        "DATABASE_URL",
        &format!("{}{separator}options[default_transaction_read_only]=on", database.url()),
    );
    let mut settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for id in 1..=UNKNOWN_ACCOUNTS {
        writeln!(settings, "[[accounts]]\nid = {id}\naccess_token = \"{}\"", sim.token()).unwrap();
    }
    program.set("ROSTERD_CONFIG", settings.path().to_str().unwrap());
    program.call(&["check"]).await;

    let requests = sim.requests();
    let refused = requests.iter().filter(|request| request.status == Some(404)).count();
    assert_eq!(refused, usize::try_from(UNKNOWN_ACCOUNTS).unwrap(), "requests for unknown accounts");
    assert!(
        requests.len() - refused < 260,
        "the first read of one record per request ended before the check"
    );
    let most = sim.max_requests_in_window(RATE_LIMIT_WINDOW);
    assert!(most <= 20, "{most} requests in a window");
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
        let output = called.stdout() + &called.sentence();
        assert!(output.contains("set rate_limit.reserve to 1 or more"), "{output}");
    }
    assert_eq!(sim.requests().len(), 0);
}

#[tokio::test]
async fn budget_name_of_a_token_differs_between_databases() {
    let sim = sim(Company::seeded(5, 5, 5)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        // A copy of the template database would have the template's salt.
        let database = TestDatabase::blank().await;
        let mut program = Program::new(&sim, database.url());
        program.set("ROSTERD__RATE_LIMIT__SCOPE", "token");
        program.call(&["sync"]).await.expect(0);
        program.call(&["check"]).await.expect(0);
        let names = budget_names(&pool(&database).await).await;
        assert_eq!(names.len(), 1, "{names:?}");
        seen.extend(names);
    }
    assert_ne!(seen[0], seen[1]);
    let unsalted = Uuid::new_v5(&rosterd::roster::event::NAMESPACE, sim.token().as_bytes()).to_string();
    assert!(seen.iter().all(|name| name.starts_with("token ") && !name.contains(&unsalted)), "{seen:?}");
}

#[tokio::test]
async fn heartbeats_go_on_while_permit_grants_wait_for_locks() {
    const REPLICA_TTL: Duration = Duration::from_secs(3);
    let database = TestDatabase::new().await;
    let names: Vec<String> = (0..12).map(|number| format!("budget {number}")).collect();
    let mut locks = PgConnection::connect(database.url()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(database.url()).unwrap();
    let replica = Replica { id: Uuid::new_v4(), name: "test".to_owned() };
    let limits = RateLimits {
        requests: 10,
        window: Duration::from_secs(1),
        reserve: 0,
        grace: Duration::from_secs(1),
    };
    let budgets = LimiterTask::start(pool.into(), replica, REPLICA_TTL, limits, names.clone());
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
            let limiter = budgets.limiter(name).unwrap();
            AbortOnDropHandle::new(tokio::spawn(async move { drop(limiter.permit(Priority::Poll).await) }))
        })
        .collect();
    let (heartbeats, began) = (budgets.heartbeats(), Instant::now());
    while began.elapsed() < REPLICA_TTL * 4 {
        let since_heartbeat = heartbeats.borrow().beat_at.unwrap().elapsed();
        assert!(since_heartbeat < REPLICA_TTL, "no heartbeat for {since_heartbeat:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(waiting.iter().all(|permit| !permit.is_finished()), "a grant did not wait for its lock");
    locks.close().await.unwrap();
    for permit in waiting {
        timeout(STUCK, permit).await.expect("a grant should end after the unlock").unwrap();
    }
    budgets.stop().await;
}

#[tokio::test]
async fn permits_of_a_budget_that_is_no_longer_used_are_removed_after_a_day() {
    let database = TestDatabase::new().await;
    let pool = pool(&database).await;
    let request = PermitRequest {
        ids: vec![Uuid::new_v4()],
        of: 10,
        hold: Duration::from_mins(1),
        ..PermitRequest::default()
    };
    let replica = Replica { id: Uuid::new_v4(), name: "test".to_owned() };
    for budget in ["unused", "used"] {
        let request = PermitRequest { ids: vec![Uuid::new_v4()], ..request.clone() };
        assert_eq!(permits::take(&pool, replica.id, budget, &request).await.unwrap().permits, 1);
        permits::pause(&pool, budget, Duration::from_mins(1)).await.unwrap();
    }
    for statement in [
        "UPDATE roster.rate_permits SET free_at = now() - interval '25 hours' WHERE budget IN ('unused', '')",
        "UPDATE roster.rate_budgets SET paused_until = now() - interval '25 hours' WHERE name = 'unused'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    permits::heartbeat(&pool, &replica, Duration::from_mins(1)).await.unwrap();
    permits::give_back(&pool, &Returned::default()).await.unwrap();
    assert_eq!(budget_names(&pool).await, ["used"]);
    let paused = sqlx::query_scalar::<_, String>("SELECT name FROM roster.rate_budgets");
    assert_eq!(paused.fetch_all(&pool).await.unwrap(), ["used"]);
    let paused = permits::take(&pool, replica.id, "used", &request).await.unwrap();
    assert!(paused.permits == 0 && paused.pause > Duration::from_secs(50), "{paused:?}");
    assert_eq!(
        permits::take(&pool, replica.id, "unused", &request).await.unwrap().permits,
        1,
        "the marker is kept"
    );
}

#[tokio::test]
async fn killed_first_read_blocks_only_its_requests_in_flight() {
    const LIMIT: usize = 20;
    const WINDOW: Duration = Duration::from_secs(2);
    let survivor = Company::seeded(6, 3 * LIMIT, 0).with_account_id(7);
    let options = Options { limit: None, ..Options::default() };
    let sims = Sim::start_many(Company::seeded(5, 400, 0), [survivor], &options).await.unwrap();
    let database = TestDatabase::new().await;
    let program = |sim| {
        let mut program = Program::new(sim, database.url());
        program
            .set("ROSTERD__HARVEST__PER_PAGE", "1")
            .set("ROSTERD__RATE_LIMIT__REQUESTS", &LIMIT.to_string())
            .set("ROSTERD__RATE_LIMIT__WINDOW", &format!("{}s", WINDOW.as_secs()))
            .set("ROSTERD__RATE_LIMIT__RESERVE", "0");
        program
    };
    let mut daemon = program(&sims[0]).start();
    while sims[0].requests().len() < 2 * LIMIT {
        sleep(Duration::from_millis(5)).await;
    }
    daemon.signal("-KILL");
    let killed = std::time::Instant::now();
    daemon.ended().await;
    program(&sims[1]).call(&["sync"]).await.expect(0);

    let times = |sim: &Sim| sim.requests().into_iter().map(|request| request.at).collect::<Vec<_>>();
    // The requests in flight count for this long, because Harvest may receive them until the end of the timeout.
    let request_timeout = Duration::from_secs(30);
    let meanwhile = times(&sims[1]).into_iter().filter(|at| *at < killed + request_timeout).count();
    assert!(
        meanwhile > LIMIT,
        "only {meanwhile} requests while the permits of requests in flight were taken"
    );
    let mut all = [times(&sims[0]), times(&sims[1])].concat();
    all.sort_unstable();
    assert!(all.windows(LIMIT + 1).all(|some| some[LIMIT] - some[0] > WINDOW));
    let first = times(&sims[1]).into_iter().min().unwrap();
    println!("first request {:.1} s after the kill", (first - killed).as_secs_f64());
}
