//! OAuth2: tokens expire, one process at a time renews them, and a login with consent brings the first tokens.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use harvest_sim::{Account, Fault, Grant, Outcome, Refusal};

use crate::program::{Called, Program, STUCK};
use crate::scene::Scene;

const TOKEN_LIFETIME: Duration = Duration::from_secs(4);

/// A program that uses OAuth2, with a first refresh token in its settings.
fn program(scene: &Scene, refresh_token: &str) -> Program {
    let mut program = scene.program();
    program
        .set("HARVEST_ACCESS_TOKEN", "")
        .set("HARVEST_OAUTH_CLIENT_ID", &scene.sim.oauth().client_id())
        .set("HARVEST_OAUTH_CLIENT_SECRET", &scene.sim.oauth().client_secret())
        .set("HARVEST_OAUTH_REFRESH_TOKEN", refresh_token)
        .set("ROSTERD__HARVEST__IDENTITY_URL", scene.sim.identity_url())
        // If a process is killed during a renewal, the others wait for slightly longer than this timeout.
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "5s")
        .set("RUST_LOG", "trace");
    program
}

fn granted_renewals(scene: &Scene) -> usize {
    scene.sim.oauth().count(Grant::RefreshToken, Outcome::Granted)
}

fn refused_renewals(scene: &Scene) -> usize {
    scene.sim.oauth().count(Grant::RefreshToken, Outcome::Refused(Refusal::InvalidGrant))
}

