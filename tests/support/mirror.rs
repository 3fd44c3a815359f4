//! Compares the database with the simulated Harvest, independently of the daemon's code.

use std::collections::BTreeMap;

use chrono::DateTime;
use harvest_sim::Sim;
use rosterd::store::Store;
use rosterd::store::session::Session;
use serde_json::Value;
use uuid::Uuid;

/// An event as a consumer reads it.
#[derive(Clone, Debug)]
pub struct Event {
    pub seq: i64,
    pub id: Uuid,
    pub r#type: String,
    pub aggregateid: String,
    pub version: i64,
    pub payload: Value,
}

impl Event {
    /// The names of the fields that changed.
    pub fn changed(&self) -> Vec<&str> {
        self.payload["changed"].as_object().unwrap().keys().map(String::as_str).collect()
    }
}

/// A mirror and its source. The tests read the mirror, and any process may write it.
pub struct Mirror {
    pub sim: Sim,
    pub store: Store,
}

/// Each test of a mirror ends with this check.
impl Drop for Mirror {
    fn drop(&mut self) {
        expect_only_reads(&self.sim);
    }
}

/// Checks that rosterd sent Harvest only GET requests, except those that the test took with `Sim::take_writes`. A test
/// that already fails keeps its own message.
pub fn expect_only_reads(sim: &Sim) {
    if !std::thread::panicking() {
        sim.expect_no_writes();
    }
}

impl Mirror {
    /// The events after this `seq`.
    pub async fn events_since(&self, seq: i64) -> Vec<Event> {
        let mut snapshot = self.store.pool().snapshot().await.unwrap();
        events_since(&mut snapshot, seq).await
    }

    /// The rows of a table as JSON by id. Keys are the names of the columns.
    pub async fn rows(&self, table: &str) -> BTreeMap<i64, Value> {
        let mut snapshot = self.store.pool().snapshot().await.unwrap();
        rows(&mut snapshot, self.sim.account_id(), table).await
    }

    /// The position and transaction of each row version in the tables that hold data. Any write changes the result.
    /// `xmax` is not part of it, because since PostgreSQL 16 a vacuum may clear an old one.
    pub async fn physical(&self) -> Vec<String> {
        let mut row_versions = Vec::new();
        for table in
            ["users", "user_assignments", "projects", "outbox", "outbox_head", "cycles", "rejected_records"]
        {
            let statement = format!("SELECT '{table}' || ctid::text || xmin::text FROM roster.{table}");
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
                .fetch_all(self.store.pool())
                .await
                .unwrap();
            row_versions.extend(rows);
        }
        row_versions.sort();
        row_versions
    }

    /// Each field of each record equals Harvest's, and the mirror has no other live row.
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

    /// A replay of the whole outbox yields the mirror, `seq` has no gap, and versions are 1, 2, 3 ….
    pub async fn expect_outbox_replays_to_the_mirror(&self) {
        self.expect_replay(&mut Replay::default()).await;
    }

    /// Continues a replay with the new events and returns them. All queries use one snapshot, so that other processes
    /// can write meanwhile.
    pub async fn expect_replay(&self, replay: &mut Replay) -> Vec<Event> {
        let mut snapshot = self.store.pool().snapshot().await.unwrap();
        let news = events_since(&mut snapshot, replay.seq).await;
        let account = self.sim.account_id();
        for event in &news {
            replay.apply(event, account);
        }
        let mut mirrored = 0;
        let tables = [
            ("users", "user"),
            ("user_assignments", "user_assignment"),
            ("billable_rates", "billable_rate"),
            ("cost_rates", "cost_rate"),
        ];
        for (table, aggregate) in tables {
            for (id, row) in rows(&mut snapshot, account, table).await {
                let (version, state, deleted) = &replay.rows[&(aggregate.to_owned(), id)];
                assert_eq!(row["version"], Value::from(*version));
                assert_eq!(row["deleted_at"].is_null(), !deleted, "{aggregate} {id}");
                for (field, value) in state.as_object().unwrap() {
                    expect_same(field, value, &row[field]);
                }
                mirrored += 1;
            }
        }
        // The events of an erased account have only numbers and no state.
        let replayed = replay.rows.values().filter(|(_, state, _)| !state.is_null()).count();
        assert_eq!(replayed, mirrored);
        let inconsistent: i64 =
            sqlx::query_scalar(COUNT_INCONSISTENT_HISTORY).fetch_one(&mut *snapshot).await.unwrap();
        assert_eq!(inconsistent, 0, "the history tables should match the events");
        news
    }
}

/// The state that a consumer derives from the events, beginning with the first.
#[derive(Default)]
pub struct Replay {
    seq: i64,
    /// Whether `rosterd forget` has emptied events. An event of which all values were erased has no change.
    has_emptied_events: bool,
    /// By aggregate type and id: version, last state, whether the record is deleted.
    rows: BTreeMap<(String, i64), (i64, Value, bool)>,
}

impl Replay {
    /// For an outbox of which `rosterd forget` has emptied events.
    pub fn of_emptied_events() -> Self {
        Self { has_emptied_events: true, ..Self::default() }
    }

