//! Whom a write trusts: the company that the account shows, Harvest's 404, and a person who asks for it.

use std::time::Duration;

use harvest_sim::{Company, Fault};
use tokio::time::{Instant, sleep};

use crate::program::{Program, STUCK};
use crate::scene::Scene;
use crate::write_failures::started;

/// A mirror, and a program that may write everything.
async fn mirrored() -> (Scene, Program) {
    let scene = Scene::without_limit().await;
    let mut program = scene.program();
    program
        .set("ROSTERD__WRITE__MODE", "on")
        .set("ROSTERD__WRITE__ALLOW", "create, update, deactivate, delete, roles");
    program.call(&["sync"]).await.expect(0);
    (scene, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_at_another_company_wait() {
    let (scene, program) = mirrored().await;
    let company = Company::seeded_with_other_ids(6, 20, 40).with_name("Another Works");
    let first = scene.sim.replace_company(company);
    // A poll would show this user. The write must not store the user either.
    scene.sim.edit_user(scene.sim.user_ids()[3], |_| {});
    let events = scene.number("SELECT count(*) FROM roster.outbox").await;
    let mut daemon = started(&program).await;
    scene
        .execute(format!(
            "SELECT roster.write_ask({0}, 'user_create', wanted =>
                 '{{\"email\": \"nora@example.com\", \"first_name\": \"Nora\", \"last_name\": \"New\"}}');
             SELECT roster.write_insert({0}, 'role_create', NULL, NULL, NULL, '{{\"name\": \"New\"}}', 'scim:okta')",
            scene.sim.account_id()
        ))
        .await;
    scene
        .until(
            "SELECT count(*) = 2 FROM roster.writes WHERE done_at IS NULL AND error LIKE '%another company%'",
        )
        .await;
    daemon.until("credentials.refused").await;
    assert!(scene.sent().is_empty());
    assert_eq!(scene.number("SELECT count(*) FROM roster.outbox").await, events);

    scene.sim.replace_company(first);
    scene.until("SELECT count(*) = 2 FROM roster.writes WHERE outcome = 'done'").await;
    let mut sent = scene.sent();
    sent.sort();
    assert_eq!(sent, ["POST /v2/roles", "POST /v2/users"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_is_created_at_a_company_that_was_renamed() {
    let (scene, program) = mirrored().await;
    let _daemon = started(&program).await;
    scene.sim.inject(Fault::set_field("name", "Renamed Works").on("/company").forever());
    let create =
        ["user", "create", "--email", "nora@example.com", "--first", "Nora", "--last", "New", "--yes"];
    program.call(&create).await.expect(0);
    assert_eq!(scene.sent(), ["POST /v2/users"]);
    scene.expect_right().await;
}

/// Harvest answers 404 to a token without the right to see a record.
#[tokio::test(flavor = "multi_thread")]
async fn not_found_by_a_token_that_lost_rights_deletes_no_user_and_no_role() {
    let (scene, program) = mirrored().await;
    let user = scene.any_user();
    let role = scene.sim.create_role("Design", &[user]);
    let mut program = program;
    program.set("ROSTERD__SCIM__GROUPS", "roles");
    program.call(&["sync"]).await.expect(0);
    scene.sim.set_token_role("manager");
    for path in [format!("/v2/users/{user}"), format!("/v2/roles/{role}")] {
        scene.sim.inject(Fault::refusal(404).on(&path).forever());
    }
    let _daemon = started(&program).await;
    scene
        .execute(format!(
            "SELECT roster.write_ask({0}, 'user_delete', {user});
             SELECT roster.write_insert({0}, 'role_delete', NULL, NULL, NULL, '{{}}', 'scim:okta', {role})",
            scene.sim.account_id()
        ))
        .await;
    scene
        .until(
            "SELECT count(*) = 2 FROM roster.writes WHERE outcome = 'lost' AND error LIKE '%administrator%'",
        )
        .await;
    assert_eq!(scene.number("SELECT count(*) FROM roster.outbox WHERE type LIKE '%.deleted'").await, 0);
    assert_eq!(scene.number("SELECT count(*) FROM roster.users WHERE deleted_at IS NOT NULL").await, 0);
    assert_eq!(scene.number("SELECT count(*) FROM roster.roles WHERE name = 'Design'").await, 1);
    assert_eq!(scene.sent(), [format!("DELETE /v2/users/{user}")]);
}

/// One of Harvest's replicas may not know a new user, so a 404 to the deletion is not enough.
#[tokio::test(flavor = "multi_thread")]
async fn user_whose_deletion_harvest_does_not_confirm_is_deleted_after_another_404() {
    let (scene, mut program) = mirrored().await;
    program.set("ROSTERD__SYNC__POLL_INTERVAL", "2s");
    let user = scene.sim.create_user("Dora", "Deleted");
    let _daemon = started(&program).await;
    scene.until(format!("SELECT count(*) = 1 FROM roster.users WHERE id = {user}")).await;
    // The request to delete the user and the first look reach a replica that does not know the user; later ones do not.
    let path = format!("/v2/users/{user}");
    scene.sim.inject(Fault::refusal(404).on(format!("DELETE {path}")));
    scene.sim.inject(Fault::refusal(404).on(format!("GET {path}")));
    scene
        .execute(format!("SELECT roster.write_ask({}, 'user_delete', {user})", scene.sim.account_id()))
        .await;
    let give_up = Instant::now() + STUCK;
    let looks =
        || scene.sim.requests().iter().filter(|it| it.method == "GET" && it.path.contains(&path)).count();
    while looks() < 2 {
        assert!(Instant::now() < give_up, "the user is not requested again");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scene.number("SELECT count(*) FROM roster.users WHERE deleted_at IS NOT NULL").await, 0);
    assert_eq!(scene.sent(), [format!("DELETE {path}")]);
}

/// Also before the guard has seen the request.
#[tokio::test(flavor = "multi_thread")]
async fn person_who_asks_for_what_a_program_requested_is_not_held_by_the_guard() {
    let (scene, mut program) = mirrored().await;
    program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "0").set("ROSTERD__WRITE__GUARD__FRACTION", "0");
    let (account, user) = (scene.sim.account_id(), scene.any_user());
    scene.execute(format!("SELECT roster.write_ask({account}, 'user_deactivate', {user})")).await;
    program.call(&["user", "deactivate", &user.to_string(), "--yes"]).await.expect(0);
    assert_eq!(scene.sent(), [format!("PATCH /v2/users/{user}")]);
    let done = "SELECT count(*) FROM roster.writes WHERE outcome = 'done'";
    assert_eq!(scene.number(done).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_that_cannot_be_read_is_refused_and_the_others_are_sent() {
    let (scene, program) = mirrored().await;
    let (account, user) = (scene.sim.account_id(), scene.any_user());
    let nested = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let unreadable = [
        r#"{"telephone": 1e400}"#,
        &nested,
        r#"{"$serde_json::private::RawValue": "{\"telephone\": \"1\"}"}"#,
    ];
    for (wanted, other) in unreadable.into_iter().zip(user.0 + 1_000_000..) {
        let ask = format!("SELECT roster.write_ask({account}, 'user_update', {other}, wanted => '{wanted}')");
        scene.execute(ask).await;
    }
    scene.execute(format!("SELECT roster.write_ask({account}, 'user_deactivate', {user})")).await;
    let mut daemon = program.start();
    daemon.until_entry("write.finished", |entry| entry["kind"] == "unreadable").await;
    scene
        .until(
            "SELECT count(*) = 3 FROM roster.writes WHERE outcome = 'refused' AND error ~ 'nested|reserved'",
        )
        .await;
    scene.until("SELECT count(*) = 1 FROM roster.writes WHERE outcome = 'done'").await;
    assert_eq!(scene.sent(), [format!("PATCH /v2/users/{user}")]);
}
