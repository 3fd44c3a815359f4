//! What the database holds, compared with Harvest's truth by another way than the daemon's.

use std::collections::BTreeMap;

use chrono::DateTime;
use harvest_sim::Sim;
use rosterd::store::{Session, Store};
use serde_json::Value;
use uuid::Uuid;

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

/// A mirror and what it is a mirror of, whoever writes it.
pub struct Mirror {
    pub sim: Sim,
    pub store: Store,
}

impl Mirror {
    /// The events after this one.
    pub async fn events_since(&self, seq: i64) -> Vec<Told> {
        let mut snapshot = self.store.pool().snapshot().await.unwrap();
        events_since(&mut snapshot, seq).await
    }

    /// The rows of a table as JSON by id, with the columns' own names.
    pub async fn rows(&self, table: &str) -> BTreeMap<i64, Value> {
        let mut snapshot = self.store.pool().snapshot().await.unwrap();
        rows(&mut snapshot, self.sim.account_id(), table).await
    }

    /// Every row version of the tables that hold data, by its place and its transaction: whatever is written is another
    /// one. `xmax` is left out, for from PostgreSQL 16 on a vacuum may forget one of the past.
    pub async fn physical(&self) -> Vec<String> {
        let mut places = Vec::new();
        for table in
            ["users", "user_assignments", "projects", "outbox", "outbox_head", "cycles", "rejected_records"]
        {
            let statement = format!("SELECT '{table}' || ctid::text || xmin::text FROM roster.{table}");
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
                .fetch_all(self.store.pool())
                .await
                .unwrap();
            places.extend(rows);
        }
        places.sort();
        places
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
        self.expect_replay(&mut Replay::default()).await;
    }

    /// The same of a replay that has come as far as it has; tells the events that it had not seen. All of it is of one
    /// moment, whoever writes meanwhile.
    pub async fn expect_replay(&self, replay: &mut Replay) -> Vec<Told> {
        let mut snapshot = self.store.pool().snapshot().await.unwrap();
        let news = events_since(&mut snapshot, replay.seq).await;
        let account = self.sim.account_id();
        for event in &news {
            replay.follow(event, account);
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
                let (version, image, deleted) = &replay.rows[&(aggregate.to_owned(), id)];
                assert_eq!(row["version"], Value::from(*version));
                assert_eq!(row["deleted_at"].is_null(), !deleted, "{aggregate} {id}");
                for (field, value) in image.as_object().unwrap() {
                    expect_same(field, value, &row[field]);
                }
                mirrored += 1;
            }
        }
        // Of a record whose account was erased there are only numbers.
        let replayed = replay.rows.values().filter(|(_, image, _)| !image.is_null()).count();
        assert_eq!(replayed, mirrored);
        let wrong: i64 = sqlx::query_scalar(WRONG_PAST).fetch_one(&mut *snapshot).await.unwrap();
        assert_eq!(wrong, 0, "the past is what the events have told");
        news
    }
}

/// What a consumer makes of the events, from the first on.
#[derive(Default)]
pub struct Replay {
    seq: i64,
    /// `rosterd forget` has emptied events: one that told of nothing else has no change.
    has_emptied: bool,
    rows: BTreeMap<(String, i64), (i64, Value, bool)>,
}

impl Replay {
    /// For an outbox of which `rosterd forget` has emptied events.
    pub fn of_emptied_events() -> Self {
        Self { has_emptied: true, ..Self::default() }
    }

    fn follow(&mut self, event: &Told, account: i64) {
        self.seq += 1;
        assert_eq!(event.seq, self.seq, "seq has no gap");
        assert_eq!(event.id, documented_id(event), "ids can be computed by consumers");
        if event.payload["account_id"] != account {
            return;
        }
        let aggregate = event.r#type.split('.').next().unwrap().to_owned();
        let key = (aggregate, event.payload["id"].as_i64().unwrap());
        let before = self.rows.get(&key).cloned().unwrap_or((0, Value::Null, true));
        assert_eq!(event.version, before.0 + 1, "versions run 1, 2, 3 …");
        let live = if before.2 { Value::Null } else { before.1 };
        assert_eq!(event.payload["before"], live, "before is what was left");
        if !self.has_emptied || !event.changed().is_empty() {
            assert_ne!(event.payload["after"], live, "an event without a change is none");
        }
        let deleted = event.payload["after"].is_null();
        assert!(deleted == event.r#type.ends_with(".deleted") || self.has_emptied, "{}", event.r#type);
        let mut image = event.payload[if deleted { "before" } else { "after" }].clone();
        if deleted && image.get("is_active").is_some() {
            image["is_active"] = false.into();
        }
        self.rows.insert(key, (event.version, image, deleted));
    }
}

/// Versions without their event, events without their version, versions that do not follow each other, and rows whose
/// last version is another one. Events of an account that was erased have no versions, and its versions go on after them.
const WRONG_PAST: &str = "
    WITH past AS (SELECT 'user' AS kind, account_id, id, version, type, valid_from, valid_to FROM roster.user_history
                   UNION ALL
                  SELECT 'user_assignment', account_id, id, version, type, valid_from, valid_to
                    FROM roster.user_assignment_history),
         present AS (SELECT 'user' AS kind, account_id, id, version FROM roster.users
                      UNION ALL
                     SELECT 'user_assignment', account_id, id, version FROM roster.user_assignments),
         told AS (SELECT * FROM roster.outbox
                   WHERE payload -> 'before' <> 'null' OR payload -> 'after' <> 'null'),
         chain AS (SELECT version <> coalesce(lag(version) OVER run, (
                              SELECT count(*) FROM roster.outbox AS event
                               WHERE event.account_id = past.account_id AND event.aggregatetype = past.kind
                                 AND event.aggregateid = past.account_id || '/' || past.id
                                 AND payload -> 'before' = 'null' AND payload -> 'after' = 'null')) + 1
                          OR valid_to IS DISTINCT FROM lead(valid_from) OVER run AS is_broken
                     FROM past WINDOW run AS (PARTITION BY kind, account_id, id ORDER BY version))
    SELECT (SELECT count(*) FROM chain WHERE is_broken)
         + (SELECT count(*) FROM present FULL JOIN (SELECT * FROM past WHERE valid_to IS NULL) AS last
                                             USING (kind, account_id, id, version)
             WHERE present.version IS NULL OR last.version IS NULL)
         + (SELECT count(*) FROM told AS event
              LEFT JOIN past ON (past.kind, past.account_id, past.account_id || '/' || past.id, past.version)
                              = (event.aggregatetype, event.account_id, event.aggregateid, event.version)
             WHERE event.aggregatetype IN ('user', 'user_assignment')
               AND (past.type, past.valid_from) IS DISTINCT FROM (event.type, event.recorded_at))";

async fn events_since(snapshot: &mut Session, seq: i64) -> Vec<Told> {
    let rows: Vec<(i64, Uuid, String, String, i64, Value)> = sqlx::query_as(
        "SELECT seq, id, type, aggregateid, version, payload FROM roster.outbox WHERE seq > $1 ORDER BY seq",
    )
    .bind(seq)
    .fetch_all(snapshot)
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

async fn rows(snapshot: &mut Session, account: i64, table: &str) -> BTreeMap<i64, Value> {
    let statement = format!("SELECT id, to_jsonb(t) FROM roster.{table} AS t WHERE account_id = $1");
    let rows: Vec<(i64, Value)> =
        sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(account).fetch_all(snapshot).await.unwrap();
    rows.into_iter().collect()
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
