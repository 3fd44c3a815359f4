//! OAuth2: tokens that end, and are renewed by one process at a time, wherever it runs; and the consent that brings the
//! first ones.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use harvest_sim::{Account, Fault, Grant, Outcome, Refusal};

use crate::program::{Called, Program, STUCK};
use crate::scene::Scene;

const LIFETIME: Duration = Duration::from_secs(4);

/// An account that is entered by OAuth2, with a first refresh token.
fn program(scene: &Scene, first: &str) -> Program {
    let mut program = scene.program();
    program
        .set("HARVEST_ACCESS_TOKEN", "")
        .set("HARVEST_OAUTH_CLIENT_ID", &scene.sim.oauth().client_id())
        .set("HARVEST_OAUTH_CLIENT_SECRET", &scene.sim.oauth().client_secret())
        .set("HARVEST_OAUTH_REFRESH_TOKEN", first)
        .set("ROSTERD__HARVEST__IDENTITY_URL", scene.sim.identity_url())
        // For so long and a little a renewal is waited for whose process was killed in the midst of it.
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "5s")
        .set("RUST_LOG", "trace");
    program
}

fn granted(scene: &Scene) -> usize {
    scene.sim.oauth().count(Grant::RefreshToken, Outcome::Granted)
}

fn refused(scene: &Scene) -> usize {
    scene.sim.oauth().count(Grant::RefreshToken, Outcome::Refused(Refusal::InvalidGrant))
}

/// Until so many renewals were granted since the start.
async fn until_granted(scene: &Scene, count: usize) {
    let more = async {
        while granted(scene) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(STUCK, more).await.expect("no more renewals");
}

/// No code, token or secret in these lines, nor in clear in the database.
async fn expect_no_secret(scene: &Scene, said: &str) {
    let kept: String =
        sqlx::query_scalar("SELECT string_agg(encode(ciphertext, 'escape'), '') FROM roster.credentials")
            .fetch_one(scene.store.pool())
            .await
            .unwrap();
    assert!(!kept.is_empty());
    for secret in scene.sim.oauth().secrets() {
        assert!(!said.contains(&secret), "a secret was said");
        assert!(!kept.contains(&secret), "a secret is stored in clear");
    }
}

#[tokio::test]
async fn tokens_that_end_and_rotate_outlive_restarts_and_serve_every_replica() {
    let scene = Scene::new().await;
    scene.sim.oauth().lifetime(LIFETIME);
    scene.sim.oauth().rotate(true);
    let first = scene.sim.oauth().mint_refresh_token();
    let (one, two) = (program(&scene, &first), program(&scene, &first));
    let mut holder = one.start();
    holder.until("cycle.finished").await;
    let mut standby = two.start();
    standby.until("daemon.started").await;
    until_granted(&scene, 2).await;

    // The first token is long dead: what is kept goes on, in whatever process, after whatever end.
    holder.signal("-KILL");
    holder.ended().await;
    standby.until("lease.acquired").await;
    until_granted(&scene, 4).await;
    let mut again = one.start();
    again.until("daemon.started").await;
    standby.signal("-TERM");
    assert_eq!(standby.ended().await, Some(0));
    again.until("lease.acquired").await;
    until_granted(&scene, 5).await;
    for command in [&["sync", "--full"][..], &["check"], &["verify"]] {
        one.call(command).await.expect(0);
    }
    again.signal("-TERM");
    assert_eq!(again.ended().await, Some(0));
    one.call(&["sync"]).await.expect(0);

    assert_eq!(refused(&scene), 0, "no refresh token was shown twice");
    assert_eq!(scene.sim.oauth().most_in_flight(), 1);
    scene.expect_right().await;
    let said = [holder.rest(), standby.rest(), again.rest()].concat();
    assert!(said.iter().all(|line| !line.contains("credentials.refused")));
    expect_no_secret(&scene, &said.join("\n")).await;
}

#[tokio::test]
async fn a_token_that_is_revoked_is_renewed_once_and_nothing_fails() {
    let scene = Scene::new().await;
    let mut daemon = program(&scene, &scene.sim.oauth().mint_refresh_token()).start();
    daemon.until("cycle.finished").await;
    assert_eq!(granted(&scene), 1);
    scene.sim.oauth().revoke_access_tokens();
    scene.sim.hire("Rita", "Renewed");
    while daemon.until("cycle.finished").await["events"] == 0 {}
    assert_eq!(granted(&scene), 2);
    assert!(daemon.said.iter().all(|line| !line.contains("cycle.failed")), "{}", daemon.said.join("\n"));
}

#[tokio::test]
async fn a_refused_authorization_is_said_with_what_to_do_and_the_daemon_waits_for_a_new_one() {
    let scene = Scene::new().await;
    scene.sim.oauth().lifetime(LIFETIME);
    let mut program = program(&scene, &scene.sim.oauth().mint_refresh_token());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    scene.sim.oauth().revoke_all();
    let entry = daemon.until("credentials.refused").await;
    assert_eq!(entry["level"], "ERROR");
    let error = entry["error"].as_str().unwrap();
    assert!(error.contains("rosterd auth login") && error.contains("invalid_grant"), "{error}");
    let unready = async {
        while program.probe("/readyz").await.0 != 503 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(STUCK, unready).await.expect("ready without a token");
    assert_eq!(program.probe("/livez").await.0, 200);
    let sync = program.call(&["sync"]).await;
    assert!(sync.expect(77).sentence().contains("rosterd auth login"), "{}", sync.stderr());
    let check = program.call(&["check"]).await;
    let said = check.expect(77).stdout();
    assert!(said.contains("✗ account") && said.contains("rosterd auth login"), "{said}");

    // A person gives their consent again; the daemon is told, and goes on.
    let (login, _) = login(&program, &[]).await;
    login.expect(0);
    daemon.until("cycle.finished").await;
    assert_eq!(program.probe("/readyz").await.0, 200);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));

    // So does a new first token in the settings, also when what is kept is refused.
    scene.sim.oauth().revoke_all();
    program.call(&["sync"]).await.expect(77);
    program.set("HARVEST_OAUTH_REFRESH_TOKEN", &scene.sim.oauth().mint_refresh_token());
    program.call(&["sync"]).await.expect(0);
    // An application that proves itself wrongly is another trouble, and what is kept opens with its own secret only.
    scene.sim.oauth().register(scene.sim.oauth().client_id(), "another-secret");
    scene.sim.oauth().revoke_access_tokens();
    let wrong = program.call(&["sync"]).await;
    assert!(wrong.expect(77).sentence().contains("client id and client secret"), "{}", wrong.stderr());
    program.set("HARVEST_OAUTH_CLIENT_SECRET", "another-secret").set("HARVEST_OAUTH_REFRESH_TOKEN", "");
    let sealed = program.call(&["sync"]).await;
    assert!(
        sealed.expect(77).sentence().contains("sealed with another client secret"),
        "{}",
        sealed.stderr()
    );
    expect_no_secret(&scene, &daemon.said.join("\n")).await;
}

