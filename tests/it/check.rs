//! `rosterd check`: what works, what deserves a warning, and what would make `sync` fail.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use chrono::TimeDelta;
use serde_json::Value;
use url::Url;

use crate::cluster::Cluster;
use crate::database::TestDatabase;
use crate::program::Program;
use crate::receiver::{Receiver, secret};
use crate::scene::{Scene, small_company};

/// Runs `check`, expects this exit code and returns the printed lines.
async fn check(program: &Program, code: i32) -> String {
    program.call(&["check"]).await.expect(code).stdout()
}

fn with_option(url: &str, option: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    let (name, value) = option.split_once('=').unwrap();
    url.query_pairs_mut().append_pair(&format!("options[{name}]"), value);
    url.into()
}

#[tokio::test]
async fn check_warnings_have_their_own_state_and_exit_code_0() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let mut program = Program::new(&sim, database.url());
    let output = check(&program, 0).await;
    assert!(output.contains("✓ settings: 1 account, polled every 1s\n"), "{output}");
    assert!(output.contains("! contact: not set"), "{output}");
    assert!(output.contains("! schema: not migrated yet"), "{output}");
    assert!(!output.contains("privileges") && !output.contains('✗'), "{output}");
    let url = Url::parse(database.url()).unwrap();
    let place = format!("(database {:?}, ", url.path().trim_start_matches('/'));
    let named = output.lines().find(|line| line.starts_with("✓ database: PostgreSQL at ")).unwrap();
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
    let output = check(&program, 0).await;
    assert!(output.lines().all(|line| line.starts_with('✓')), "{output}");
}

#[tokio::test]
async fn check_of_a_read_only_database_fails_as_sync_does() {
    let (sim, database) = (small_company().await, TestDatabase::new().await);
    let read_only = with_option(database.url(), "default_transaction_read_only=on");
    let program = Program::new(&sim, &read_only);
    let output = check(&program, 78).await;
    assert!(
        output.contains("✗ database: ") && output.contains("default_transaction_read_only is on"),
        "{output}"
    );
    assert_ne!(program.call(&["sync"]).await.0.status.code(), Some(0));
    let json: Value =
        serde_json::from_str(&program.call(&["check", "--json"]).await.expect(78).stdout()).unwrap();
    let failed = json.as_array().unwrap().iter().find(|line| line["state"] == "failed").unwrap();
    assert_eq!((&failed["check"], &failed["ok"]), (&"database".into(), &false.into()));
}

#[tokio::test]
async fn check_of_a_standby_fails_and_names_the_primary() {
    let (sim, mut primary) = (small_company().await, Cluster::new().await);
    Program::new(&sim, primary.url()).call(&["sync"]).await.expect(0);
    primary.stop().await;
    let standby = primary.copy(true).await;
    let output = check(&Program::new(&sim, standby.url()), 78).await;
    assert!(output.contains("✗ database: ") && output.contains("the primary server"), "{output}");
}

#[tokio::test]
async fn check_of_a_role_without_create_privilege_fails_as_sync_does() {
    let (sim, cluster) = (small_company().await, Cluster::new().await);
    cluster.execute("CREATE ROLE poor LOGIN PASSWORD 'secret'").await;
    let mut url = Url::parse(cluster.url()).unwrap();
    url.set_username("poor").unwrap();
    url.set_password(Some("secret")).unwrap();
    let program = Program::new(&sim, url.as_str());
    let output = check(&program, 78).await;
    assert!(output.contains("✗ schema: ") && output.contains("GRANT CREATE ON DATABASE"), "{output}");
    program.call(&["sync"]).await.expect(78);
}

#[tokio::test]
async fn check_warns_if_clocks_differ_by_more_than_30_s() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let output = check(&program, 0).await;
    for clock in ["the database", "Harvest"] {
        let in_sync = format!("✓ clock of {clock}: less than 30 s from this machine's clock");
        assert!(output.contains(&in_sync), "{output}");
    }
    // With this search path, rosterd calls the test's clock function instead of PostgreSQL's.
    scene
        .execute(
            "CREATE SCHEMA wrong;
             CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql
                 AS $$ SELECT pg_catalog.clock_timestamp() - interval '95 seconds' $$",
        )
        .await;
    program.set("DATABASE_URL", &with_option(scene.url(), "search_path=wrong,pg_catalog"));
    scene.sim.shift_clock(TimeDelta::seconds(45));
    let output = check(&program, 0).await;
    let line = |clock: &str| {
        let prefix = format!("! clock of {clock}: ");
        output
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("{output}"))
            .to_owned()
    };
    let (database, harvest) = (line("the database"), line("Harvest"));
    assert!(database.starts_with('9') && database.contains(" s behind this machine's clock"), "{database}");
    assert!(harvest.starts_with('4') && harvest.contains(" s ahead of this machine's clock"), "{harvest}");
}

