//! The rate law for real: processes that share a budget in PostgreSQL and talk HTTP to a server that
//! stamps what arrives. A hundred requests in 15 s are scaled down to twenty in half a second.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are a test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rosterd::harvest::pace::{Lane, Limits, Pace, Throttle, retry_after};
use rosterd::store::Connections;
use rosterd::store::permits::{self, Ask, Chunk, Replica};
use rosterd::sync::budget::Budgets;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::database::TestDatabase;

const MILLI: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_millis(400);
/// Ample beside the client's time-outs (200 ms at most): a busy machine must not break the premise.
const LIMITS: Limits = Limits {
    requests: 20,
    window: Duration::from_millis(500),
    reserve: 2,
    grace: Duration::from_millis(1500),
};

/// A database for this test, and the name of a budget that no other test uses.
async fn database() -> (TestDatabase, Connections, String) {
    let database = TestDatabase::new().await;
    let pool = PgPoolOptions::new().max_connections(20).connect(database.url()).await.unwrap();
    (database, pool.into(), Uuid::new_v4().to_string())
}

fn replica() -> Replica {
    Replica { id: Uuid::new_v4(), name: "test".to_owned() }
}

fn ask(budget: &str, permits: u32, hold: Duration) -> Ask<'_> {
    Ask { budget, replica: Uuid::new_v4(), permits, of: LIMITS.permits(), hold }
}

fn start(pool: &Connections, budget: &str) -> (Budgets, Pace) {
    let budgets = Budgets::start(pool.clone(), replica(), TTL, LIMITS, [budget.to_owned()]);
    let pace = budgets.pace(budget).unwrap();
    (budgets, pace)
}

/// Waits for the database to say yes about the budget.
async fn until(pool: &Connections, question: &'static str, budget: &str) {
    let give_up = Instant::now() + 60_000 * MILLI;
    while !sqlx::query_scalar::<_, bool>(question).bind(budget).fetch_one(pool).await.unwrap() {
        assert!(Instant::now() < give_up, "never true: {question}");
        sleep(5 * MILLI).await;
    }
}

// ---- the budget in the database ----

#[tokio::test(flavor = "multi_thread")]
async fn those_who_take_at_once_get_all_there_is_and_no_more() {
    let (_database, pool, budget) = database().await;
    let mut takers = JoinSet::new();
    for _ in 0..30 {
        let (pool, budget) = (pool.clone(), budget.clone());
        takers.spawn(async move { permits::take(&pool, ask(&budget, 4, 60_000 * MILLI)).await.unwrap() });
    }
    let chunks: Vec<u32> = takers.join_all().await.into_iter().flatten().map(|chunk| chunk.permits).collect();
    assert_eq!(chunks.iter().sum::<u32>(), LIMITS.permits());
    assert_eq!(chunks.len(), 5, "the last one got what was left: {chunks:?}");
}

#[tokio::test]
async fn a_chunk_that_nobody_prolongs_is_taken_by_another() {
    let (_database, pool, budget) = database().await;
    permits::take(&pool, ask(&budget, 18, Duration::ZERO)).await.unwrap().unwrap();
    let chunk = permits::take(&pool, ask(&budget, 18, 60_000 * MILLI)).await.unwrap().unwrap();
    assert_eq!(chunk.permits, 18);
    assert_eq!(permits::take(&pool, ask(&budget, 1, MILLI)).await.unwrap(), None);
}

#[tokio::test]
async fn a_late_heartbeat_keeps_a_chunk_that_nobody_took_and_learns_of_one_that_was() {
    let (_database, pool, budget) = database().await;
    let me = replica();
    let beat =
        async |chunk: Chunk| permits::beat(&pool, &me, TTL, 60_000 * MILLI, &[chunk.id]).await.unwrap();

    let chunk = permits::take(&pool, ask(&budget, 10, Duration::ZERO)).await.unwrap().unwrap();
    assert_eq!(beat(chunk).await.kept, [chunk.id]);
    let rest = permits::take(&pool, ask(&budget, 10, Duration::ZERO)).await.unwrap().unwrap();
    assert_eq!(rest.permits, 8, "ten were kept");

    permits::take(&pool, ask(&budget, 8, 60_000 * MILLI)).await.unwrap().unwrap();
    assert_eq!(beat(rest).await.kept, [] as [i64; 0]);
}