/// Waits until Harvest has granted `count` renewals since its start and the newest tokens are stored. A process that is killed
/// between the two loses its tokens, as `daemon::token_renewal` says.
async fn until_granted(scene: &Scene, count: usize) {
    let until_count = async {
        while granted_renewals(scene) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(STUCK, until_count).await.expect("too few renewals");
    scene.until("SELECT claimed_by IS NULL FROM roster.credentials").await;
}

/// No code, token or secret is in `output`, and the database holds none in clear.
async fn expect_no_secret(scene: &Scene, output: &str) {
    let stored: String =
        sqlx::query_scalar("SELECT string_agg(encode(ciphertext, 'escape'), '') FROM roster.credentials")
            .fetch_one(scene.store.pool())
            .await
            .unwrap();
    assert!(!stored.is_empty());
    for secret in scene.sim.oauth().secrets() {
        assert!(!output.contains(&secret), "a secret was printed");
        assert!(!stored.contains(&secret), "a secret is stored in clear");
    }
}

#[tokio::test]
async fn rotating_tokens_survive_restarts_and_serve_every_replica() {
    let scene = Scene::new().await;
    scene.sim.oauth().set_token_lifetime(TOKEN_LIFETIME);
    scene.sim.oauth().rotate(true);
    let first = scene.sim.oauth().issue_refresh_token();
    let (one, two) = (program(&scene, &first), program(&scene, &first));
    let mut holder = one.start();
    holder.until("cycle.finished").await;
    let mut standby = two.start();
    standby.until("daemon.started").await;
    until_granted(&scene, 2).await;

    // The first token has expired long ago. Each process continues with the stored tokens, however the last process
    // ended.
    holder.signal("-KILL");
    holder.ended().await;
    standby.until("lease.acquired").await;
    until_granted(&scene, 4).await;
    let mut restarted = one.start();
    restarted.until("daemon.started").await;
    standby.signal("-TERM");
    assert_eq!(standby.ended().await, Some(0));
    restarted.until("lease.acquired").await;
    until_granted(&scene, 5).await;
    for command in [&["sync", "--full"][..], &["check"], &["verify"]] {
        one.call(command).await.expect(0);
    }
    restarted.signal("-TERM");
    assert_eq!(restarted.ended().await, Some(0));
    one.call(&["sync"]).await.expect(0);

    assert_eq!(refused_renewals(&scene), 0, "no refresh token was used twice");
    assert_eq!(scene.sim.oauth().max_in_flight(), 1);
    scene.expect_right().await;
    let log = [holder.rest(), standby.rest(), restarted.rest()].concat();
    assert!(log.iter().all(|line| !line.contains("credentials.refused")));
    expect_no_secret(&scene, &log.join("\n")).await;
}

#[tokio::test]
async fn revoked_access_token_is_renewed_once_and_no_cycle_fails() {
    let scene = Scene::new().await;
    let mut daemon = program(&scene, &scene.sim.oauth().issue_refresh_token()).start();
    daemon.until("cycle.finished").await;
    assert_eq!(granted_renewals(&scene), 1);
    scene.sim.oauth().revoke_access_tokens();
    scene.sim.create_user("Rita", "Renewed");
    while daemon.until("cycle.finished").await["events"] == 0 {}
    assert_eq!(granted_renewals(&scene), 2);
    assert!(daemon.said.iter().all(|line| !line.contains("cycle.failed")), "{}", daemon.said.join("\n"));
}

#[tokio::test]
async fn revoked_authorization_is_reported_with_advice_and_a_new_login_restores_the_daemon() {
    let scene = Scene::new().await;
    scene.sim.oauth().set_token_lifetime(TOKEN_LIFETIME);
    let mut program = program(&scene, &scene.sim.oauth().issue_refresh_token());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    scene.sim.oauth().revoke_all();
    let entry = daemon.until("credentials.refused").await;
    assert_eq!(entry["level"], "ERROR");
    let error = entry["error"].as_str().unwrap();
    assert!(error.contains("rosterd auth login") && error.contains("invalid_grant"), "{error}");
    program.until_ready(503).await;
    assert_eq!(program.probe("/livez").await.0, 200);
    let sync = program.call(&["sync"]).await;
    assert!(sync.expect(77).sentence().contains("rosterd auth login"), "{}", sync.stderr());
    let check = program.call(&["check"]).await;
    let checks = check.expect(77).stdout();
    assert!(checks.contains("✗ account") && checks.contains("rosterd auth login"), "{checks}");

    // After a new login the daemon gets a notification and continues.
    let (login, _) = login(&program, &[]).await;
    login.expect(0);
    daemon.until("cycle.finished").await;
    program.until_ready(200).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));

    // A new refresh token in the settings works as well, even if Harvest refuses the stored one.
    scene.sim.oauth().revoke_all();
    program.call(&["sync"]).await.expect(77);
    program.set("HARVEST_OAUTH_REFRESH_TOKEN", &scene.sim.oauth().issue_refresh_token());
    program.call(&["sync"]).await.expect(0);
    // A wrong client secret is a separate error. The stored tokens can be decrypted only with the secret that sealed
    // them.
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
async fn identity_host_failure_fails_no_cycle_until_the_token_expires() {
    let scene = Scene::new().await;
    scene.sim.oauth().set_token_lifetime(2 * TOKEN_LIFETIME);
    let mut daemon = program(&scene, &scene.sim.oauth().issue_refresh_token()).start();
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
async fn html_refusal_by_the_identity_host_is_reported_with_status_and_content_type() {
    let scene = Scene::new().await;
    let program = program(&scene, &scene.sim.oauth().issue_refresh_token());
    for status in [403, 404] {
        scene.sim.inject(Fault::html(status).on("/oauth2/token").forever());
        let error = program.call(&["sync"]).await.expect(69).sentence();
        assert!(error.contains(&status.to_string()) && error.contains("text/html"), "{error}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn sigterm_during_a_token_renewal_keeps_the_new_tokens() {
    let scene = Scene::new().await;
    scene.sim.oauth().set_token_lifetime(TOKEN_LIFETIME);
    scene.sim.oauth().rotate(true);
    let program = program(&scene, &scene.sim.oauth().issue_refresh_token());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let before = granted_renewals(&scene);
    scene.sim.inject(Fault::slow_response(Duration::from_secs(2)).on("/oauth2/token").times(1));
    until_granted(&scene, before + 1).await;
    // Another process needs tokens before the answer arrives. It waits for the renewal and uses its result.
    daemon.signal("-TERM");
    let sync = program.call(&["sync"]).await;
    assert_eq!(daemon.ended().await, Some(0));
    sync.expect(0);
    assert_eq!(refused_renewals(&scene), 0);
    assert_eq!(scene.sim.oauth().max_in_flight(), 1);
}

#[tokio::test]
async fn tokens_that_could_not_be_stored_are_neither_used_nor_lost() {
    let scene = Scene::new().await;
    scene.sim.oauth().set_token_lifetime(TOKEN_LIFETIME);
    scene.sim.oauth().rotate(true);
    let mut daemon = program(&scene, &scene.sim.oauth().issue_refresh_token()).start();
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
    let renewals = granted_renewals(&scene);
    daemon.until("cycle.failed").await;
    assert_eq!(granted_renewals(&scene), renewals, "the daemon has valid tokens and only has to store them");
    scene.execute("DROP TRIGGER full_disk ON roster.credentials").await;
    daemon.until("cycle.finished").await;
    assert_eq!(refused_renewals(&scene), 0);
}

/// Runs `rosterd auth login` and opens the printed page as a browser does. Returns the result and the last page.
#[expect(clippy::disallowed_methods, reason = "a browser follows redirects")]
async fn login(program: &Program, arguments: &[&str]) -> (Called, String) {
    // The HTTP client needs a TLS provider even without TLS. The call fails if another test has set the provider
    // already.
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
        let parameter = |key: &str| page.query_pairs().find(|(name, _)| name == key).unwrap().1.into_owned();
        // The simulator checks the challenge when rosterd redeems the code.
        assert_eq!(
            (parameter("code_challenge_method").as_str(), parameter("code_challenge").len()),
            ("S256", 43)
        );
        // A forged answer, which rosterd must refuse.
        let redirect_uri = parameter("redirect_uri");
        let forged = reqwest::get(format!("{redirect_uri}?code=forged&state=forged")).await.unwrap();
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
async fn login_with_consent_finds_the_account() {
    let scene = Scene::new().await;
    let mut program = program(&scene, "");
    let account = scene.sim.account_id();
    program.call(&["sync"]).await.expect(77);
    program.set("HARVEST_ACCOUNT_ID", "");
    let without_account = program.call(&["sync"]).await;
    let sentence = without_account.expect(78).sentence();
    assert!(sentence.contains("rosterd auth login"), "{sentence}");

    let (called, page) = login(&program, &[]).await;
    let sentence = called.expect(0).sentence();
    assert!(sentence.contains(&format!("HARVEST_ACCOUNT_ID={account}")), "{sentence}");
    assert!(page.contains("close this page"), "{page}");
    program.set("HARVEST_ACCOUNT_ID", &account.to_string());
    program.call(&["sync"]).await.expect(0);
    scene.expect_right().await;
    expect_no_secret(&scene, &called.stderr()).await;
}

#[tokio::test]
async fn login_without_consent_or_access_changes_nothing() {
    let scene = Scene::new().await;
    let mut program = program(&scene, "");
    scene.sim.oauth().deny_consent(true);
    let (called, page) = login(&program, &[]).await;
    assert!(called.expect(77).sentence().contains("access_denied"), "{}", called.stderr());
    assert!(page.contains("nothing was changed"), "{page}");
    scene.sim.oauth().deny_consent(false);

    let id = scene.sim.account_id();
    scene.sim.oauth().accounts([Account::forecast(id, "Ours in Forecast"), Account::harvest(7, "Another")]);
    let (called, _) = login(&program, &[]).await;
    assert!(
        called.expect(77).sentence().contains(&format!("has no access to account {id}, only to 7")),
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
async fn database_without_the_schema_requests_no_tokens_and_advises_migrate() {
    let scene = Scene::new().await;
    let blank = crate::database::TestDatabase::blank().await;
    let mut program = program(&scene, &scene.sim.oauth().issue_refresh_token());
    program.set("DATABASE_URL", blank.url());
    for command in [&["check"][..], &["sync", "--dry-run"]] {
        let called = program.call(command).await;
        assert_ne!(called.0.status.code(), Some(0));
        let output = called.stdout() + &called.sentence();
        assert!(output.contains("rosterd migrate"), "{output}");
    }
    assert_eq!(granted_renewals(&scene), 0, "rosterd requests no token that it cannot store");
}