#[tokio::test]
async fn an_identity_host_in_trouble_costs_nothing_while_the_token_lasts() {
    let scene = Scene::new().await;
    scene.sim.oauth().lifetime(2 * LIFETIME);
    let mut daemon = program(&scene, &scene.sim.oauth().mint_refresh_token()).start();
    daemon.until("cycle.finished").await;
    scene.sim.inject(Fault::html(503).on("/oauth2/token").forever());
    daemon.until_said("the old one still works").await;
    let failed = daemon.until("cycle.failed").await;
    assert!(failed["error"].as_str().unwrap().contains("could not be renewed"), "{failed}");
    scene.sim.clear_faults();
    daemon.until("cycle.finished").await;
    assert!(daemon.said.iter().all(|line| !line.contains("credentials.refused")));
}

#[tokio::test]
async fn html_refusal_by_the_identity_host_names_what_was_seen_and_blames_no_credential() {
    let scene = Scene::new().await;
    let program = program(&scene, &scene.sim.oauth().mint_refresh_token());
    for status in [403, 404] {
        scene.sim.inject(Fault::html(status).on("/oauth2/token").forever());
        let said = program.call(&["sync"]).await.expect(69).sentence();
        assert!(said.contains(&status.to_string()) && said.contains("text/html"), "{said}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_renewal_does_not_lose_what_harvest_has_given() {
    let scene = Scene::new().await;
    scene.sim.oauth().lifetime(LIFETIME);
    scene.sim.oauth().rotate(true);
    let program = program(&scene, &scene.sim.oauth().mint_refresh_token());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let before = granted(&scene);
    scene.sim.inject(Fault::slow_answer(Duration::from_secs(2)).on("/oauth2/token").times(1));
    until_granted(&scene, before + 1).await;
    // Another process is at it before the answer is there: it waits, and goes on with what that brings.
    daemon.signal("-TERM");
    let sync = program.call(&["sync"]).await;
    assert_eq!(daemon.ended().await, Some(0));
    sync.expect(0);
    assert_eq!(refused(&scene), 0);
    assert_eq!(scene.sim.oauth().most_in_flight(), 1);
}

#[tokio::test]
async fn tokens_that_could_not_be_stored_are_not_used_and_not_lost() {
    let scene = Scene::new().await;
    scene.sim.oauth().lifetime(LIFETIME);
    scene.sim.oauth().rotate(true);
    let mut daemon = program(&scene, &scene.sim.oauth().mint_refresh_token()).start();
    daemon.until("cycle.finished").await;
    scene
        .execute(
            "CREATE FUNCTION roster.full() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.ciphertext IS DISTINCT FROM OLD.ciphertext THEN
                    RAISE 'no space left' USING ERRCODE = 'disk_full'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER full_disk BEFORE UPDATE ON roster.credentials
                FOR EACH ROW EXECUTE FUNCTION roster.full()",
        )
        .await;
    let failed = daemon.until("cycle.failed").await;
    assert!(failed["error"].as_str().unwrap().contains("kept in the database"), "{failed}");
    let asked = granted(&scene);
    daemon.until("cycle.failed").await;
    assert_eq!(granted(&scene), asked, "those it has are good, only not stored");
    scene.execute("DROP TRIGGER full_disk ON roster.credentials").await;
    daemon.until("cycle.finished").await;
    assert_eq!(refused(&scene), 0);
}

/// `rosterd auth login`, and a person whose browser follows the page that it prints.
#[expect(clippy::disallowed_methods, reason = "a browser follows redirects")]
async fn login(program: &Program, arguments: &[&str]) -> (Called, String) {
    // The browser speaks no TLS here, and its client still wants to know who would. Fails where somebody said it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut command = program.command(&[&["auth", "login", "--port", "0"], arguments].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let read = tokio::task::spawn_blocking(move || {
        let mut page = String::new();
        stdout.read_line(&mut page).unwrap();
        (page, stdout)
    });
    let (page, stdout) = read.await.unwrap();
    let mut answer = String::new();
    if !page.is_empty() {
        let page: url::Url = page.trim().parse().unwrap();
        let asked = |key: &str| page.query_pairs().find(|(name, _)| name == key).unwrap().1.into_owned();
        // The simulator holds us to it when the code is redeemed.
        assert_eq!((asked("code_challenge_method").as_str(), asked("code_challenge").len()), ("S256", 43));
        // Somebody else's answer first: it is none of ours.
        let back = asked("redirect_uri");
        let forged = reqwest::get(format!("{back}?code=forged&state=forged")).await.unwrap();
        assert_eq!(forged.status(), 400);
        answer = reqwest::get(page).await.unwrap().text().await.unwrap();
    }
    let ended = tokio::task::spawn_blocking(move || {
        drop(stdout);
        child.wait_with_output().unwrap()
    });
    (Called(tokio::time::timeout(STUCK, ended).await.expect("stuck").unwrap()), answer)
}

