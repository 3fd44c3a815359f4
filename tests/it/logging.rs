//! `docs/LOGGING.md` lists exactly the events that rosterd logs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harvest_sim::Fault;

use crate::scene::Scene;

/// The names in `text` between one of the `prefixes` and the next quote.
pub fn names(text: &str, prefixes: &[&str]) -> BTreeSet<String> {
    prefixes
        .iter()
        .flat_map(|prefix| text.split(prefix).skip(1))
        .filter_map(|rest| rest.split_once(['"', '`']).map(|(name, _)| name.to_owned()))
        .collect()
}

/// Appends the source files of the program, without the unit tests, to `text`.
fn append_sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            append_sources(&path, text);
        } else if !path.ends_with("tests.rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn logging_page_lists_exactly_the_events_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    append_sources(&root.join("src"), &mut source);
    let logged = names(
        &source,
        &[
            "event = \"",
            "event = if is_unknown { \"",
            "failed!(warn, \"",
            "failed!(\n                error,\n                \"",
            "EVENT: &str = \"",
        ],
    );
    let documented = names(&fs::read_to_string(root.join("docs/LOGGING.md")).unwrap(), &["\n| `"]);
    assert!(logged.len() > 10, "{logged:?}");
    assert_eq!(logged, documented);
}

#[tokio::test]
async fn slow_sqlx_statements_are_logged_as_library_warnings() {
    let scene = Scene::new().await;
    let mut daemon = scene.program().start();
    daemon.until("cycle.finished").await;
    let mut lock = scene.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE roster.watermarks").execute(&mut *lock).await.unwrap();
    // sqlx logs the warning at the end of a statement that took longer than a second. The request budget, whose statements
    // have short timeouts, does not use this table.
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                                   AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > '1.2 s')";
    scene.until(waits).await;
    lock.rollback().await.unwrap();
    let slow = daemon.until("library").await;
    assert_eq!((&slow["level"], &slow["target"]), (&"WARN".into(), &"sqlx::query".into()));
}

#[tokio::test]
async fn daemon_started_names_accounts_interval_listener_and_database_host() {
    let scene = Scene::new().await;
    let program = scene.program();
    let started = program.start().until("daemon.started").await;
    assert_eq!(started["accounts"], 1);
    assert_eq!(started["account_ids"], scene.sim.account_id().to_string());
    assert_eq!((&started["poll_interval"], &started["listen"]), (&"1s".into(), &program.listen().into()));
    let url = url::Url::parse(scene.url()).unwrap();
    assert_eq!(started["database"], url.host_str().unwrap());
}

#[tokio::test]
async fn failed_cycle_is_logged_with_its_error_once() {
    let scene = Scene::new().await;
    scene.sim.inject(Fault::html(401).forever());
    let mut daemon = scene.program().start();
    let refused = daemon.until("credentials.refused").await;
    let error = refused["error"].as_str().unwrap();
    assert!(!refused["message"].as_str().unwrap().contains(error), "{refused}");
    let line = daemon.said.last().unwrap();
    assert_eq!(line.matches("refused the token").count(), 1, "{line}");
}
