//! `docs/schemas/messages.json` describes every message and every payload that the program emits.

use std::collections::BTreeSet;

use harvest_sim::{Company, UserId};
use serde_json::{Value, json};

use super::Hooks;
use crate::receiver::Receiver;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/schemas/messages.json")).unwrap()
}

/// Consumers accept fields that they do not know; here each field must be described.
fn forbid_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("type") == Some(&json!("object")) {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            object.values_mut().for_each(forbid_unknown_fields);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_unknown_fields),
        _ => {}
    }
}

/// Checks the value against the definition of this name.
#[track_caller]
pub fn expect_described(definition: &str, value: &Value) {
    let mut schema = schema();
    forbid_unknown_fields(&mut schema);
    let object = schema.as_object_mut().unwrap();
    object.remove("oneOf");
    object.insert("$ref".to_owned(), format!("#/$defs/{definition}").into());
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{definition}: {errors:#?}\n{value:#}");
}

/// The types that have a definition of their message.
fn described_types() -> BTreeSet<String> {
    let schema = schema();
    let names = schema["$defs"].as_object().unwrap().keys();
    names.filter_map(|name| name.strip_prefix("message.")).map(str::to_owned).collect()
}

fn event_types() -> BTreeSet<String> {
    rosterd::roster::event::types().into_iter().collect()
}

impl Hooks {
    async fn until_type(&self, r#type: &str) {
        self.scene.until(format!("SELECT count(*) > 0 FROM roster.outbox WHERE type = '{type}'")).await;
    }

    /// Changes at Harvest that emit each type of event.
    async fn emit_all_types(&self) {
        let (sim, owner) = (&self.scene.sim, self.scene.sim.token_owner());
        let active: Vec<_> = sim.users_json().into_iter().filter(|user| user["is_active"] == true).collect();
        let user_of = |assignment: &Value| UserId(assignment["user"]["id"].as_i64().unwrap());
        let mut assignments = sim.assignments_json();
        assignments.retain(|assignment| {
            let user = user_of(assignment);
            assignment["is_active"] == true && user != owner && active.iter().any(|it| it["id"] == user.0)
        });
        let leaver = user_of(&assignments[0]);
        let of_stayer = assignments.iter().find(|assignment| user_of(assignment) != leaver).unwrap();
        let stayer = user_of(of_stayer);
        let rates = "SELECT count(*) >= 2 * (SELECT count(*) FROM roster.users)
                       FROM roster.outbox WHERE type LIKE '%_rate.created'";
        self.scene.until(rates).await;
        // The rate before it gets an end.
        sim.add_billable_rate(leaver, 130.0, Some("2026-01-01"));
        sim.add_cost_rate(leaver, 70.0, Some("2026-01-01"));
        sim.edit_user(leaver, |user| user.weekly_capacity += 60);
        for r#type in ["user.updated", "billable_rate.updated", "cost_rate.updated"] {
            self.until_type(r#type).await;
        }
        sim.archive_user(stayer);
        self.until_type("user.deactivated").await;
        self.until_type("user_assignment.deactivated").await;
        sim.restore_user(stayer);
        let of_stayer = harvest_sim::AssignmentId(of_stayer["id"].as_i64().unwrap());
        sim.edit_assignment(of_stayer, |assignment| assignment.is_active = true);
        self.until_type("user.reactivated").await;
        self.until_type("user_assignment.reactivated").await;
        sim.edit_assignment(of_stayer, |assignment| assignment.is_project_manager ^= true);
        self.until_type("user_assignment.updated").await;
        sim.delete_user(leaver);
        for r#type in
            ["user.deleted", "user_assignment.deleted", "billable_rate.deleted", "cost_rate.deleted"]
        {
            self.until_type(r#type).await;
        }
    }
}

#[tokio::test]
async fn every_message_and_payload_of_a_run_is_described() {
    let mut hooks = Hooks::of(Company::seeded(5, 8, 16)).await;
    let receivers = [
        ("full", "include_pay = true\nnotices = true", Receiver::start("full").await),
        ("plain", "", Receiver::start("plain").await),
        ("ids", "content = \"ids\"", Receiver::start("ids").await),
    ];
    for (name, lines, receiver) in &receivers {
        hooks.endpoint(name, &receiver.url(), &format!("types = [\"*\"]\nstart = \"beginning\"\n{lines}"));
    }
    hooks.endpoint("other", "http://127.0.0.1:9/", "");
    for user in hooks.scene.sim.user_ids() {
        hooks.scene.sim.add_billable_rate(user, 120.5, None);
        hooks.scene.sim.add_cost_rate(user, 60.0, None);
    }
    let mut program = hooks.program();
    program.set("ROSTERD__RATES__HISTORIES", "true").set("ROSTERD__RATE_LIMIT__REQUESTS", "10000");
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    hooks.emit_all_types().await;
    for (_, _, receiver) in &receivers {
        let types = event_types();
        let has_all = |requests: &[crate::receiver::Request]| {
            let seen: BTreeSet<_> = requests.iter().map(crate::receiver::Request::r#type).collect();
            types.is_subset(&seen)
        };
        receiver.until("event of each type", has_all).await;
    }
    hooks.emit_control_messages(&program, &receivers[0].2).await;
    let mut seen = BTreeSet::new();
    for (_, _, receiver) in &receivers {
        for request in receiver.requests() {
            expect_described(&format!("message.{}", request.r#type()), &request.json());
            seen.insert(request.r#type());
        }
    }
    assert_eq!(seen, described_types());
    // The payloads with pay data, of readers, and after an erasure.
    let user = hooks.scene.sim.user_ids()[1];
    program.call(&["forget", "user", &user.to_string(), "--yes"]).await.expect(0);
    let mut rows = payloads(&hooks).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    let account = hooks.scene.sim.account_id().to_string();
    program.call(&["forget", "account", &account, "--yes"]).await.expect(0);
    rows.extend(payloads(&hooks).await);
    for (r#type, payload) in &rows {
        expect_described(r#type, payload);
    }
    assert_eq!(rows.into_iter().map(|(r#type, _)| r#type).collect::<BTreeSet<_>>(), event_types());
}

impl Hooks {
    async fn emit_control_messages(&self, program: &crate::program::Program, receiver: &Receiver) {
        let until = async |r#type: &str| {
            receiver.until(r#type, |requests| requests.iter().any(|it| it.r#type() == r#type)).await;
        };
        program.call(&["webhooks", "test", "full"]).await.expect(0);
        program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
        until("rosterd.stream_begun").await;
        program.call(&["webhooks", "pause", "other"]).await.expect(0);
        self.until_notice("concern = 'webhook_paused/other'").await;
        self.pass_two_minutes().await;
        until("rosterd.attention_needed").await;
        self.until_notice("concern = 'webhook_paused/other' AND is_accepted").await;
        program.call(&["webhooks", "retry", "other"]).await.expect(0);
        self.until_notice("concern = 'webhook_paused/other' AND absent_since IS NOT NULL").await;
        self.pass_two_minutes().await;
        until("rosterd.attention_over").await;
    }
}

/// Type and payload of each event, with pay data and for readers.
async fn payloads(hooks: &Hooks) -> Vec<(String, Value)> {
    let events =
        "SELECT type, payload FROM roster.outbox UNION ALL SELECT type, payload FROM directory.events";
    sqlx::query_as(events).fetch_all(hooks.scene.store.pool()).await.unwrap()
}

#[test]
fn schema_is_valid_and_has_each_type_and_each_field_of_the_model() {
    use rosterd::roster::model::{Assignment, BillableRate, Record, User};

    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap();
    let one_of = schema["oneOf"].as_array().unwrap().iter();
    let listed: BTreeSet<_> = one_of.map(|it| it["$ref"].as_str().unwrap().to_owned()).collect();
    let types = described_types();
    assert_eq!(listed, types.iter().map(|it| format!("#/$defs/message.{it}")).collect());
    let own = ["rosterd.attention_needed", "rosterd.attention_over", "rosterd.stream_begun", "rosterd.test"];
    assert_eq!(types, event_types().into_iter().chain(own.map(str::to_owned)).collect());
    let (user, assignment, rate) = (User::default(), Assignment::default(), BillableRate::default());
    let records =
        [("user", user.fields()), ("user_assignment", assignment.fields()), ("rate", rate.fields())];
    for (name, fields) in records {
        let fields: BTreeSet<_> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        for definition in [name.to_owned(), format!("changed_fields_of_{name}")] {
            let properties = schema["$defs"][&definition]["properties"].as_object().unwrap();
            assert_eq!(properties.keys().cloned().collect::<BTreeSet<_>>(), fields, "{definition}");
        }
    }
}
