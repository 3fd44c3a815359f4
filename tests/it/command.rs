//! The `rosterd` program: its commands, their output, exit codes and signals.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::database::TestDatabase;
use crate::program::Program;
use crate::scene::small_company;

async fn number(url: &str, query: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let number = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

#[tokio::test]
async fn sync_needs_only_an_empty_database_and_a_token() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let program = Program::new(&sim, database.url());
    program.call(&["check"]).await.expect(0);
    let synced = program.call(&["sync"]).await;
    assert!(
        synced.expect(0).stdout().contains("20 users (20 changed), 40 assignments (40 changed), 60 events")
    );
    assert!(program.call(&["sync", "--full"]).await.expect(0).stdout().contains("0 events"));

    let status: Value =
        serde_json::from_str(&program.call(&["status", "--json"]).await.expect(0).stdout()).unwrap();
    assert_eq!(
        (&status["outbox"]["seq"], &status["accounts"][0]["account_id"]),
        (&60.into(), &sim.account_id().into())
    );
    assert!(program.call(&["status"]).await.expect(0).stdout().contains("user_assignments"));
    let check: Value =
        serde_json::from_str(&program.call(&["check", "--json"]).await.expect(0).stdout()).unwrap();
    assert!(check.as_array().unwrap().iter().all(|line| line["ok"] == true));
}

#[tokio::test]
async fn dry_run_prints_the_plan_and_writes_nothing() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let program = Program::new(&sim, database.url());
    let plan = program.call(&["sync", "--dry-run"]).await;
    let plan = plan.expect(0).stdout();
    assert_eq!(plan.lines().filter(|line| line.ends_with(" created")).count(), 60);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'roster'";
    assert_eq!(number(database.url(), schemas).await, 0);

    program.call(&["sync"]).await.expect(0);
    let user = sim.user_ids()[3];
    sim.rename(user, "Xenia", "Secret");
    let (head, cycles) = ("SELECT seq FROM roster.outbox_head", "SELECT count(*) FROM roster.cycles");
    let before = (number(database.url(), head).await, number(database.url(), cycles).await);
    let plan = program.call(&["sync", "--dry-run"]).await.expect(0).stdout();
    assert!(plan.contains(&format!("user {user} updated: first_name, last_name\n")), "{plan}");
    assert!(!plan.contains("Xenia"));
    let plan = program.call(&["sync", "--dry-run", "--values"]).await.expect(0).stdout();
    assert!(plan.contains("→ \"Xenia\""), "{plan}");
    assert_eq!((number(database.url(), head).await, number(database.url(), cycles).await), before);
}

#[tokio::test]
async fn each_failure_has_an_exit_code_and_one_sentence_without_secrets() {
    let (sim, database) = (small_company().await, TestDatabase::new().await);
    let unreachable = "postgres://rosterd:hunter2@127.0.0.1:1/roster";
    let secret = "987654.pt.wrong-token-canary";
    let cases: [(&str, &str, &str, i32, &str); 9] = [
        ("a wrong token", "HARVEST_ACCESS_TOKEN", secret, 77, "refused the token"),
        ("a wrong account", "HARVEST_ACCOUNT_ID", "999999", 77, "does not know account 999999"),
        ("no database", "DATABASE_URL", unreachable, 69, "cannot connect to PostgreSQL at 127.0.0.1:1 "),
        ("no Harvest", "HARVEST_BASE_URL", "http://127.0.0.1:1/v2", 69, "no answer from Harvest"),
        ("a nonsense setting", "ROSTERD__SYNC__POLL_INTERVAL", "banana", 78, "sync.poll_interval"),
        ("an unknown setting", "ROSTERD__SYNC__POL_INTERVAL", "60s", 78, "did you mean"),
        ("no account", "HARVEST_ACCOUNT_ID", "", 78, "HARVEST_ACCOUNT_ID"),
        ("a nonsense database", "DATABASE_URL", "mysql://root:hunter2@db/x", 78, "postgres://"),
        ("a base URL in clear", "HARVEST_BASE_URL", "http://api.example.com/v2", 78, "https"),
    ];
    for (case, key, value, code, words) in cases {
        let mut program = Program::new(&sim, database.url());
        program.set(key, value);
        let called = program.call(&["sync"]).await;
        let sentence = called.expect(code).sentence();
        assert!(sentence.starts_with("rosterd: ") && sentence.contains(words), "{case}: {sentence}");
        for canary in ["hunter2", "canary", "panicked", "RUST_BACKTRACE"] {
            assert!(!called.stderr().contains(canary), "{case}: {}", called.stderr());
        }
        assert!(called.stdout().is_empty(), "{case}: {}", called.stdout());
        let checked = program.call(&["check"]).await;
        assert!(checked.expect(code).stdout().contains('✗'), "{case}: {}", checked.stdout());
    }
}

