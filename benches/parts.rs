//! Decoding, comparing and storing by themselves, in rows a second, each beside its bound: the same bytes parsed into
//! `serde_json::Value`, and a raw `COPY` of the same rows into the same tables.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta};
use futures::TryStreamExt;
use harvest_sim::{Company, Options, Sim};
use rosterd::harvest::pages::Envelope;
use rosterd::harvest::wire::{self, Read};
use rosterd::roster::{AccountId, Assignment, Fetched, Guard, Mirrored, Order, Reading, plan};
use rosterd::store::lease::Lease;
use rosterd::store::{ConnectOptions, Store};
use rosterd::sync::apply::Writer;
use rosterd::sync::report::Report;
use rosterd::sync::schedule::Mode;
use rosterd::sync::sink::{Batch, Sink};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolCopyExt};
use uuid::Uuid;

use crate::measured::{Server, real};

const ROWS: usize = 50_000;
const ACCOUNT: AccountId = AccountId(1);

pub async fn measure() {
    let pages = pages().await;
    println!("| {ROWS} assignments | rows/s | beside | rows/s | ratio |");
    println!("|---|---|---|---|---|");
    let (parse, _) =
        timed(|| pages.iter().map(|page| serde_json::from_slice::<serde_json::Value>(page).unwrap()));
    let (decode, read) = timed(|| pages.iter().map(|page| decoded(page)));
    row("decode", decode, "parse into `Value`", parse);

    let mut known = HashMap::new();
    for Read { fetched, .. } in read.iter().flatten() {
        let Fetched { record, hash, .. } = fetched;
        known.insert(record.id, Mirrored { record: record.clone(), version: 1, hash: *hash, deleted: false });
    }
    let fetched: Vec<Vec<Fetched<Assignment>>> =
        read.iter().map(|page| page.iter().map(|read| read.fetched.clone()).collect()).collect();
    let (compare, _) = timed(|| fetched.into_iter().map(|page| plan(&known, page, Reading::Full)));
    row("compare, nothing differs", compare, "", compare);

    let server = Server::start().await;
    let url = server.database("parts").await;
    let store = Store::new(
        &url.as_str().into(),
        &ConnectOptions {
            max_connections: 2,
            prepared_statements: true,
            statement_timeout: Duration::from_secs(30),
        },
    )
    .unwrap();
    store.migrate().await.unwrap();
    let lease = store.acquire(ACCOUNT, Uuid::new_v4()).await.unwrap();
    let fence =
        Some(lease).and_then(|it| if let Lease::Acquired(fence) = it { Some(fence) } else { None }).unwrap();
    let guard = Guard { fraction: 0.1, at_least: 5 };
    let writer = Writer {
        store: &store,
        fence,
        order: &Order::default(),
        again_after: TimeDelta::zero(),
        guard,
        thorough: false,
    };
    let again: Vec<_> = pages.iter().map(|page| decoded(page)).collect();
    let first = taken(&writer, read).await;
    let nothing = taken(&writer, again).await;
    let copy = copied(&PgPool::connect(&url).await.unwrap()).await;
    row("store rows, versions and events", first, "`COPY` of the same", copy);
    row("find by hash that nothing differs", nothing, "", nothing);
    server.stop().await;
}

/// A list as Harvest sends it.
async fn pages() -> Vec<Vec<u8>> {
    let sim = Sim::start(Company::seeded(1, ROWS / 10, ROWS), Options::default()).await.unwrap();
    let json = sim.assignments_json();
    json.chunks(2000)
        .map(|page| serde_json::to_vec(&serde_json::json!({ "user_assignments": page })).unwrap())
        .collect()
}

fn decoded(page: &[u8]) -> Vec<Read<Assignment>> {
    let envelope = Envelope::parse(page, "user_assignments").unwrap();
    let request = "GET /v2/user_assignments".into();
    let records = envelope.records().unwrap().into_iter();
    records.map(|raw| wire::read(raw, true, &request).ok().unwrap()).collect()
}

/// How long it takes to have all of them.
fn timed<T, I: Iterator<Item = T>>(work: impl FnOnce() -> I) -> (Duration, Vec<T>) {
    let began = Instant::now();
    let all: Vec<T> = black_box(work().collect());
    (began.elapsed(), all)
}

async fn taken(writer: &Writer<'_>, pages: Vec<Vec<Read<Assignment>>>) -> Duration {
    let mut report = Report::new(ACCOUNT, Mode::Full, DateTime::UNIX_EPOCH);
    let began = Instant::now();
    for images in pages {
        writer.take(vec![Batch { images, ..Batch::default() }], None, &mut report).await.unwrap();
    }
    began.elapsed()
}

/// All that was stored, into tables of the same shape.
async fn copied(pool: &PgPool) -> Duration {
    let mut took = Duration::ZERO;
    for table in ["user_assignments", "user_assignment_history", "outbox"] {
        let statement = format!("CREATE TABLE roster.{table}_again (LIKE roster.{table} INCLUDING ALL)");
        sqlx::query(AssertSqlSafe(statement)).execute(pool).await.unwrap();
        let from = format!("COPY roster.{table} TO STDOUT (FORMAT binary)");
        let rows = pool.copy_out_raw(&from).await.unwrap();
        let rows: Vec<_> = rows.try_collect().await.unwrap();
        let began = Instant::now();
        let into = format!("COPY roster.{table}_again FROM STDIN (FORMAT binary)");
        let mut copy = pool.copy_in_raw(&into).await.unwrap();
        for chunk in rows.chunks(1000) {
            copy.send(chunk.concat()).await.unwrap();
        }
        copy.finish().await.unwrap();
        took += began.elapsed();
    }
    took
}

fn row(what: &str, took: Duration, beside: &str, bound: Duration) {
    let rate = |took: Duration| real(ROWS) / took.as_secs_f64();
    let (own, other) = (rate(took), rate(bound));
    if beside.is_empty() {
        println!("| {what} | {own:.0} | | | |");
    } else {
        println!("| {what} | {own:.0} | {beside} | {other:.0} | {:.2} |", own / other);
    }
}