#[tokio::test]
async fn a_chunk_that_is_being_prolonged_is_not_taken() {
    let (_database, pool, budget) = database().await;
    let chunk = permits::take(&pool, ask(&budget, 18, Duration::ZERO)).await.unwrap().unwrap();
    let mut heartbeat = pool.begin().await.unwrap();
    sqlx::query("UPDATE roster.permits SET free_at = free_at + interval '1 hour' WHERE id = $1")
        .bind(chunk.id)
        .execute(&mut *heartbeat)
        .await
        .unwrap();
    assert_eq!(permits::take(&pool, ask(&budget, 18, MILLI)).await.unwrap(), None);
    heartbeat.commit().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_registers_and_says_when_the_process_was_thought_dead() {
    let (_database, pool, _) = database().await;
    let me = replica();
    let beat = async |ttl| permits::beat(&pool, &me, ttl, TTL, &[]).await.unwrap().was_alive;
    assert!(!beat(60_000 * MILLI).await, "unknown");
    assert!(beat(Duration::ZERO).await);
    assert!(!beat(60_000 * MILLI).await, "expired");
    assert!(beat(60_000 * MILLI).await);
    permits::leave(&pool, me.id, Duration::ZERO).await.unwrap();
    assert!(!beat(TTL).await, "gone");
}

#[tokio::test]
async fn what_is_left_behind_rests_as_long_as_asked_and_never_longer_than_it_would_have() {
    let (_database, pool, budget) = database().await;
    let me = Ask { replica: Uuid::new_v4(), ..ask(&budget, 9, 60_000 * MILLI) };
    permits::take(&pool, me).await.unwrap().unwrap();
    permits::leave(&pool, me.replica, 50_000 * MILLI).await.unwrap();
    assert_eq!(permits::take(&pool, ask(&budget, 18, MILLI)).await.unwrap().unwrap().permits, 9);
    permits::leave(&pool, me.replica, Duration::ZERO).await.unwrap();
    permits::leave(&pool, me.replica, 50_000 * MILLI).await.unwrap();
    sleep(2 * MILLI).await;
    assert_eq!(permits::take(&pool, ask(&budget, 18, MILLI)).await.unwrap().unwrap().permits, 18);
}

// ---- the keeper ----

#[tokio::test]
async fn an_idle_process_keeps_one_chunk_and_gives_the_others_back() {
    let (_database, pool, budget) = database().await;
    let (budgets, pace) = start(&pool, &budget);
    for _ in 0..LIMITS.permits() {
        pace.permit(Lane::Poll).await.answered();
    }
    // A row whose return was lost on the way runs out, and stays until somebody takes.
    let one = "SELECT count(*) = 1 FROM roster.permits WHERE budget = $1 AND free_at > clock_timestamp()";
    until(&pool, one, &budget).await;
    pace.permit(Lane::Poll).await.answered(); // from the chunk that it kept
    budgets.stop().await;
}

#[tokio::test]
async fn while_the_database_is_away_nothing_is_sent_beyond_the_ttl() {
    let (_database, pool, budget) = database().await;
    let (budgets, pace) = start(&pool, &budget);
    pace.permit(Lane::Poll).await.answered();
    pool.close().await;
    let closed = Instant::now();
    let mut last = closed;
    while let Ok(permit) = timeout(3 * TTL, pace.permit(Lane::Poll)).await {
        last = Instant::now();
        permit.answered();
    }
    assert!(last < closed + 2 * TTL, "once the ttl, and once for a machine that stalls");
    budgets.stop().await;
}

#[tokio::test]
async fn a_process_that_was_thought_dead_says_so() {
    let (_database, pool, budget) = database().await;
    let me = replica();
    let budgets = Budgets::start(pool.clone(), me.clone(), TTL, LIMITS, [budget]);
    let mut standing = budgets.standing();
    let first = *standing.wait_for(|standing| standing.registrations == 1).await.unwrap();
    assert!(first.beat_at.is_some());
    permits::leave(&pool, me.id, Duration::ZERO).await.unwrap(); // as if swept
    standing.wait_for(|standing| standing.registrations == 2).await.unwrap();
    budgets.stop().await;
    assert!(standing.wait_for(|_| false).await.is_err(), "the channel closes with the keeper");
}

// ---- at Harvest's door ----

/// Stamps what arrives and answers after a while.
struct Harvest {
    url: String,
    door: Arc<Door>,
}

struct Door {
    arrived: Mutex<Vec<Instant>>,
    rng: Mutex<StdRng>,
    /// The longest time to an answer.
    slow: Duration,
    throttling: AtomicBool,
}

impl Harvest {
    async fn open(slow: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rng = Mutex::new(StdRng::seed_from_u64(7));
        let door = Arc::new(Door { arrived: Mutex::default(), rng, slow, throttling: false.into() });
        let app = axum::Router::new().fallback(handle).with_state(door.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, door }
    }

    fn arrived(&self) -> Vec<Instant> {
        self.door.arrived.lock().unwrap().clone()
    }

    fn throttle(&self, on: bool) {
        self.door.throttling.store(on, Ordering::SeqCst);
    }

    /// The most requests in any closed window.
    fn worst_window(&self) -> usize {
        let arrived = self.arrived();
        let within =
            |first: Instant| arrived.iter().filter(|&&at| at >= first && at - first <= LIMITS.window).count();
        arrived.iter().map(|&first| within(first)).max().unwrap_or(0)
    }
}

async fn handle(State(door): State<Arc<Door>>) -> Response {
    door.arrived.lock().unwrap().push(Instant::now());
    if door.throttling.load(Ordering::SeqCst) {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
    }
    let delay = door.slow.mul_f64(door.rng.lock().unwrap().random());
    sleep(delay).await;
    StatusCode::OK.into_response()
}

/// One request, as the client will make it. The client gives up after `patience`.
async fn get(pace: &Pace, lane: Lane, client: &reqwest::Client, url: &str, patience: Duration) {
    let permit = pace.permit(lane).await;
    match client.get(url).timeout(patience).send().await {
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
            let header = response.headers()[header::RETRY_AFTER].to_str().unwrap();
            permit.throttled(Throttle::TooMany, retry_after(header, DateTime::<Utc>::UNIX_EPOCH));
        }
        Ok(_) => permit.answered(),
        Err(_) => drop(permit),
    }
}