#[tokio::test]
async fn a_person_says_yes_and_the_account_is_found_by_itself() {
    let scene = Scene::new().await;
    let mut program = program(&scene, "");
    let account = scene.sim.account_id();
    program.call(&["sync"]).await.expect(77);
    program.set("HARVEST_ACCOUNT_ID", "");
    let nobody = program.call(&["sync"]).await;
    assert!(nobody.expect(78).sentence().contains("rosterd auth login"), "{}", nobody.stderr());

    let (called, page) = login(&program, &[]).await;
    let said = called.expect(0).sentence();
    assert!(said.contains(&format!("HARVEST_ACCOUNT_ID={account}")), "{said}");
    assert!(page.contains("close this page"), "{page}");
    program.set("HARVEST_ACCOUNT_ID", &account.to_string());
    program.call(&["sync"]).await.expect(0);
    scene.expect_right().await;
    expect_no_secret(&scene, &called.stderr()).await;
}

#[tokio::test]
async fn a_person_who_says_no_or_may_not_enter_changes_nothing() {
    let scene = Scene::new().await;
    let mut program = program(&scene, "");
    scene.sim.oauth().person_refuses(true);
    let (called, page) = login(&program, &[]).await;
    assert!(called.expect(77).sentence().contains("access_denied"), "{}", called.stderr());
    assert!(page.contains("nothing was changed"), "{page}");
    scene.sim.oauth().person_refuses(false);

    let id = scene.sim.account_id();
    scene.sim.oauth().accounts([Account::forecast(id, "Ours in Forecast"), Account::harvest(7, "Another")]);
    let (called, _) = login(&program, &[]).await;
    assert!(
        called.expect(77).sentence().contains(&format!("may not enter account {id}, but 7")),
        "{}",
        called.stderr()
    );

    scene.sim.oauth().accounts([Account::harvest(7, "Seven"), Account::harvest(id, "Ours")]);
    program.set("HARVEST_ACCOUNT_ID", "");
    let (called, _) = login(&program, &[]).await;
    assert!(called.expect(78).sentence().contains("7 (Seven)"), "{}", called.stderr());
    assert_eq!(scene.number("SELECT count(*) FROM roster.credentials").await, 0);
    let (called, _) = login(&program, &["--account", &id.to_string()]).await;
    called.expect(0);
    assert_eq!(scene.number("SELECT count(*) FROM roster.credentials").await, 1);

    program.set("HARVEST_OAUTH_CLIENT_SECRET", "wrong");
    let (called, _) = login(&program, &["--account", &id.to_string()]).await;
    assert!(called.expect(77).sentence().contains("client secret"), "{}", called.stderr());
}

#[tokio::test]
async fn a_database_without_the_schema_keeps_no_tokens_and_says_so() {
    let scene = Scene::new().await;
    let blank = crate::database::TestDatabase::blank().await;
    let mut program = program(&scene, &scene.sim.oauth().mint_refresh_token());
    program.set("DATABASE_URL", blank.url());
    for command in [&["check"][..], &["sync", "--dry-run"]] {
        let called = program.call(command).await;
        assert_ne!(called.0.status.code(), Some(0));
        let said = called.stdout() + &called.sentence();
        assert!(said.contains("rosterd migrate"), "{said}");
    }
    assert_eq!(granted(&scene), 0, "a token that cannot be kept is not asked for");
}
