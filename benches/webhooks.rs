//! Webhooks: events per second, memory for a backlog, and the time from a commit to the receipt, also with 32 endpoints
//! of which one hangs.
//!
//! `cargo bench -- webhooks [BACKLOG]`. The events are inserted into the outbox directly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use harvest_sim::{Company, Options, Sim};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;

use crate::measured::{Daemon, quantile, real};
use crate::postgres::{Server, until};

/// Commits with one event each.
const SINGLE: usize = 200;
/// Events per transaction of a backlog.
const BATCH: usize = 20_000;
/// As many as the settings allow.
const ENDPOINTS: usize = 32;

/// Answers after a pause. Returns its address and the number of requests.
async fn receiver(pause: Duration) -> (String, Arc<AtomicUsize>) {
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let handler = move |_: axum::body::Bytes| {
        let count = count.clone();
        async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            count.fetch_add(1, Ordering::Relaxed);
            StatusCode::NO_CONTENT
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(handler))).await });
    (format!("http://{address}/"), received)
}

/// Inserts events of `events` users in one transaction, with 1.2 kB each.
async fn insert(pool: &PgPool, events: usize) {
    let statement = "
        WITH head AS (UPDATE roster.outbox_head SET seq = seq + $1 RETURNING seq - $1 AS before, stream_id),
        inserted AS (
            INSERT INTO roster.outbox (seq, id, aggregatetype, aggregateid, type, payload, account_id, version, occurred_at, recorded_at, record_id)
            SELECT before + nth, gen_random_uuid(), 'user', '1/' || before + nth, 'user.updated',
                   jsonb_build_object('account_id', account.account_id, 'id', before + nth, 'type', 'user.updated', 'version', 1,
                                      'changed', '{}'::jsonb, 'stream_id', stream_id,
                                      'before', jsonb_build_object('first_name', repeat('x', 500)),
                                      'after', jsonb_build_object('first_name', repeat('y', 500))),
                   account.account_id, 1, now(), clock_timestamp(), before + nth
              FROM head, roster.accounts AS account, generate_series(1, $1) AS nth RETURNING seq)
        SELECT pg_notify('roster_outbox', max(seq)::text) FROM inserted";
    sqlx::query(statement).bind(i64::try_from(events).unwrap()).execute(pool).await.unwrap();
}

