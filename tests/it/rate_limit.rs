//! The rate limit with real processes: they share a budget in PostgreSQL and send HTTP requests to a server that records the
//! time of each request. The limit of 100 requests in 15 s is scaled down to 20 in half a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rosterd::daemon::limiter::LimiterTask;
use rosterd::harvest::rate_limit::{Priority, RateLimiter, RateLimits};
use rosterd::outbound::retry_after;
use rosterd::store::Pool;
use rosterd::store::permits::{self, Replica};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::database::TestDatabase;

pub const MILLI: Duration = Duration::from_millis(1);
pub const TTL: Duration = Duration::from_millis(400);
/// The grace is much longer than the client's timeouts (at most 200 ms), so that a busy machine does not exceed it.
pub const LIMITS: RateLimits = RateLimits {
    requests: 20,
    window: Duration::from_millis(500),
    reserve: 2,
    grace: Duration::from_millis(1500),
};

/// A database, and the name of a budget.
pub async fn database() -> (TestDatabase, Pool, String) {
    let database = TestDatabase::new().await;
    let pool = PgPoolOptions::new().max_connections(20).connect(database.url()).await.unwrap();
    (database, pool.into(), Uuid::new_v4().to_string())
}

pub fn replica() -> Replica {
    Replica { id: Uuid::new_v4(), name: "test".to_owned() }
}

fn start(pool: &Pool, budget: &str) -> (LimiterTask, RateLimiter) {
    let budgets = LimiterTask::start(pool.clone(), replica(), TTL, LIMITS, [budget.to_owned()]);
    let limiter = budgets.limiter(budget).unwrap();
    (budgets, limiter)
}

/// Waits until a query about the budget returns true.
pub async fn until(pool: &Pool, condition: &'static str, budget: &str) {
    let give_up = Instant::now() + 60_000 * MILLI;
    while !sqlx::query_scalar::<_, bool>(condition).bind(budget).fetch_one(pool).await.unwrap() {
        assert!(Instant::now() < give_up, "still false: {condition}");
        sleep(5 * MILLI).await;
    }
}

// ---- the limiter task ----

#[tokio::test]
async fn idle_process_holds_no_permits() {
    let (_database, pool, budget) = database().await;
    let (budgets, limiter) = start(&pool, &budget);
    for _ in 0..LIMITS.permits() {
        limiter.permit(Priority::Poll).await.answered(StatusCode::OK, None);
    }
    // A free row stays in the table until a process takes permits.
    let none =
        "SELECT count(*) = 0 FROM roster.rate_permits WHERE budget = $1 AND free_at > clock_timestamp()";
    until(&pool, none, &budget).await;
    limiter.permit(Priority::Poll).await.answered(StatusCode::OK, None);
    budgets.stop().await;
}

#[tokio::test]
async fn without_the_database_no_request_is_sent_after_the_ttl() {
    let (_database, pool, budget) = database().await;
    let (budgets, limiter) = start(&pool, &budget);
    limiter.permit(Priority::Poll).await.answered(StatusCode::OK, None);
    pool.close().await;
    let closed = Instant::now();
    let mut last = closed;
    while let Ok(permit) = timeout(3 * TTL, limiter.permit(Priority::Poll)).await {
        last = Instant::now();
        permit.answered(StatusCode::OK, None);
    }
    assert!(last < closed + 2 * TTL, "the TTL, and as much again for a busy machine");
    budgets.stop().await;
}

#[tokio::test]
async fn process_with_an_expired_registration_registers_again() {
    let (_database, pool, budget) = database().await;
    let me = replica();
    let budgets = LimiterTask::start(pool.clone(), me.clone(), TTL, LIMITS, [budget]);
    let mut heartbeats = budgets.heartbeats();
    let first = *heartbeats.wait_for(|heartbeats| heartbeats.registrations == 1).await.unwrap();
    assert!(first.beat_at.is_some());
    permits::unregister(&pool, me.id).await.unwrap(); // as if it had expired
    heartbeats.wait_for(|heartbeats| heartbeats.registrations == 2).await.unwrap();
    budgets.stop().await;
    assert!(heartbeats.wait_for(|_| false).await.is_err(), "the channel should close with the limiter task");
}

// ---- requests at Harvest ----

/// Records the time of each request, and responds after a delay.
struct Harvest {
    url: String,
    server: Arc<Server>,
}

struct Server {
    arrived: Mutex<Vec<Instant>>,
    rng: Mutex<StdRng>,
    /// The longest delay.
    delay: Duration,
    throttling: AtomicBool,
}

impl Harvest {
    async fn start(delay: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rng = Mutex::new(StdRng::seed_from_u64(7));
        let server = Arc::new(Server { arrived: Mutex::default(), rng, delay, throttling: false.into() });
        let app = axum::Router::new().fallback(handle).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, server }
    }

    fn arrived(&self) -> Vec<Instant> {
        self.server.arrived.lock().unwrap().clone()
    }

    fn throttle(&self, on: bool) {
        self.server.throttling.store(on, Ordering::SeqCst);
    }

    /// The largest number of requests in any closed window.
    fn worst_window(&self) -> usize {
        let arrived = self.arrived();
        let within =
            |first: Instant| arrived.iter().filter(|&&at| at >= first && at - first <= LIMITS.window).count();
        arrived.iter().map(|&first| within(first)).max().unwrap_or(0)
    }
}

