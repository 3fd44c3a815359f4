//! A small world to tell stories in: a simulated Harvest, a real PostgreSQL, and rosterd's own cycle between them.
//!
//! Verbs act on Harvest (`world.sim.hire(…)`) or turn the crank (`world.cycle()`); expectations look at the database
//! only, and read Harvest's truth by another way than the daemon does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use harvest_sim::{Company, Options, Sim};
use rosterd::clock::{Clock, SystemClock};
use rosterd::harvest::pace::{Limits, Pace};
use rosterd::harvest::{Auth, Client, Token, transport};
use rosterd::roster::{AccountId, Guard};
use rosterd::store::lease::Lease;
use rosterd::store::{Fence, Store};
use rosterd::sync::apply::Writer;
use rosterd::sync::cycle::{Cycle, Memory, Rules};
use rosterd::sync::report::Report;
use rosterd::sync::schedule::{self, Mode};
use secrecy::SecretString;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{TestDatabase, store};

/// This machine's clock, as wrong as the story wants it.
#[derive(Default)]
pub struct WrongClock(AtomicI64);

impl WrongClock {
    pub fn shift(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::milliseconds(self.0.load(Ordering::Relaxed))
    }
}

/// An event as a consumer reads it.
#[derive(Clone, Debug)]
pub struct Told {
    pub seq: i64,
    pub id: Uuid,
    pub r#type: String,
    pub aggregateid: String,
    pub version: i64,
    pub payload: Value,
}

impl Told {
    /// The names of the fields that changed.
    pub fn changed(&self) -> Vec<&str> {
        self.payload["changed"].as_object().unwrap().keys().map(String::as_str).collect()
    }
}

pub struct World {
    pub sim: Sim,
    pub store: Store,
    pub client: Client,
    pub clock: Arc<WrongClock>,
    pub fence: Fence,
    pub memory: Memory,
    pub rules: Rules,
    /// How long after its first 404 a young record's second one counts.
    pub again_after: TimeDelta,
    /// As a consumer keeps it: the last event it has read.
    cursor: i64,
    database: TestDatabase,
}

impl World {
    /// A small company, as Harvest is today.
    pub async fn new() -> Self {
        Self::of(Company::seeded(1, 12, 30), Options::default()).await
    }

    pub async fn of(company: Company, options: Options) -> Self {
        let sim = Sim::start(company, Options { limit: None, ..options }).await.unwrap();
        let database = TestDatabase::new().await;
        let store = store(database.url());
        let clock = Arc::new(WrongClock::default());
        let client = client(&sim, true, clock.clone());
        let fence = take_over(&store, &sim).await;
        let rules = Rules {
            skew_buffer: TimeDelta::seconds(60),
            full_interval: TimeDelta::hours(1),
            count_probe: true,
            guard: Guard { fraction: 0.10, at_least: 5 },
        };
        let (memory, again_after) = (Memory::default(), TimeDelta::minutes(1));
        Self { sim, store, client, clock, fence, memory, rules, again_after, cursor: 0, database }
    }

    /// For another process on the same database.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// Reads as much as is due.
    pub async fn try_cycle(&mut self) -> Report {
        let known = self.store.account_state(self.fence.account).await.unwrap();
        self.try_cycle_in(schedule::mode(self.clock.now(), &known)).await
    }

    pub async fn try_cycle_in(&mut self, mode: Mode) -> Report {
        self.turn(async |cycle| cycle.run(mode).await).await
    }

    /// Turns the crank by hand.
    pub async fn turn(&mut self, turn: impl AsyncFnOnce(Cycle<'_, Writer<'_>>) -> Report) -> Report {
        let (store, fence, again_after) = (&self.store, self.fence, self.again_after);
        let writer = Writer { store, fence, again_after, thorough: false };
        let cycle = Cycle {
            sink: &writer,
            client: &self.client,
            clock: &*self.clock,
            rules: self.rules,
            memory: &mut self.memory,
            progress: &|_, _, _| {},
            cancel: &CancellationToken::new(),
        };
        turn(cycle).await
    }

    /// A cycle that must be good.
    pub async fn cycle(&mut self) -> Report {
        let report = self.try_cycle().await;
        report.outcome.as_ref().unwrap();
        report
    }

    /// A full one that must be good.
    pub async fn full_cycle(&mut self) -> Report {
        let report = self.try_cycle_in(Mode::Full).await;
        report.outcome.as_ref().unwrap();
        report
    }

    /// The events since this was last asked.
    pub async fn news(&mut self) -> Vec<Told> {
        let news = self.events_since(self.cursor).await;
        self.cursor = news.last().map_or(self.cursor, |event| event.seq);
        news
    }