#[tokio::test]
async fn daemon_mirrors_changes_reports_ready_and_stops_on_sigterm() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let mut program = Program::new(&sim, database.url());
    program.set("RUST_LOG", "trace");
    program.call(&["health"]).await.expect(69);
    let mut daemon = program.start();
    daemon.until("daemon.started").await;
    let first = daemon.until("cycle.finished").await;
    assert_eq!((&first["mode"], &first["events"]), (&"full".into(), &60.into()));
    program.call(&["health"]).await.expect(0);
    assert!(program.call(&["health", "--ready"]).await.expect(0).stdout().contains("\"synced\""));
    // While the daemon runs, `sync` delegates to it.
    assert!(program.call(&["sync"]).await.expect(0).stdout().contains("what changed read"));

    let user = sim.create_user("Zelda", "Canaryname");
    while daemon.until("cycle.finished").await["events"] == 0 {}
    let created_users = "SELECT count(*) FROM roster.outbox WHERE type = 'user.created'";
    assert_eq!(number(database.url(), created_users).await, 21);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    daemon.until("daemon.stopped").await;

    let log = daemon.said.join("\n");
    let email = sim.users_json().into_iter().find(|json| json["id"] == user.0).unwrap()["email"].to_string();
    for canary in ["Zelda", "Canaryname", email.trim_matches('"'), &sim.token()] {
        assert!(!log.contains(canary), "{canary} is in the log");
    }
    let held_leases = "SELECT count(*) FROM roster.accounts WHERE holder IS NOT NULL";
    assert_eq!(number(database.url(), held_leases).await, 0, "the daemon did not release the lease");
}

#[tokio::test]
async fn daemon_started_after_a_kill_takes_over_and_emits_no_event_twice() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let program = Program::new(&sim, database.url());
    let mut first = program.start();
    let epoch = first.until("lease.acquired").await["epoch"].as_i64().unwrap();
    first.signal("-KILL");
    first.ended().await;
    let mut second = program.start();
    second.until("lease.acquired").await;
    sim.create_user("Yan", "Later");
    while number(database.url(), "SELECT seq FROM roster.outbox_head").await < 61 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(number(database.url(), "SELECT epoch FROM roster.accounts").await, epoch + 1);
    assert!(sim.max_requests_in_window(Duration::from_secs(15)) <= 100);
    second.signal("-TERM");
    assert_eq!(second.ended().await, Some(0));
}

#[tokio::test]
async fn sigint_during_a_rate_limit_pause_stops_the_daemon() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(120)).forever());
    let mut daemon = Program::new(&sim, database.url()).start();
    daemon.until("harvest.throttled").await;
    daemon.signal("-INT");
    assert_eq!(daemon.ended().await, Some(0));
    assert_eq!(sim.requests().len(), 1);
}

#[tokio::test]
async fn daemon_survives_a_refused_token_and_an_outage_of_harvest() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    sim.inject(Fault::html(401).times(2));
    let mut daemon = Program::new(&sim, database.url()).start();
    let refused = daemon.until("credentials.refused").await;
    assert_eq!(refused["level"], "ERROR");
    sim.inject(Fault::html(503).times(8));
    daemon.until("cycle.failed").await;
    assert_eq!(daemon.until("cycle.finished").await["events"], 60);
}

#[tokio::test]
async fn check_while_a_first_read_uses_the_whole_budget_gets_permits() {
    let sim = Sim::start(Company::seeded(5, 400, 400), Options { limit: None, ..Options::default() })
        .await
        .unwrap();
    let database = TestDatabase::blank().await;
    let mut program = Program::new(&sim, database.url());
    program
        .set("ROSTERD__HARVEST__PER_PAGE", "1")
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "2s")
        .set("ROSTERD__RATE_LIMIT__REQUESTS", "20")
        .set("ROSTERD__RATE_LIMIT__WINDOW", "2s")
        .set("ROSTERD__RATE_LIMIT__RESERVE", "0");
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    // More requests than a window permits, so the read has to wait for permits from here on.
    while sim.requests().len() < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        program.call(&["check"]).await.expect(0);
    }
    assert_eq!(
        number(database.url(), "SELECT count(*) FROM roster.watermarks").await,
        0,
        "the first read ended before the checks"
    );
    assert!(sim.max_requests_in_window(Duration::from_secs(2)) <= 20);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn sync_that_cannot_release_the_lease_reports_the_cycles_result() {
    let (sim, database) = (small_company().await, TestDatabase::new().await);
    let refusal = "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                   BEGIN RAISE EXCEPTION 'not now'; END $$;
                   CREATE TRIGGER refuse BEFORE UPDATE ON roster.accounts FOR EACH ROW
                   WHEN (NEW.holder IS NULL) EXECUTE FUNCTION public.refuse();";
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(refusal).execute(&mut connection).await.unwrap();
    let program = Program::new(&sim, database.url());
    let synced = program.call(&["sync"]).await;
    assert!(synced.expect(0).stdout().contains("20 users (20 changed)"), "{}", synced.stdout());
    assert!(synced.stderr().contains("could not release the account's lease"), "{}", synced.stderr());
    sim.inject(Fault::html(401).forever());
    let refused = program.call(&["sync"]).await;
    assert!(refused.expect(77).sentence().contains("refused the token"), "{}", refused.stderr());
}

#[tokio::test]
async fn completions_and_man_pages_need_no_valid_settings() {
    let (sim, database) = (small_company().await, TestDatabase::new().await);
    let mut program = Program::new(&sim, database.url());
    program.set("ROSTERD__SYNC__POLL_INTERVAL", "banana");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = program.call(&["completions", shell]).await.expect(0).stdout();
        assert!(script.contains("deletions") && script.contains("--dry-run"), "{shell}: {script}");
    }
    program.call(&["completions", "tcsh"]).await.expect(2);
    let dir = tempfile::tempdir().unwrap();
    program.call(&["man", dir.path().to_str().unwrap()]).await.expect(0);
    for page in ["rosterd.1", "rosterd-forget-user.1", "rosterd-deletions-accept.1"] {
        let page = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let failed = program.call(&["man", "/nonexistent"]).await;
    assert!(failed.expect(70).sentence().contains("cannot write man pages into /nonexistent"));
}
