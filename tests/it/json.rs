//! `docs/JSON.md` has an example of each JSON output. Each example must equal what the program prints. With `--json`,
//! stdout holds only JSON.
//!
//! `UPDATE_JSON=1 cargo test --test it json::` updates the examples.

use std::fs;

use chrono::DateTime;
use harvest_sim::Fault;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::program::Called;
use crate::scene::Scene;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/JSON.md");

/// Replaces times, ids of cycles and values that depend on the machine by constants, and keeps two items of a long
/// list.
fn normalized(key: &str, value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let kept = if items.len() > 10 { 2 } else { 10 };
            items.into_iter().take(kept).map(|item| normalized("", item)).collect()
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key.clone(), normalized(&key, value)));
            fields.collect::<Map<_, _>>().into()
        }
        Value::Number(_) if ["cycle_requests", "requests"].contains(&key) => 7.into(),
        Value::Number(_) if ["lag_seconds", "oldest_seconds"].contains(&key) => 12.into(),
        Value::String(text) => normalized_text(key, &text).into(),
        other => other,
    }
}

fn normalized_text(key: &str, text: &str) -> String {
    if DateTime::parse_from_rfc3339(text).is_ok() {
        return "2026-03-01T09:00:00Z".to_owned();
    }
    if text.parse::<Uuid>().is_ok() {
        return "2f1c8a34-5b1e-4a36-9d0c-0f6f5a4f7c11".to_owned();
    }
    match key {
        "request" => match text.split_once("updated_since=") {
            Some((before, _)) => format!("{before}updated_since=2026-03-01T08:59:00Z"),
            None => text.to_owned(),
        },
        "decided_by" => "ada@ops-1".to_owned(),
        "actor" => "cli:ada@ops-1".to_owned(),
        "holder" => "db-1:4711".to_owned(),
        "summary" => with_number(&with_number(text, " requests", "7"), " s by", "0.4"),
        "detail" if text.starts_with("PostgreSQL at ") => {
            "PostgreSQL at db.example.com:5432 (database \"roster\", user \"rosterd\"), version 17.6"
                .to_owned()
        }
        "detail" => with_number(text, " migrations", "11"),
        _ => text.to_owned(),
    }
}

/// Replaces the number before `word`.
fn with_number(text: &str, word: &str, number: &str) -> String {
    let Some((before, after)) = text.split_once(word) else { return text.to_owned() };
    let before = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    format!("{before}{number}{word}{after}")
}

#[track_caller]
fn json(called: &Called, code: i32) -> Value {
    let text = called.expect(code).stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The program's outputs, each with its heading in the page.
async fn examples() -> Vec<(&'static str, Value)> {
    let scene = Scene::without_limit().await;
    let mut program = scene.program();
    program.set("ROSTERD__RATES__HISTORIES", "true").set("ROSTERD__RATE_LIMIT__REQUESTS", "10000");
    let mut examples = Vec::new();
    examples.push(("rosterd sync --json", json(&program.call(&["sync", "--json"]).await, 0)));
    program.set("ROSTERD__RATES__HISTORIES", "false");
    examples.push(("rosterd check --json", json(&program.call(&["check", "--json"]).await, 0)));

    let [first, second] = [1, 2].map(|at| scene.sim.user_ids()[at]);
    scene.sim.edit_user(first, |user| user.weekly_capacity = 90_000);
    let dry_run = &["sync", "--dry-run", "--values", "--json"];
    let planned = json(&program.call(dry_run).await, 0);
    examples.push(("rosterd sync --dry-run --values --json", planned));
    scene.sim.create_user("Vera", "Verified");
    let differing = json(&program.call(&["verify", "--json"]).await, 1);
    examples.push(("rosterd verify --json", differing));
    program.call(&["sync"]).await.expect(0);

    let explained = program.call(&["explain", "user", &first.to_string(), "--json"]).await;
    examples.push(("rosterd explain user ID --json", json(&explained, 0)));
    scene.sim.delete_user(second);
    program.set("ROSTERD__WRITE__MODE", "dry");
    program.call(&["user", "update", &first.to_string(), "--last", "Newname", "--yes"]).await.expect(0);
    let listed = json(&program.call(&["writes", "list", "--json"]).await, 0);
    examples.push(("rosterd writes list --json", listed));
    program.set("ROSTERD__WRITE__MODE", "off");
    let leavers = scene.sim.user_ids().into_iter().filter(|user| *user != scene.sim.token_owner()).take(12);
    leavers.for_each(|user| scene.sim.delete_user(user));
    program.call(&["sync"]).await.expect(0);
    let held = json(&program.call(&["deletions", "list", "--json"]).await, 0);
    let ids: Vec<_> =
        held.as_array().unwrap().iter().map(|deletion| deletion["record_id"].to_string()).collect();
    examples.push(("rosterd deletions list --json", held));
    let reject = &["deletions", "reject", "user", &ids[0], "--json"];
    examples.push(("rosterd deletions reject user ID --json", json(&program.call(reject).await, 0)));
    examples.push(("rosterd status --json", json(&program.call(&["status", "--json"]).await, 0)));
    scene
        .execute(
            "INSERT INTO roster.webhooks (name, stream_id, seen_at, delivered, delivered_at, failing_since, attempts,
                                          next_attempt_at, failed_seq, failure)
             SELECT 'hr-bot', stream_id, now(), 12, now(), now(), 3, now(), 61, 'status 422' FROM roster.outbox_head;
             SELECT roster.outbox_start('webhook:hr-bot', 60);",
        )
        .await;
    let webhooks = json(&program.call(&["webhooks", "list", "--json"]).await, 0);
    examples.push(("rosterd webhooks list --json", webhooks));
    scene.execute("DELETE FROM roster.webhooks; DELETE FROM roster.consumers").await;
    let event = program.call(&["outbox", "tail", "--from", "61"]).await.expect(0).stdout();
    let event = serde_json::from_str(event.lines().next().unwrap()).unwrap();
    examples.push(("rosterd outbox tail", event));

    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    // The daemon is ready after its first cycle.
    while program.call(&["health", "--ready"]).await.0.status.code() != Some(0) {}
    examples.push(("rosterd health", json(&program.call(&["health"]).await, 0)));
    examples.push(("rosterd health --ready", json(&program.call(&["health", "--ready"]).await, 0)));
    examples.into_iter().map(|(heading, value)| (heading, normalized("", value))).collect()
}