    /// The news as `type id` lines, in order.
    pub async fn headlines(&mut self) -> Vec<String> {
        self.news().await.iter().map(|event| format!("{} {}", event.r#type, event.payload["id"])).collect()
    }

    /// The one event that is news.
    pub async fn only_event(&mut self) -> Told {
        let mut news = self.news().await;
        assert_eq!(news.len(), 1, "{:?}", news.iter().map(|event| &event.r#type).collect::<Vec<_>>());
        news.remove(0)
    }

    async fn events_since(&self, seq: i64) -> Vec<Told> {
        let rows: Vec<(i64, Uuid, String, String, i64, Value)> = sqlx::query_as(
            "SELECT seq, id, type, aggregateid, version, payload FROM roster.outbox WHERE seq > $1 ORDER BY seq",
        )
        .bind(seq)
        .fetch_all(self.store.pool())
        .await
        .unwrap();
        rows.into_iter()
            .map(|(seq, id, r#type, aggregateid, version, payload)| Told {
                seq,
                id,
                r#type,
                aggregateid,
                version,
                payload,
            })
            .collect()
    }

    /// The rows of a table as JSON by id, with the columns' own names.
    pub async fn rows(&self, table: &str) -> BTreeMap<i64, Value> {
        let statement = format!("SELECT id, to_jsonb(t) FROM roster.{table} AS t");
        let rows: Vec<(i64, Value)> =
            sqlx::query_as(sqlx::AssertSqlSafe(statement)).fetch_all(self.store.pool()).await.unwrap();
        rows.into_iter().collect()
    }

    pub async fn user(&self, id: impl Into<i64>) -> Value {
        self.rows("users").await[&id.into()].clone()
    }

    pub async fn count(&self, table: &str) -> i64 {
        let statement = format!("SELECT count(*) FROM roster.{table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(self.store.pool()).await.unwrap()
    }

    /// Every row version of the tables that hold data, by its place and its transaction: whatever is written moves
    /// one of them.
    pub async fn physical(&self) -> Vec<String> {
        let mut places = Vec::new();
        for table in
            ["users", "user_assignments", "projects", "outbox", "outbox_head", "cycles", "rejected_records"]
        {
            let statement =
                format!("SELECT '{table}' || ctid::text || xmin::text || xmax::text FROM roster.{table}");
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
                .fetch_all(self.store.pool())
                .await
                .unwrap();
            places.extend(rows);
        }
        places.sort();
        places
    }

    pub async fn watermarks(&self) -> Vec<(String, Option<DateTime<Utc>>)> {
        sqlx::query_as("SELECT resource, watermark FROM roster.watermarks ORDER BY resource")
            .fetch_all(self.store.pool())
            .await
            .unwrap()
    }

    /// Time passes at Harvest and here.
    pub fn pass(&self, time: TimeDelta) {
        self.sim.shift_clock(time);
        self.clock.shift(time);
    }

    /// How Harvest was asked since this was last asked: the paths, without the version.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.sim.requests().into_iter().map(|request| request.path).collect();
        self.sim.clear_requests();
        asked
    }

    /// What is held, as `reason resource id`.
    pub async fn held(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT concat_ws(' ', reason, resource, record_id) FROM roster.held_deletions
              ORDER BY resource, record_id",
        )
        .fetch_all(self.store.pool())
        .await
        .unwrap()
    }

    /// Every field of every record equals Harvest's, and nothing else is alive.
    pub async fn expect_mirror_equals_source(&self) {
        let users = self.sim.users_json();
        let rows = self.rows("users").await;
        assert_eq!(users.len(), rows.values().filter(|row| row["deleted_at"].is_null()).count());
        for user in &users {
            expect_equal(user, &rows[&user["id"].as_i64().unwrap()], &[]);
        }
        let assignments = self.sim.assignments_json();
        let rows = self.rows("user_assignments").await;
        let projects = self.rows("projects").await;
        assert_eq!(assignments.len(), rows.values().filter(|row| row["deleted_at"].is_null()).count());
        for assignment in &assignments {
            let row = &rows[&assignment["id"].as_i64().unwrap()];
            expect_equal(assignment, row, &["user", "project"]);
            assert_eq!(row["user_id"], assignment["user"]["id"]);
            assert_eq!(row["project_id"], assignment["project"]["id"]);
            let project = &projects[&row["project_id"].as_i64().unwrap()];
            assert_eq!(project["name"], assignment["project"]["name"]);
            assert_eq!(project["code"], assignment["project"]["code"]);
        }
    }

    /// The outbox, replayed from empty, is the mirror; its numbers have no gap; versions run 1, 2, 3 ….
    pub async fn expect_outbox_replays_to_the_mirror(&self) {
        let mut replayed: BTreeMap<(String, i64), (i64, Value, bool)> = BTreeMap::new();
        for (at, event) in self.events_since(0).await.into_iter().enumerate() {
            assert_eq!(event.seq, i64::try_from(at).unwrap() + 1, "seq has no gap");
            assert_eq!(event.id, documented_id(&event), "ids can be computed by consumers");
            let aggregate = event.r#type.split('.').next().unwrap().to_owned();
            let key = (aggregate, event.payload["id"].as_i64().unwrap());
            let before = replayed.get(&key).cloned().unwrap_or((0, Value::Null, true));
            assert_eq!(event.version, before.0 + 1, "versions run 1, 2, 3 …");
            let live = if before.2 { Value::Null } else { before.1.clone() };
            assert_eq!(event.payload["before"], live, "before is what was left");
            assert_ne!(event.payload["after"], live, "an event without a change is none");
            let deleted = event.r#type.ends_with(".deleted");
            let mut image = event.payload[if deleted { "before" } else { "after" }].clone();
            if deleted && image.get("is_active").is_some() {
                image["is_active"] = false.into();
            }
            replayed.insert(key, (event.version, image, deleted));
        }
        let mut mirrored = 0;
        let tables = [
            ("users", "user"),
            ("user_assignments", "user_assignment"),
            ("billable_rates", "billable_rate"),
            ("cost_rates", "cost_rate"),
        ];
        for (table, aggregate) in tables {
            for (id, row) in self.rows(table).await {
                let (version, image, deleted) = &replayed[&(aggregate.to_owned(), id)];
                assert_eq!(row["version"], Value::from(*version));
                assert_eq!(row["deleted_at"].is_null(), !deleted, "{aggregate} {id}");
                for (field, value) in image.as_object().unwrap() {
                    expect_same(field, value, &row[field]);
                }
                mirrored += 1;
            }
        }
        assert_eq!(replayed.len(), mirrored);
    }
}

/// `UUIDv5` of `STREAM_ID/AGGREGATETYPE/ACCOUNT/ID/VERSION`.
fn documented_id(event: &Told) -> Uuid {
    let namespace: Uuid = "6f1d4a0e-52c7-5b7e-9c1a-2d840c6b90e3".parse().unwrap();
    let aggregate = event.r#type.split('.').next().unwrap();
    let stream = event.payload["stream_id"].as_str().unwrap();
    Uuid::new_v5(
        &namespace,
        format!("{stream}/{aggregate}/{}/{}", event.aggregateid, event.version).as_bytes(),
    )
}

/// A client whose pace lets everything through: the stories are not about the rate limit.
pub fn client(sim: &Sim, with_pay: bool, clock: Arc<dyn Clock>) -> Client {
    let limits = Limits {
        requests: 1_000_000,
        window: Duration::from_secs(1),
        reserve: 0,
        grace: Duration::from_secs(1),
    };
    let options = transport::Options {
        base: sim.base_url().parse().unwrap(),
        user_agent: "rosterd-tests (nobody@example.com)".to_owned(),
        timeout: Duration::from_secs(5),
    };
    let token = Token::new(&SecretString::from(sim.token())).unwrap();
    let (account, auth) = (AccountId(sim.account_id()), Auth::Personal(token));
    Client::new(&options, account, auth, 2000, with_pay, Pace::local(limits), clock).unwrap()
}

/// Another process takes the account, as if the holder were dead: in the stories nobody's heartbeat is registered.
pub async fn take_over(store: &Store, sim: &Sim) -> Fence {
    match store.acquire(AccountId(sim.account_id()), Uuid::new_v4()).await.unwrap() {
        Lease::Acquired(fence) => fence,
        Lease::Held { by } => panic!("held by {by}"),
    }
}

/// Every key that Harvest sends and the mirror has a column for.
#[track_caller]
fn expect_equal(source: &Value, row: &Value, except: &[&str]) {
    for (key, value) in source.as_object().unwrap() {
        if except.contains(&key.as_str()) {
            continue;
        }
        match row.get(key) {
            Some(column) => expect_same(key, value, column),
            None => assert_eq!(&row["raw"][key], value, "{key} is kept in raw"),
        }
    }
}

/// Money by its digits, times as instants, sets without order; the rest to the letter.
#[track_caller]
fn expect_same(key: &str, source: &Value, row: &Value) {
    let decimal =
        |value: &Value| value.as_number().map(|number| number.to_string().parse::<rust_decimal::Decimal>());
    let time = |value: &Value| value.as_str().map(DateTime::parse_from_rfc3339);
    let set = |value: &Value| {
        let mut items: Vec<String> = value.as_array().unwrap().iter().map(ToString::to_string).collect();
        items.sort();
        items
    };
    match (source, row) {
        (Value::Number(_), Value::Number(_)) => assert_eq!(decimal(source), decimal(row), "{key}"),
        (Value::String(_), Value::String(_)) if key.ends_with("_at") => {
            assert_eq!(time(source), time(row), "{key}");
        }
        (Value::Array(_), Value::Array(_)) => assert_eq!(set(source), set(row), "{key}"),
        _ => assert_eq!(source, row, "{key}"),
    }
}