/// A process with some callers that send whenever they may. Dropping it is a crash.
struct Process {
    budgets: Budgets,
    callers: JoinSet<()>,
}

impl Process {
    fn start(pool: &Connections, budget: &str, harvest: &Harvest, seed: u64) -> Self {
        let (budgets, pace) = start(pool, budget);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..4 {
            let (pace, client, url) = (pace.clone(), client.clone(), harvest.url.clone());
            let mut rng = StdRng::seed_from_u64(seed * 4 + caller);
            let lane = if caller == 0 { Lane::Background } else { Lane::Poll };
            callers.spawn(async move {
                loop {
                    let patience = rng.random_range(20..200) * MILLI;
                    get(&pace, lane, &client, &url, patience).await;
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
async fn the_law_holds_through_delays_time_outs_crashes_restarts_and_a_429() {
    let (_database, pool, budget) = database().await;
    let harvest = Harvest::open(150 * MILLI).await;
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
    // Whatever happened: all permits come back to one who waits.
    let (budgets, pace) = start(&pool, &budget);
    for _ in 0..2 * LIMITS.permits() {
        get(
            &pace,
            Lane::Poll,
            &reqwest::Client::builder().no_proxy().build().unwrap(),
            &harvest.url,
            200 * MILLI,
        )
        .await;
    }
    budgets.stop().await;
    assert!(harvest.arrived().len() > 2 * LIMITS.permits() as usize, "the others sent something as well");
    assert!(harvest.worst_window() <= LIMITS.permits() as usize, "{} in a window", harvest.worst_window());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_waits_for_what_its_predecessor_sent() {
    let (_database, pool, budget) = database().await;
    let harvest = Harvest::open(Duration::ZERO).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..3 {
        let (budgets, pace) = start(&pool, &budget);
        for _ in 0..LIMITS.permits() {
            get(&pace, Lane::Poll, &client, &harvest.url, LIMITS.grace).await;
        }
        budgets.stop().await;
    }
    assert_eq!(harvest.arrived().len(), 3 * LIMITS.permits() as usize);
    assert!(harvest.worst_window() <= LIMITS.permits() as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_429_nobody_sends_until_retry_after_has_passed() {
    let (_database, pool, budget) = database().await;
    let harvest = Harvest::open(Duration::ZERO).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (first, pace) = start(&pool, &budget);
    let (second, neighbour) = start(&pool, &budget);
    get(&neighbour, Lane::Poll, &client, &harvest.url, LIMITS.grace).await; // it holds a chunk already

    harvest.throttle(true);
    get(&pace, Lane::Poll, &client, &harvest.url, LIMITS.grace).await;
    harvest.throttle(false);
    let refused = *harvest.arrived().last().unwrap();

    // The neighbour knows after its next heartbeat but one; one that starts now, from its first.
    let told = "SELECT EXISTS (SELECT FROM roster.permits WHERE budget = $1 AND replica = '00000000-0000-0000-0000-000000000000')";
    until(&pool, told, &budget).await;
    let mut beats = second.standing();
    for _ in 0..2 {
        beats.mark_unchanged();
        beats.changed().await.unwrap();
    }
    let (third, newcomer) = start(&pool, &budget);
    let send = |pace| get(pace, Lane::Poll, &client, &harvest.url, LIMITS.grace);
    tokio::join!(send(&pace), send(&neighbour), send(&newcomer));
    for at in &harvest.arrived()[2..] {
        assert!(*at >= refused + 1000 * MILLI);
    }
    for budgets in [first, second, third] {
        budgets.stop().await;
    }
}