#[tokio::test]
async fn json_page_examples_equal_the_programs_output() {
    let page = fs::read_to_string(PAGE).unwrap();
    let mut updated = page.clone();
    let examples = examples().await;
    for (heading, value) in &examples {
        let start = format!("\n## `{heading}`\n");
        let (before, section) = updated.split_once(&start).unwrap_or_else(|| panic!("no section{start}"));
        let (text, rest) = section.split_once("```json\n").expect("the section should have an example");
        let after = rest.split_once("\n```").expect("the example should end").1;
        let example = serde_json::to_string_pretty(value).unwrap();
        updated = format!("{before}{start}{text}```json\n{example}\n```{after}");
    }
    assert_eq!(
        page.matches("```json\n").count(),
        examples.len(),
        "this test checks each example of the page"
    );
    if std::env::var_os("UPDATE_JSON").is_some() {
        fs::write(PAGE, updated).unwrap();
        return;
    }
    for (actual, expected) in page.lines().zip(updated.lines()) {
        assert_eq!(
            actual, expected,
            "docs/JSON.md differs; update it with `UPDATE_JSON=1 cargo test --test it json::`"
        );
    }
    assert_eq!(page.lines().count(), updated.lines().count(), "lines of docs/JSON.md");
}

#[tokio::test]
async fn json_of_a_failed_account_holds_its_error_and_stdout_holds_only_json() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    scene.sim.inject(Fault::refusal(401).forever());
    for command in [&["sync", "--json"][..], &["sync", "--dry-run", "--json"], &["verify", "--json"]] {
        let failed = program.call(command).await;
        let accounts = json(&failed, 77);
        assert_eq!(accounts[0]["account_id"], scene.sim.account_id());
        let error = accounts[0]["error"].as_str().unwrap();
        assert!(failed.sentence().contains(error.lines().next().unwrap()), "{error}");
    }
    let mut unreachable = scene.program();
    unreachable.set("DATABASE_URL", "postgres://rosterd@127.0.0.1:1/roster");
    assert_eq!(
        unreachable.call(&["sync", "--json"]).await.expect(69).stdout(),
        "",
        "rosterd reached no account"
    );
    scene.sim.clear_faults();
    // If a daemon holds the lease, `sync` delegates to it. The answer is a sentence.
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    let delegated = json(&program.call(&["sync", "--json"]).await, 0);
    assert_eq!(delegated[0]["delegated"], true);
    assert!(delegated[0]["summary"].as_str().unwrap().starts_with("account "), "{delegated}");
}

#[tokio::test]
async fn json_of_deletions_is_an_empty_list_if_none_are_held() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    for command in [
        &["deletions", "list", "--json"][..],
        &["deletions", "accept", "--all", "--json", "--yes"],
        &["deletions", "accept", "--all", "--json", "--dry-run"],
        &["deletions", "reject", "--all", "--json"],
    ] {
        assert_eq!(json(&program.call(command).await, 0), Value::Array(Vec::new()), "{command:?}");
    }
}