async fn wait_for(received: &AtomicUsize, requests: usize) {
    while received.load(Ordering::Relaxed) < requests {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The section of an endpoint.
fn section(server: &Server, name: &str, url: &str, lines: &str) -> String {
    let secret = format!("whsec_{name:A<43}=").replace('-', "x");
    let secret = file(server, &format!("{name}.secret"), &secret);
    format!("[webhooks.{name}]\nurl = \"{url}\"\nsecret_files = [\"{secret}\"]\n{lines}\n")
}

fn file(server: &Server, name: &str, text: &str) -> String {
    let path = server.directory().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A daemon after its first read, with these endpoints.
async fn start(server: &Server, database: &str, sections: &str) -> (Daemon, PgPool, Sim) {
    let sim = Sim::start(Company::seeded(3, 10, 10), Options::default()).await.unwrap();
    let url = server.database(database).await;
    let environment = [
        ("DATABASE_URL", url.clone()),
        ("HARVEST_BASE_URL", sim.base_url().to_owned()),
        ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
        ("HARVEST_ACCESS_TOKEN", sim.token()),
        ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("ROSTERD_CONFIG", file(server, "rosterd.toml", sections)),
    ];
    let daemon = Daemon::start(&environment, &server.directory().join("log"));
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    until(&pool, "SELECT count(first_full_at) = 1 FROM roster.accounts").await;
    until(&pool, DELIVERED).await;
    (daemon, pool, sim)
}

const DELIVERED: &str = "SELECT bool_and(acked_seq = seq) FROM roster.consumers, roster.outbox_head";

pub async fn measure(arguments: &[String]) {
    let backlog = arguments.first().map_or(1_000_000, |events| events.parse().unwrap());
    let server = Server::start().await;
    for (pause, in_flight, events) in [(0, 1, backlog), (50, 1, 200), (50, 8, 1600), (200, 8, 400)] {
        let (address, received) = receiver(Duration::from_millis(pause)).await;
        let section = section(&server, "bench", &address, &format!("in_flight = {in_flight}"));
        let database = format!("webhooks_{pause}_{in_flight}");
        let (daemon, pool, _sim) = start(&server, &database, &section).await;
        insert_backlog(&pool, events).await;
        let (memory, cpu, began) = (daemon.memory("VmRSS:"), daemon.cpu(), Instant::now());
        resume(&pool).await;
        wait_for(&received, events).await;
        let took = began.elapsed().as_secs_f64();
        let number = real(events);
        println!(
            "receiver of {pause} ms, {in_flight} in flight, backlog of {events}: {:.0} events/s, {:.2} ms of CPU each, \
             {:.1} MiB more memory",
            number / took,
            (daemon.cpu() - cpu) * 1000.0 / number,
            daemon.memory("VmHWM:") - memory
        );
        if pause == 0 {
            let mut times = Vec::new();
            for nth in 1..=SINGLE {
                // As in normal operation, the dispatcher is idle.
                tokio::time::sleep(Duration::from_millis(100)).await;
                insert(&pool, 1).await;
                let began = Instant::now();
                wait_for(&received, events + nth).await;
                times.push(began.elapsed());
            }
            print_times("from the commit to the receipt", times);
        }
        daemon.stop();
        pool.close().await;
        server.drop_database(&database).await;
    }
    for hangs in [false, true] {
        measure_endpoints(&server, hangs).await;
    }
    server.stop().await;
}

/// Inserts events while the endpoint is paused, so that all of them wait.
async fn insert_backlog(pool: &PgPool, events: usize) {
    let pause = "UPDATE roster.webhooks SET state = 'paused', epoch = epoch + 1";
    sqlx::query(pause).execute(pool).await.unwrap();
    for begin in (0..events).step_by(BATCH) {
        insert(pool, BATCH.min(events - begin)).await;
    }
}

async fn resume(pool: &PgPool) {
    let resume = "UPDATE roster.webhooks SET state = 'on', epoch = epoch + 1";
    sqlx::query(resume).execute(pool).await.unwrap();
    sqlx::query("SELECT pg_notify('roster_outbox', '')").execute(pool).await.unwrap();
}

/// Receipts by all endpoints, of which the first one may hang.
async fn measure_endpoints(server: &Server, hangs: bool) {
    let receipts = Arc::<Mutex<Vec<Instant>>>::default();
    let shared = receipts.clone();
    let handler = move |Path(nth): Path<usize>, _: axum::body::Bytes| {
        let receipts = shared.clone();
        async move {
            if hangs && nth == 0 {
                std::future::pending::<()>().await;
            }
            receipts.lock().unwrap().push(Instant::now());
            StatusCode::NO_CONTENT
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/{nth}", post(handler))).await });
    let of = |nth| section(server, &format!("bench-{nth}"), &format!("http://{address}/{nth}"), "");
    let sections: String = (0..ENDPOINTS).map(of).collect();
    let database = format!("webhooks_{ENDPOINTS}_{hangs}");
    let (daemon, pool, _sim) = start(server, &database, &sections).await;
    let (mut times, others) = (Vec::new(), ENDPOINTS - usize::from(hangs));
    for _ in 0..SINGLE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        receipts.lock().unwrap().clear();
        insert(&pool, 1).await;
        let began = Instant::now();
        while receipts.lock().unwrap().len() < others {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.extend(receipts.lock().unwrap().iter().map(|at| at.saturating_duration_since(began)));
    }
    let what = if hangs { "one of which hangs" } else { "all of which answer" };
    print_times(&format!("{ENDPOINTS} endpoints, {what}"), times);
    daemon.stop();
    pool.close().await;
    server.drop_database(&database).await;
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let [median, most] = [(1, 2), (99, 100)].map(|share| quantile(&times, share).as_millis());
    println!("{what}: median {median} ms, 99 % within {most} ms");
}
