//! What the database holds, compared with Harvest's truth by another way than the daemon's.

use std::collections::BTreeMap;

use chrono::DateTime;
use harvest_sim::Sim;
use rosterd::store::Store;
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
        let statement = format!("SELECT id, to_jsonb(t) FROM roster.{table} AS t WHERE account_id = $1");
        let rows: Vec<(i64, Value)> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(self.sim.account_id())
            .fetch_all(self.store.pool())
            .await
            .unwrap();
        rows.into_iter().collect()
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
            if event.payload["account_id"] != self.sim.account_id() {
                continue;
            }
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
