//! What the log says is written down, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harvest_sim::Fault;

use crate::scene::Scene;

/// The names in `text` that stand between one of these marks and the next quote.
pub fn names(text: &str, marks: &[&str]) -> BTreeSet<String> {
    marks
        .iter()
        .flat_map(|mark| text.split(mark).skip(1))
        .filter_map(|rest| rest.split_once(['"', '`']).map(|(name, _)| name.to_owned()))
        .collect()
}

fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("tests.rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_event_has_its_line_in_the_page_and_no_other_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    sources(&root.join("src"), &mut source);
    let said = names(
        &source,
        &[
            "event = \"",
            "failed!(warn, \"",
            "failed!(\n                error,\n                \"",
            "EVENT: &str = \"",
        ],
    );
    let written = names(&fs::read_to_string(root.join("docs/LOGGING.md")).unwrap(), &["\n| `"]);
    assert!(said.len() > 10, "{said:?}");
    assert_eq!(said, written);
}

#[tokio::test]
async fn slow_statements_of_sqlx_are_logged_as_a_librarys_warnings() {
    let scene = Scene::new().await;
    let mut daemon = scene.program().start();
    daemon.until("cycle.finished").await;
    let mut locking = scene.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE roster.accounts").execute(&mut *locking).await.unwrap();
    // sqlx warns once a statement that took longer than a second has ended.
    scene.until("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > '1.2 s')").await;
    locking.rollback().await.unwrap();
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
async fn a_failed_cycle_is_logged_with_its_sentence_once() {
    let scene = Scene::new().await;
    scene.sim.inject(Fault::html(401).forever());
    let mut daemon = scene.program().start();
    let refused = daemon.until("credentials.refused").await;
    let sentence = refused["error"].as_str().unwrap();
    assert!(!refused["message"].as_str().unwrap().contains(sentence), "{refused}");
    let line = daemon.said.last().unwrap();
    assert_eq!(line.matches("refused the token").count(), 1, "{line}");
}
