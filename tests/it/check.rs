//! `rosterd check`: what works, what works but deserves a look, and what `sync` would fail with.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use chrono::TimeDelta;
use harvest_sim::{Company, Options, Sim};
use serde_json::Value;
use url::Url;

use crate::cluster::Cluster;
use crate::database::TestDatabase;
use crate::program::Program;
use crate::scene::Scene;

async fn sim() -> Sim {
    Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap()
}

/// The lines of `check`, which exits with this code.
async fn lines(program: &Program, code: i32) -> String {
    program.call(&["check"]).await.expect(code).stdout()
}

fn with_option(url: &str, option: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    let (name, value) = option.split_once('=').unwrap();
    url.query_pairs_mut().append_pair(&format!("options[{name}]"), value);
    url.into()
}

#[tokio::test]
async fn warnings_of_check_are_a_state_of_their_own_and_leave_the_exit_code_at_0() {
    let (sim, database) = (sim().await, TestDatabase::blank().await);
    let mut program = Program::new(&sim, database.url());
    let said = lines(&program, 0).await;
    assert!(said.contains("✓ settings: 1 account, polled every 1s\n"), "{said}");
    assert!(said.contains("! contact: not set"), "{said}");
    assert!(said.contains("! schema: not migrated yet"), "{said}");
    assert!(!said.contains("privileges") && !said.contains('✗'), "{said}");
    let url = Url::parse(database.url()).unwrap();
    let place = format!("(database {:?}, ", url.path().trim_start_matches('/'));
    let named = said.lines().find(|line| line.starts_with("✓ database: PostgreSQL at ")).unwrap();
    assert!(named.contains(url.host_str().unwrap()) && named.contains(&place), "{named}");

    let json: Value =
        serde_json::from_str(&program.call(&["check", "--json"]).await.expect(0).stdout()).unwrap();
    let states = |name: &str| {
        let line = json.as_array().unwrap().iter().find(|line| line["check"] == name).unwrap();
        (line["state"].as_str().unwrap(), line["ok"].as_bool().unwrap())
    };
    assert_eq!((states("contact"), states("database")), (("warning", true), ("ok", true)));

    program.call(&["sync"]).await.expect(0);
    program.set("ROSTERD__HARVEST__USER_AGENT_CONTACT", "it@example.com");
    let said = lines(&program, 0).await;
    assert!(said.lines().all(|line| line.starts_with('✓')), "{said}");
}

#[tokio::test]
async fn check_of_a_read_only_database_fails_as_sync_does() {
    let (sim, database) = (sim().await, TestDatabase::new().await);
    let read_only = with_option(database.url(), "default_transaction_read_only=on");
    let program = Program::new(&sim, &read_only);
    let said = lines(&program, 78).await;
    assert!(said.contains("✗ database: ") && said.contains("default_transaction_read_only is on"), "{said}");
    assert_ne!(program.call(&["sync"]).await.0.status.code(), Some(0));
    let json: Value =
        serde_json::from_str(&program.call(&["check", "--json"]).await.expect(78).stdout()).unwrap();
    let failed = json.as_array().unwrap().iter().find(|line| line["state"] == "failed").unwrap();
    assert_eq!((&failed["check"], &failed["ok"]), (&"database".into(), &false.into()));
}

#[tokio::test]
async fn check_of_a_standby_fails_and_names_the_primary() {
    let (sim, mut primary) = (sim().await, Cluster::new().await);
    Program::new(&sim, primary.url()).call(&["sync"]).await.expect(0);
    primary.stop().await;
    let standby = primary.copy(true).await;
    let said = lines(&Program::new(&sim, standby.url()), 78).await;
    assert!(said.contains("✗ database: ") && said.contains("the primary server"), "{said}");
}

#[tokio::test]
async fn check_of_a_user_who_may_not_create_schemas_fails_as_sync_does() {
    let (sim, cluster) = (sim().await, Cluster::new().await);
    cluster.execute("CREATE ROLE poor LOGIN PASSWORD 'secret'").await;
    let mut url = Url::parse(cluster.url()).unwrap();
    url.set_username("poor").unwrap();
    url.set_password(Some("secret")).unwrap();
    let program = Program::new(&sim, url.as_str());
    let said = lines(&program, 78).await;
    assert!(said.contains("✗ schema: ") && said.contains("GRANT CREATE ON DATABASE"), "{said}");
    program.call(&["sync"]).await.expect(78);
}

