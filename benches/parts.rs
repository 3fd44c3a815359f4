//! Decoding, comparing and storing separately, in rows per second. The lower bounds are parsing the same bytes into
//! `serde_json::Value`, and a raw `COPY` of the same rows into the same tables.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta};
use harvest_sim::{Company, Options, Sim};
use rosterd::harvest::envelope::Envelope;
use rosterd::harvest::wire;
use rosterd::roster::{AccountId, Assignment, DeletionGuard, Fetched, MirrorRow, Order, plan};
use rosterd::store::lease::Lease;
use rosterd::store::{ConnectOptions, Store};
use rosterd::sync::mirror::{Mirror, PageRead, PostgresMirror};
use rosterd::sync::report::{CycleMode, CycleReport};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::measured::real;
use crate::postgres::{Server, copy_again};

const ROWS: usize = 50_000;
const ACCOUNT: AccountId = AccountId(1);

pub async fn measure() {
    let pages = pages().await;
    println!("| {ROWS} assignments | rows/s | bound | rows/s | ratio |");
    println!("|---|---|---|---|---|");
    let (parse, _) =
        timed(|| pages.iter().map(|page| serde_json::from_slice::<serde_json::Value>(page).unwrap()));
    let (decode, read) = timed(|| pages.iter().map(|page| decoded(page)));
    row("decode", decode, "parse into `Value`", parse);

    let mut known = HashMap::new();
    for Fetched { record, hash, .. } in read.iter().flatten() {
        known.insert(
            record.id,
            MirrorRow { record: Assignment::clone(record), version: 1, hash: *hash, deleted: false },
        );
    }
    let (compare, _) = timed(|| read.iter().map(|page| plan(&known, page)));
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
    let guard = DeletionGuard { fraction: 0.1, at_least: 5 };
    let writer = PostgresMirror {
        store: &store,
        fence,
        order: &Order::default(),
        again_after: TimeDelta::zero(),
        guard,
        compare_all_fields: false,
        write: None,
    };
    let again: Vec<_> = pages.iter().map(|page| decoded(page)).collect();
    let first = taken(&writer, read).await;
    let nothing = taken(&writer, again).await;
    let tables = ["user_assignments", "outbox"].map(str::to_owned);
    let copy = copy_again(&PgPool::connect(&url).await.unwrap(), &tables).await;
    row("store rows, versions and events", first, "`COPY` of the same", copy);
    row("find by hash that nothing differs", nothing, "", nothing);
    server.stop().await;
}

/// The pages of a list as Harvest sends them.
async fn pages() -> Vec<Vec<u8>> {
    let sim = Sim::start(Company::seeded(1, ROWS / 10, ROWS), Options::default()).await.unwrap();
    let json = sim.assignments_json();
    json.chunks(2000)
        .map(|page| serde_json::to_vec(&serde_json::json!({ "user_assignments": page })).unwrap())
        .collect()
}

fn decoded(page: &[u8]) -> Vec<Fetched<Assignment>> {
    let envelope = Envelope::parse(page, "user_assignments").unwrap();
    let request = "GET /v2/user_assignments".into();
    envelope.records.iter().map(|raw| wire::read(raw, true, &request).ok().unwrap()).collect()
}

/// Measures how long it takes to collect all items.
fn timed<T, I: Iterator<Item = T>>(work: impl FnOnce() -> I) -> (Duration, Vec<T>) {
    let began = Instant::now();
    let all: Vec<T> = black_box(work().collect());
    (began.elapsed(), all)
}

async fn taken(writer: &PostgresMirror<'_>, pages: Vec<Vec<Fetched<Assignment>>>) -> Duration {
    let mut report = CycleReport::new(ACCOUNT, CycleMode::Full, DateTime::UNIX_EPOCH);
    let began = Instant::now();
    for records in pages {
        writer.apply(PageRead { records, unreadable: Vec::new() }, None, &mut report).await.unwrap();
    }
    began.elapsed()
}

fn row(what: &str, took: Duration, bound_name: &str, bound: Duration) {
    let rate = |took: Duration| real(ROWS) / took.as_secs_f64();
    let (own, other) = (rate(took), rate(bound));
    if bound_name.is_empty() {
        println!("| {what} | {own:.0} | | | |");
    } else {
        println!("| {what} | {own:.0} | {bound_name} | {other:.0} | {:.2} |", own / other);
    }
}