async fn handle(State(server): State<Arc<Server>>) -> Response {
    server.arrived.lock().unwrap().push(Instant::now());
    if server.throttling.load(Ordering::SeqCst) {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
    }
    let delay = server.delay.mul_f64(server.rng.lock().unwrap().random());
    sleep(delay).await;
    StatusCode::OK.into_response()
}

/// Sends one request as the client does, with a timeout.
async fn get(
    limiter: &RateLimiter,
    priority: Priority,
    client: &reqwest::Client,
    url: &str,
    timeout_after: Duration,
) {
    let permit = limiter.permit(priority).await;
    match client.get(url).timeout(timeout_after).send().await {
        Ok(response) => {
            let retry_after = retry_after(response.headers(), DateTime::<Utc>::UNIX_EPOCH);
            permit.answered(response.status(), retry_after);
        }
        Err(_) => drop(permit),
    }
}

/// A process with four callers that send as soon as they get a permit. Dropping it simulates a crash.
struct Process {
    budgets: LimiterTask,
    callers: JoinSet<()>,
}

impl Process {
    fn start(pool: &Pool, budget: &str, harvest: &Harvest, seed: u64) -> Self {
        let (budgets, limiter) = start(pool, budget);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..4 {
            let (limiter, client, url) = (limiter.clone(), client.clone(), harvest.url.clone());
            let mut rng = StdRng::seed_from_u64(seed * 4 + caller);
            let priority = if caller == 0 { Priority::Background } else { Priority::Poll };
            callers.spawn(async move {
                loop {
                    let timeout_after = rng.random_range(20..200) * MILLI;
                    get(&limiter, priority, &client, &url, timeout_after).await;
                }
            });
        }
        Self { budgets, callers }
    }

    async fn stop(mut self) {
        self.callers.shutdown().await;
        self.budgets.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_holds_during_delays_timeouts_crashes_restarts_and_a_429() {
    let (_database, pool, budget) = database().await;
    let harvest = Harvest::start(150 * MILLI).await;
    let mut rng = StdRng::seed_from_u64(40);
    let mut processes: Vec<Process> =
        (0..3).map(|seed| Process::start(&pool, &budget, &harvest, seed)).collect();
    for step in 3..33 {
        sleep(rng.random_range(50..500) * MILLI).await;
        harvest.throttle((12..14).contains(&step));
        let process = processes.swap_remove(rng.random_range(0..3));
        if rng.random() {
            process.stop().await;
        } else {
            drop(process);
        }
        processes.push(Process::start(&pool, &budget, &harvest, step));
    }
    for process in processes {
        process.stop().await;
    }
    // A process that waits gets all permits back.
    let (budgets, limiter) = start(&pool, &budget);
    for _ in 0..2 * LIMITS.permits() {
        get(
            &limiter,
            Priority::Poll,
            &reqwest::Client::builder().no_proxy().build().unwrap(),
            &harvest.url,
            200 * MILLI,
        )
        .await;
    }
    budgets.stop().await;
    assert!(
        harvest.arrived().len() > 2 * LIMITS.permits() as usize,
        "the earlier processes should have sent requests"
    );
    assert!(harvest.worst_window() <= LIMITS.permits() as usize, "{} in a window", harvest.worst_window());
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_process_waits_for_the_permits_of_its_predecessor() {
    let (_database, pool, budget) = database().await;
    let harvest = Harvest::start(Duration::ZERO).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..3 {
        let (budgets, limiter) = start(&pool, &budget);
        for _ in 0..LIMITS.permits() {
            get(&limiter, Priority::Poll, &client, &harvest.url, LIMITS.grace).await;
        }
        budgets.stop().await;
    }
    assert_eq!(harvest.arrived().len(), 3 * LIMITS.permits() as usize);
    assert!(harvest.worst_window() <= LIMITS.permits() as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_429_no_process_sends_before_retry_after_has_passed() {
    let (_database, pool, budget) = database().await;
    let harvest = Harvest::start(Duration::ZERO).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (first, limiter) = start(&pool, &budget);
    let (second, neighbor) = start(&pool, &budget);
    get(&neighbor, Priority::Poll, &client, &harvest.url, LIMITS.grace).await; // it may hold permits already

    harvest.throttle(true);
    get(&limiter, Priority::Poll, &client, &harvest.url, LIMITS.grace).await;
    harvest.throttle(false);
    let refused = *harvest.arrived().last().unwrap();

    // A running process learns of the pause by its second heartbeat from now, a new one by its first.
    let is_paused = "SELECT EXISTS (SELECT FROM roster.rate_budgets WHERE name = $1)";
    until(&pool, is_paused, &budget).await;
    let mut beats = second.heartbeats();
    for _ in 0..2 {
        beats.mark_unchanged();
        beats.changed().await.unwrap();
    }
    let (third, newcomer) = start(&pool, &budget);
    let send = |limiter| get(limiter, Priority::Poll, &client, &harvest.url, LIMITS.grace);
    tokio::join!(send(&limiter), send(&neighbor), send(&newcomer));
    for at in &harvest.arrived()[2..] {
        assert!(*at >= refused + 1000 * MILLI);
    }
    for budgets in [first, second, third] {
        budgets.stop().await;
    }
}