#[tokio::test]
async fn clocks_that_are_more_than_30_s_apart_are_warned_of() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let said = lines(&program, 0).await;
    for whose in ["the database", "Harvest"] {
        let good = format!("✓ clock of {whose}: less than 30 s from this machine's clock");
        assert!(said.contains(&good), "{said}");
    }
    // A clock of the test's own stands before PostgreSQL's.
    scene
        .execute(
            "CREATE SCHEMA wrong;
             CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql
                 AS $$ SELECT pg_catalog.clock_timestamp() - interval '95 seconds' $$",
        )
        .await;
    program.set("DATABASE_URL", &with_option(scene.url(), "search_path=wrong,pg_catalog"));
    scene.sim.shift_clock(TimeDelta::seconds(45));
    let said = lines(&program, 0).await;
    let line = |whose: &str| {
        let begins = format!("! clock of {whose}: ");
        said.lines()
            .find_map(|line| line.strip_prefix(&begins))
            .unwrap_or_else(|| panic!("{said}"))
            .to_owned()
    };
    let (database, harvest) = (line("the database"), line("Harvest"));
    assert!(database.starts_with('9') && database.contains(" s behind this machine's clock"), "{database}");
    assert!(harvest.starts_with('4') && harvest.contains(" s ahead of this machine's clock"), "{harvest}");
}

#[tokio::test]
async fn check_names_the_private_postgresql_and_why_it_is_used() {
    let sim = sim().await;
    let home = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let data_dir = home.path().canonicalize().unwrap().join("postgres");
    let mut program = Program::new(&sim, "");
    program.set("ROSTERD__DATABASE__DATA_DIR", data_dir.to_str().unwrap());
    let said = lines(&program, 0).await;
    let place = format!("private PostgreSQL in {}, because database.url is empty", data_dir.display());
    assert!(said.contains(&format!("✓ database: {place}, version ")), "{said}");

    std::fs::remove_file(data_dir.join("pgpass")).unwrap();
    let said = lines(&program, 78).await;
    assert!(said.contains("✗ database: ") && said.contains("because database.url is empty"), "{said}");
}

#[tokio::test]
async fn misspelt_variables_and_quoted_secrets_are_warned_of_and_the_secret_works() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let token = scene.sim.token();
    program.set("ROSTERD_SYNC_POLL_INTERVAL", "5s").set("HARVEST_COLOUR", "red");
    for quoted in [format!("\"{token}\""), format!("'{token}'"), format!("{token}\r")] {
        program.set("HARVEST_ACCESS_TOKEN", &quoted);
        let called = program.call(&["check"]).await;
        let said = called.expect(0).stdout();
        for warning in [
            "! settings: HARVEST_ACCESS_TOKEN has quotes or white space around its value; rosterd leaves them out",
            "! settings: rosterd does not read the variable ROSTERD_SYNC_POLL_INTERVAL; did you mean \
             ROSTERD__SYNC__POLL_INTERVAL?",
            "! settings: rosterd does not read the variable HARVEST_COLOUR; it reads HARVEST_ACCOUNT_ID, ",
        ] {
            assert_eq!(said.matches(warning).count(), 1, "{said}");
        }
        assert!(!said.contains(&token) && !called.stderr().contains(&token));
        let synced = program.call(&["sync"]).await;
        assert!(synced.expect(0).stderr().contains("has quotes or white space around its value"));
    }
    program.set("HARVEST_ACCESS_TOKEN", &format!("\"{token}"));
    let said = lines(&program, 78).await;
    assert!(said.contains("✗ settings: HARVEST_ACCESS_TOKEN is empty or holds spaces"), "{said}");
    assert!(said.contains("! settings: rosterd does not read the variable HARVEST_COLOUR"), "{said}");
    assert!(!said.contains(&token), "{said}");

    // The variable that the error asks for is there under another name.
    program.set("HARVEST_ACCESS_TOKEN", "").set("HARVEST_TOKEN", &token);
    let said = program.call(&["run"]).await.expect(78).sentence();
    assert!(said.contains("HARVEST_TOKEN; did you mean HARVEST_ACCESS_TOKEN?"), "{said}");
}