    fn apply(&mut self, event: &Event, account: i64) {
        self.seq += 1;
        assert_eq!(event.seq, self.seq, "seq should have no gap");
        assert_eq!(event.id, documented_id(event), "the id should be the documented hash");
        if event.payload["account_id"] != account {
            return;
        }
        let aggregate = event.r#type.split('.').next().unwrap().to_owned();
        let key = (aggregate, event.payload["id"].as_i64().unwrap());
        let before = self.rows.get(&key).cloned().unwrap_or((0, Value::Null, true));
        assert_eq!(event.version, before.0 + 1, "versions should be 1, 2, 3 …");
        let live = if before.2 { Value::Null } else { before.1 };
        assert_eq!(event.payload["before"], live, "`before` should be the last live state");
        if !self.has_emptied_events || !event.changed().is_empty() {
            assert_ne!(event.payload["after"], live, "an event should have a change");
        }
        let deleted = event.payload["after"].is_null();
        assert!(deleted == event.r#type.ends_with(".deleted") || self.has_emptied_events, "{}", event.r#type);
        let mut state = event.payload[if deleted { "before" } else { "after" }].clone();
        if deleted && state.get("is_active").is_some() {
            state["is_active"] = false.into();
        }
        self.rows.insert(key, (event.version, state, deleted));
    }
}

/// Counts versions without their event, events without their version, gaps between versions, and rows whose last
/// version is another one. Events of an erased account have no versions in the history, and new versions continue
/// their numbers.
const COUNT_INCONSISTENT_HISTORY: &str = "
    WITH past AS (SELECT 'user' AS kind, account_id, id, version, type, valid_from, valid_to FROM directory.user_history
                   UNION ALL
                  SELECT 'user_assignment', account_id, id, version, type, valid_from, valid_to
                    FROM directory.assignment_history),
         present AS (SELECT 'user' AS kind, account_id, id, version FROM roster.users
                      UNION ALL
                     SELECT 'user_assignment', account_id, id, version FROM roster.user_assignments),
         kept AS (SELECT * FROM roster.outbox
                   WHERE payload -> 'before' <> 'null' OR payload -> 'after' <> 'null'),
         chain AS (SELECT version <> coalesce(lag(version) OVER run, (
                              SELECT count(*) FROM roster.outbox AS event
                               WHERE event.account_id = past.account_id AND event.aggregatetype = past.kind
                                 AND event.record_id = past.id
                                 AND payload -> 'before' = 'null' AND payload -> 'after' = 'null')) + 1
                          OR valid_to IS DISTINCT FROM lead(valid_from) OVER run AS is_broken
                     FROM past WINDOW run AS (PARTITION BY kind, account_id, id ORDER BY version))
    SELECT (SELECT count(*) FROM chain WHERE is_broken)
         + (SELECT count(*) FROM present FULL JOIN (SELECT * FROM past WHERE valid_to IS NULL) AS last
                                             USING (kind, account_id, id, version)
             WHERE present.version IS NULL OR last.version IS NULL)
         + (SELECT count(*) FROM kept AS event
              LEFT JOIN past ON (past.kind, past.account_id, past.id, past.version)
                              = (event.aggregatetype, event.account_id, event.record_id, event.version)
             WHERE event.aggregatetype IN ('user', 'user_assignment')
               AND (past.type, past.valid_from) IS DISTINCT FROM (event.type, event.recorded_at))";

async fn events_since(snapshot: &mut Session, seq: i64) -> Vec<Event> {
    let rows: Vec<(i64, Uuid, String, String, i64, Value)> = sqlx::query_as(
        "SELECT seq, id, type, aggregateid, version, payload FROM roster.outbox WHERE seq > $1 ORDER BY seq",
    )
    .bind(seq)
    .fetch_all(snapshot)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(seq, id, r#type, aggregateid, version, payload)| Event {
            seq,
            id,
            r#type,
            aggregateid,
            version,
            payload,
        })
        .collect()
}

async fn rows(snapshot: &mut Session, account: i64, table: &str) -> BTreeMap<i64, Value> {
    let statement = format!("SELECT id, to_jsonb(t) FROM roster.{table} AS t WHERE account_id = $1");
    let rows: Vec<(i64, Value)> =
        sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(account).fetch_all(snapshot).await.unwrap();
    rows.into_iter().collect()
}

/// `UUIDv5` of `STREAM_ID/AGGREGATETYPE/ACCOUNT/ID/VERSION`.
fn documented_id(event: &Event) -> Uuid {
    let namespace: Uuid = "6f1d4a0e-52c7-5b7e-9c1a-2d840c6b90e3".parse().unwrap();
    let aggregate = event.r#type.split('.').next().unwrap();
    let stream = event.payload["stream_id"].as_str().unwrap();
    Uuid::new_v5(
        &namespace,
        format!("{stream}/{aggregate}/{}/{}", event.aggregateid, event.version).as_bytes(),
    )
}

/// Compares each key that Harvest sends with its column, or with `raw` if the mirror has no column for it.
#[track_caller]
fn expect_equal(source: &Value, row: &Value, except: &[&str]) {
    for (key, value) in source.as_object().unwrap() {
        if except.contains(&key.as_str()) {
            continue;
        }
        match row.get(key) {
            Some(column) => expect_same(key, value, column),
            None => assert_eq!(&row["raw"][key], value, "{key} should be in raw"),
        }
    }
}

/// Compares amounts as decimals, times as instants, and lists as sets. Other values must be identical.
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
