//! Webhooks: events per second, and the time from a commit to the receipt.
//!
//! `cargo bench -- webhooks`. The events are inserted into the outbox directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use harvest_sim::{Company, Options, Sim};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;

use crate::measured::{Daemon, quantile};
use crate::postgres::{Server, until};

/// Commits with one event each.
const SINGLE: usize = 200;

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

pub async fn measure() {
    let server = Server::start().await;
    for (pause, in_flight, events) in [(0, 1, 20_000), (50, 1, 200), (50, 8, 1600), (200, 8, 400)] {
        let sim = Sim::start(Company::seeded(3, 10, 10), Options::default()).await.unwrap();
        let url = server.database(&format!("webhooks_{pause}_{in_flight}")).await;
        let (address, received) = receiver(Duration::from_millis(pause)).await;
        let file = |name: &str, text: &str| {
            let path = server.directory().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let secret = file("secret", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let section = format!(
            "[webhooks.bench]\nurl = \"{address}\"\nsecret_files = [\"{secret}\"]\nin_flight = {in_flight}\n"
        );
        let environment = [
            ("DATABASE_URL", url.clone()),
            ("HARVEST_BASE_URL", sim.base_url().to_owned()),
            ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
            ("HARVEST_ACCESS_TOKEN", sim.token()),
            ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            ("ROSTERD_CONFIG", file("rosterd.toml", &section)),
        ];
        let daemon = Daemon::start(&environment, &server.directory().join("log"));
        let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
        until(&pool, "SELECT count(first_full_at) = 1 FROM roster.accounts").await;
        until(&pool, "SELECT acked_seq = seq FROM roster.consumers, roster.outbox_head").await;
        let (memory, cpu, began) = (daemon.memory("VmRSS:"), daemon.cpu(), Instant::now());
        insert(&pool, events).await;
        wait_for(&received, events).await;
        let took = began.elapsed().as_secs_f64();
        let number = f64::from(u32::try_from(events).unwrap());
        println!(
            "receiver of {pause} ms, {in_flight} in flight: {:.0} events/s, {:.2} ms of CPU each, {:.1} MiB more memory",
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
            times.sort_unstable();
            let [median, most] = [(1, 2), (99, 100)].map(|share| quantile(&times, share).as_millis());
            println!("from the commit to the receipt: median {median} ms, 99 % within {most} ms");
        }
        daemon.stop();
        pool.close().await;
    }
    server.stop().await;
}