#[tokio::test]
async fn check_names_the_private_postgresql_and_why_it_is_used() {
    let sim = small_company().await;
    let home = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let data_dir = home.path().canonicalize().unwrap().join("postgres");
    let mut program = Program::new(&sim, "");
    program.set("ROSTERD__DATABASE__DATA_DIR", data_dir.to_str().unwrap());
    let output = check(&program, 0).await;
    let place = format!("private PostgreSQL in {}, because database.url is empty", data_dir.display());
    assert!(output.contains(&format!("✓ database: {place}, version ")), "{output}");

    std::fs::remove_file(data_dir.join("pgpass")).unwrap();
    let output = check(&program, 78).await;
    assert!(output.contains("✗ database: ") && output.contains("because database.url is empty"), "{output}");
}

#[tokio::test]
async fn check_warns_of_misspelt_variables_and_quoted_secrets() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let token = scene.sim.token();
    program.set("ROSTERD_SYNC_POLL_INTERVAL", "5s").set("HARVEST_COLOUR", "red");
    for quoted in [format!("\"{token}\""), format!("'{token}'"), format!("{token}\r")] {
        program.set("HARVEST_ACCESS_TOKEN", &quoted);
        let called = program.call(&["check"]).await;
        let output = called.expect(0).stdout();
        for warning in [
            "! settings: HARVEST_ACCESS_TOKEN has quotes or white space around its value; rosterd leaves them out",
            "! settings: rosterd does not read the variable ROSTERD_SYNC_POLL_INTERVAL; did you mean \
             ROSTERD__SYNC__POLL_INTERVAL?",
            "! settings: rosterd does not read the variable HARVEST_COLOUR; it reads HARVEST_ACCOUNT_ID, ",
        ] {
            assert_eq!(output.matches(warning).count(), 1, "{output}");
        }
        assert!(!output.contains(&token) && !called.stderr().contains(&token));
        let synced = program.call(&["sync"]).await;
        assert!(synced.expect(0).stderr().contains("has quotes or white space around its value"));
    }
    program.set("HARVEST_ACCESS_TOKEN", &format!("\"{token}"));
    let output = check(&program, 78).await;
    assert!(output.contains("✗ settings: HARVEST_ACCESS_TOKEN is empty or holds spaces"), "{output}");
    assert!(output.contains("! settings: rosterd does not read the variable HARVEST_COLOUR"), "{output}");
    assert!(!output.contains(&token), "{output}");

    // The required variable is set under a similar name.
    program.set("HARVEST_ACCESS_TOKEN", "").set("HARVEST_TOKEN", &token);
    let output = program.call(&["run"]).await.expect(78).sentence();
    assert!(output.contains("HARVEST_TOKEN; did you mean HARVEST_ACCESS_TOKEN?"), "{output}");
}

#[tokio::test]
async fn endpoints_of_webhooks_are_checked_without_a_request() {
    let (scene, receiver, dir) =
        (Scene::new().await, Receiver::start("bot").await, tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let (bot, away) = (write("bot", &secret("bot"), 0o600), write("away", &secret("away"), 0o604));
    let section = |name: &str, url: &str, file: &str| {
        format!("[webhooks.{name}]\nurl = \"{url}\"\nsecret_files = [\"{file}\"]\n")
    };
    let sections = section("bot", &receiver.url(), &bot)
        + &section("away", "https://receiver.invalid/hidden-path-canary", &away);
    let mut program = scene.program();
    program.set("ROSTERD_CONFIG", &write("rosterd.toml", &sections, 0o600));
    let output = check(&program, 0).await;
    let origin = receiver.url().replace("/hidden-path-canary", "");
    assert!(output.contains(&format!("✓ webhook bot: {origin}, signed with 1 secret\n")), "{output}");
    assert!(output.contains("! webhook away: https://receiver.invalid: the host has no address"), "{output}");
    let warned =
        output.lines().find(|line| line.starts_with("! settings: webhooks.away.secret_files")).unwrap();
    assert!(warned.contains(&format!("names the file {away}, which every user")), "{warned}");
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    program.call(&["webhooks", "pause", "bot"]).await.expect(0);
    let output = check(&program, 0).await;
    assert!(output.contains("! webhook bot: paused; `rosterd webhooks retry bot`"), "{output}");
    let absent = section("bot", &receiver.url(), "/absent/secret");
    program.set("ROSTERD_CONFIG", &write("rosterd.toml", &absent, 0o600));
    let output = check(&program, 78).await;
    assert!(output.contains("✗ settings: webhooks.bot.secret_files"), "{output}");
    assert!(output.contains("names the file /absent/secret, which cannot be read"), "{output}");
    assert!(!output.contains("hidden-path-canary"), "{output}");
    assert!(receiver.requests().is_empty());
}
