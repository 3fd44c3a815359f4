//! `docs/JSON.md` has an example of each JSON output, and each is what the program prints. With `--json` nothing but JSON goes
//! to stdout.
//!
//! `UPDATE_JSON=1 cargo test --test it json::` writes the examples again.

use std::fs;

use chrono::DateTime;
use harvest_sim::{Company, Fault, Options};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::program::Called;
use crate::scene::Scene;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/JSON.md");

/// The same in every run: constants for times, ids of cycles and what depends on the machine; two items of a long list.
fn settled(key: &str, value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let most = if items.len() > 10 { 2 } else { 10 };
            items.into_iter().take(most).map(|item| settled("", item)).collect()
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key.clone(), settled(&key, value)));
            fields.collect::<Map<_, _>>().into()
        }
        Value::Number(_) if ["cycle_requests", "requests"].contains(&key) => 7.into(),
        Value::Number(_) if key == "lag_seconds" => 12.into(),
        Value::String(text) => settled_text(key, &text).into(),
        other => other,
    }
}

fn settled_text(key: &str, text: &str) -> String {
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
        "holder" => "db-1:4711".to_owned(),
        "summary" => with_number(&with_number(text, " requests", "7"), " s by", "0.4"),
        "detail" if text.starts_with("PostgreSQL at ") => {
            "PostgreSQL at db.example.com:5432 (database \"roster\", user \"rosterd\"), version 17.6"
                .to_owned()
        }
        "detail" => with_number(text, " migrations", "18"),
        _ => text.to_owned(),
    }
}

/// The text with another number before this word.
fn with_number(text: &str, word: &str, number: &str) -> String {
    let Some((before, after)) = text.split_once(word) else { return text.to_owned() };
    let before = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    format!("{before}{number}{word}{after}")
}

/// The JSON of a call.
#[track_caller]
fn json(called: &Called, code: i32) -> Value {
    let text = called.expect(code).stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What is printed, by heading of the page.
async fn examples() -> Vec<(&'static str, Value)> {
    let scene = Scene::of(Company::seeded(5, 20, 40), Options { limit: None, ..Options::default() }).await;
    let mut program = scene.program();
    program.set("ROSTERD__RATES__HISTORIES", "true").set("ROSTERD__RATE_LIMIT__REQUESTS", "10000");
    let mut examples = Vec::new();
    examples.push(("rosterd sync --json", json(&program.call(&["sync", "--json"]).await, 0)));
    program.set("ROSTERD__RATES__HISTORIES", "false");
    examples.push(("rosterd check --json", json(&program.call(&["check", "--json"]).await, 0)));

    let [first, second] = [1, 2].map(|at| scene.sim.user_ids()[at]);
    scene.sim.edit_user(first, |user| user.weekly_capacity = 90_000);
    let dry = &["sync", "--dry-run", "--values", "--json"];
    let planned = json(&program.call(dry).await, 0);
    examples.push(("rosterd sync --dry-run --values --json", planned));
    scene.sim.hire("Vera", "Verified");
    let differing = json(&program.call(&["verify", "--json"]).await, 1);
    examples.push(("rosterd verify --json", differing));
    program.call(&["sync"]).await.expect(0);

    let explained = program.call(&["explain", "user", &first.to_string(), "--json"]).await;
    examples.push(("rosterd explain user ID --json", json(&explained, 0)));
    scene.sim.delete_user(second);
    let gone = scene.sim.user_ids().into_iter().filter(|user| *user != scene.sim.token_owner()).take(12);
    gone.for_each(|user| scene.sim.delete_user(user));
    program.call(&["sync"]).await.expect(0);
    let held = json(&program.call(&["deletions", "list", "--json"]).await, 0);
    let ids: Vec<_> = held.as_array().unwrap().iter().map(|it| it["record_id"].to_string()).collect();
    examples.push(("rosterd deletions list --json", held));
    let decide = &["deletions", "reject", "user", &ids[0], "--json"];
    examples.push(("rosterd deletions reject user ID --json", json(&program.call(decide).await, 0)));
    examples.push(("rosterd status --json", json(&program.call(&["status", "--json"]).await, 0)));
    let event = program.call(&["outbox", "tail", "--from", "61"]).await.expect(0).stdout();
    let event = serde_json::from_str(event.lines().next().unwrap()).unwrap();
    examples.push(("rosterd outbox tail", event));

    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    // Ready after its first cycle.
    while program.call(&["health", "--ready"]).await.0.status.code() != Some(0) {}
    examples.push(("rosterd health", json(&program.call(&["health"]).await, 0)));
    examples.push(("rosterd health --ready", json(&program.call(&["health", "--ready"]).await, 0)));
    examples.into_iter().map(|(heading, value)| (heading, settled("", value))).collect()
}

#[tokio::test]
async fn examples_of_the_json_page_are_what_the_program_prints() {
    let page = fs::read_to_string(PAGE).unwrap();
    let mut updated = page.clone();
    let examples = examples().await;
    for (heading, value) in &examples {
        let begin = format!("\n## `{heading}`\n");
        let (before, section) = updated.split_once(&begin).unwrap_or_else(|| panic!("no section{begin}"));
        let (text, rest) = section.split_once("```json\n").expect("an example");
        let after = rest.split_once("\n```").expect("its end").1;
        let example = serde_json::to_string_pretty(value).unwrap();
        updated = format!("{before}{begin}{text}```json\n{example}\n```{after}");
    }
    assert_eq!(page.matches("```json\n").count(), examples.len(), "each example is checked");
    if std::env::var_os("UPDATE_JSON").is_some() {
        fs::write(PAGE, updated).unwrap();
        return;
    }
    for (is, should) in page.lines().zip(updated.lines()) {
        assert_eq!(is, should, "docs/JSON.md; write it again by `UPDATE_JSON=1 cargo test --test it json::`");
    }
    assert_eq!(page.lines().count(), updated.lines().count(), "docs/JSON.md");
}

#[tokio::test]
async fn json_of_a_failed_account_has_its_error_and_stdout_nothing_else() {
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
    let mut away = scene.program();
    away.set("DATABASE_URL", "postgres://rosterd@127.0.0.1:1/roster");
    assert_eq!(away.call(&["sync", "--json"]).await.expect(69).stdout(), "", "no account was reached");
    scene.sim.clear_faults();
    // A daemon that writes the account does the work, and answers by a sentence.
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    let delegated = json(&program.call(&["sync", "--json"]).await, 0);
    assert_eq!(delegated[0]["delegated"], true);
    assert!(delegated[0]["summary"].as_str().unwrap().starts_with("account "), "{delegated}");
}

#[tokio::test]
async fn json_of_deletions_is_an_empty_list_where_nothing_is_held() {
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
