//! Writes to Harvest from the command line and by SQL: what is sent, what mirror, outbox and journal then hold, and what the
//! settings refuse or hold.

use harvest_sim::{Fault, UserId};
use rosterd::store::writes::WriteSelection;
use serde_json::{Value, json};

use crate::program::{Called, Program};
use crate::scene::Scene;

/// Every permission.
const ALL: &str = "create, update, deactivate, reactivate, assign, unassign, delete, access_roles, rates";

/// A program that may write everything, after its first read.
async fn writing_program(scene: &Scene) -> Program {
    let mut program = scene.program();
    program.set("ROSTERD__WRITE__MODE", "on").set("ROSTERD__WRITE__ALLOW", ALL);
    program.call(&["sync"]).await.expect(0);
    program
}

fn email(scene: &Scene, user: UserId) -> String {
    scene.sim.users_json().into_iter().find(|it| it["id"] == user.0).unwrap()["email"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn writes(called: &Called) -> Vec<Value> {
    let document: Value = serde_json::from_str(&called.stdout()).unwrap();
    document["writes"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_is_created_updated_deactivated_and_reactivated_through_the_running_daemon() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;

    let create = ["user", "create", "--email", "Nora.New@Example.com", "--first", "Nora", "--last", "New"];
    let created = program.call(&[&create[..], &["--yes", "--json"]].concat()).await;
    let id = writes(created.expect(0))[0]["user_id"].as_i64().unwrap();
    assert_eq!(scene.sim.invitations().len(), 1);
    let id = id.to_string();
    program.call(&["user", "update", "nora.new@example.com", "--last", "Old", "--yes"]).await.expect(0);
    let again = program.call(&["user", "update", &id, "--last", "Old", "--yes", "--json"]).await;
    assert_eq!(writes(again.expect(0))[0]["state"], "unchanged");
    program
        .call(&["assignment", "add", &id, &scene.sim.project_ids()[0].to_string(), "--yes"])
        .await
        .expect(0);
    program.call(&["user", "deactivate", &id, "--yes"]).await.expect(0);
    let archived =
        format!("SELECT count(*) = 1 FROM roster.user_assignments WHERE user_id = {id} AND NOT is_active");
    scene.until(archived).await;
    program.call(&["user", "reactivate", &id, "--yes"]).await.expect(0);
    let project = scene.sim.project_ids()[0];
    let user = format!("/v2/users/{id}");
    assert_eq!(
        scene.sent(),
        [
            "POST /v2/users".to_owned(),
            format!("PATCH {user}"),
            format!("POST /v2/projects/{project}/user_assignments"),
            format!("PATCH {user}"),
            format!("PATCH {user}"),
        ]
    );
    let events = sqlx::query_as::<_, (String, String, String)>(
        "SELECT type, payload ->> 'mode', payload ->> 'request' FROM roster.outbox
          WHERE record_id = $1 AND aggregatetype = 'user' ORDER BY seq",
    )
    .bind(id.parse::<i64>().unwrap())
    .fetch_all(scene.store.pool())
    .await
    .unwrap();
    let expected = ["user.created POST /v2/users".to_owned()].into_iter().chain(
        ["user.updated", "user.deactivated", "user.reactivated"].map(|kind| format!("{kind} PATCH {user}")),
    );
    assert!(events.iter().all(|(_, mode, _)| mode == "write"), "{events:?}");
    let events: Vec<String> =
        events.into_iter().map(|(kind, _, request)| format!("{kind} {request}")).collect();
    assert_eq!(events, expected.collect::<Vec<_>>());
    scene.expect_right().await;
    // The journal keeps names of fields and no values.
    assert_eq!(scene.number("SELECT count(*) FROM roster.writes WHERE wanted IS NOT NULL").await, 0);
    let journal = program.call(&["writes", "list"]).await.expect(0).stdout();
    assert_eq!(journal.lines().count(), 6, "{journal}");
    assert!(!journal.contains('@') || !journal.to_lowercase().contains("nora"), "{journal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_without_a_daemon_sends_the_write_itself() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let user = scene.any_user();
    program.call(&["user", "deactivate", &email(&scene, user), "--yes"]).await.expect(0);
    assert_eq!(scene.sent(), [format!("PATCH /v2/users/{user}")]);
    scene.expect_right().await;
    // A deactivation is sent although the mirror says that it is done: the mirror may be a minute old.
    program.call(&["user", "deactivate", &user.to_string(), "--yes"]).await.expect(0);
    assert_eq!(scene.sent().len(), 1);
    // Names of an archived user are locked at Harvest.
    let update = program.call(&["user", "update", &user.to_string(), "--first", "X", "--yes"]).await;
    assert!(update.expect(77).stdout().contains("reactivate the user first"), "{}", update.stdout());
    assert!(scene.sent().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_off_by_default_and_dry_writes_are_journalled_and_not_sent() {
    let scene = Scene::without_limit().await;
    let mut program = scene.program();
    program.call(&["sync"]).await.expect(0);
    let user = scene.any_user().to_string();
    let deactivate = ["user", "deactivate", user.as_str(), "--yes"];
    let off = program.call(&deactivate).await;
    assert!(off.expect(77).sentence().contains("write.mode is \"off\""), "{}", off.sentence());
    program.set("ROSTERD__WRITE__MODE", "dry");
    let plan = program.call(&["user", "deactivate", &user, "--dry-run"]).await;
    assert!(plan.expect(0).stdout().contains(&format!("would deactivate user {user}")), "{}", plan.stdout());
    assert_eq!(scene.number("SELECT count(*) FROM roster.writes").await, 0, "--dry-run leaves no row");
    let dry = program.call(&deactivate).await;
    assert!(dry.expect(0).stdout().contains(": planned"), "{}", dry.stdout());
    program.set("ROSTERD__WRITE__MODE", "on").set("ROSTERD__WRITE__ALLOW", "create");
    let refused = program.call(&deactivate).await;
    assert!(
        refused.expect(77).stdout().contains("write.allow does not have \"deactivate\""),
        "{}",
        refused.stdout()
    );
    let program = writing_program(&scene).await;
    let owner = scene.sim.token_owner().to_string();
    let owner = program.call(&["user", "deactivate", &owner, "--yes"]).await;
    assert!(owner.expect(77).stdout().contains("owns rosterd's token"), "{}", owner.stdout());
    scene.sim.expect_no_writes();
}

#[tokio::test(flavor = "multi_thread")]
async fn harvests_refusals_are_explained_and_leave_the_mirror_as_it_is() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let (user, project) = (scene.any_user(), scene.sim.project_ids()[0]);
    scene.sim.track_time(user, project);
    let delete = program.call(&["user", "delete", &user.to_string(), "--yes"]).await;
    assert!(delete.expect(77).stdout().contains("refused (422)"), "{}", delete.stdout());
    let taken = email(&scene, user).to_uppercase();
    let create =
        program.call(&["user", "create", "--email", &taken, "--first", "A", "--last", "B", "--yes"]).await;
    assert!(
        create.expect(77).stdout().contains(&format!("user {user} has this e-mail address")),
        "{}",
        create.stdout()
    );
    assert_eq!(scene.sent(), [format!("DELETE /v2/users/{user}")]);
    assert!(scene.sim.invitations().is_empty());
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_without_time_is_deleted_after_a_confirmed_404() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let user = scene.sim.create_user("Dora", "Deleted");
    program.call(&["sync"]).await.expect(0);
    program.call(&["user", "delete", &user.to_string(), "--yes"]).await.expect(0);
    assert_eq!(scene.sent(), [format!("DELETE /v2/users/{user}")]);
    let deleted =
        "SELECT count(*) FROM roster.outbox WHERE type = 'user.deleted' AND payload ->> 'mode' = 'write'";
    assert_eq!(scene.number(deleted).await, 1);
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assignment_is_added_changed_and_removed_in_both_ways() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let user = scene.sim.create_user("Petra", "Project").to_string();
    let project = scene.sim.new_project("Website", "WEB").to_string();
    // The mirror knows a project by its assignments.
    scene.sim.assign(scene.any_user(), harvest_sim::ProjectId(project.parse().unwrap()));
    program.call(&["sync"]).await.expect(0);
    let call = async |arguments: &[&str]| {
        let called = program.call(&[arguments, &["--yes"]].concat()).await;
        called.expect(0).stdout()
    };
    call(&["assignment", "add", &user, "web"]).await;
    assert!(call(&["assignment", "add", &user, &project]).await.contains(": unchanged"));
    call(&["assignment", "update", &user, "Website", "--manager", "--rate", "120.50"]).await;
    let changed = "SELECT count(*) FROM roster.user_assignments AS it JOIN roster.projects ON projects.id = project_id
                    WHERE code = 'WEB' AND is_project_manager AND hourly_rate = 120.5 AND NOT use_default_rates";
    assert_eq!(scene.number(changed).await, 1);
    call(&["assignment", "remove", &user, "WEB", "--archive"]).await;
    call(&["assignment", "remove", &user, "WEB"]).await;
    let methods: Vec<_> = scene.sim.take_writes().into_iter().map(|it| it.method).collect();
    assert_eq!(methods, ["POST", "PATCH", "PATCH", "DELETE"]);
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn created_user_whose_answer_was_lost_is_found_and_not_created_again() {
    let scene = Scene::without_limit().await;
    let mut program = writing_program(&scene).await;
    program.set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "1s");
    scene.sim.inject(Fault::reset().after_processing().on("POST /v2/users"));
    let create =
        ["user", "create", "--email", "lost@example.com", "--first", "L", "--last", "O", "--yes", "--json"];
    let created = program.call(&create).await;
    assert_eq!(writes(created.expect(0))[0]["state"], "done");
    assert_eq!((scene.sent().len(), scene.sim.invitations().len()), (1, 1));
    scene.expect_right().await;

    // The same for a change, and for a 500 after the change.
    let user = scene.any_user().to_string();
    scene.sim.inject(Fault::html(500).after_processing().on("PATCH /v2/users"));
    program.call(&["user", "deactivate", &user, "--yes"]).await.expect(0);
    assert_eq!(scene.sent().len(), 1, "the change was found");
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_that_never_reached_harvest_is_lost_for_a_creation_and_repeated_for_a_change() {
    let scene = Scene::without_limit().await;
    let mut program = writing_program(&scene).await;
    program.set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "500ms").set("ROSTERD__SYNC__SKEW_BUFFER", "2s");
    scene.sim.inject(Fault::reset().on("POST /v2/users"));
    let create = ["user", "create", "--email", "lost@example.com", "--first", "L", "--last", "O", "--yes"];
    let lost = program.call(&create).await;
    assert!(lost.expect(75).stdout().contains(": lost"), "{}", lost.stdout());
    assert!(scene.sim.invitations().is_empty());
    program.call(&create).await.expect(0);
    assert_eq!((scene.sent().len(), scene.sim.invitations().len()), (2, 1));
    let user = scene.any_user().to_string();
    scene.sim.inject(Fault::reset().on("PATCH /v2/users"));
    program.call(&["user", "deactivate", &user, "--yes"]).await.expect(0);
    assert_eq!(scene.sent().len(), 2);
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivations_by_sql_beyond_the_guard_are_held_until_a_person_accepts_them() {
    let scene = Scene::without_limit().await;
    let mut program = writing_program(&scene).await;
    program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "2");
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    let owner = scene.sim.token_owner();
    // The deactivation of an archived user takes access from no user, and does not count.
    let is_active =
        |id: &UserId| scene.sim.users_json().iter().any(|it| it["id"] == id.0 && it["is_active"] == true);
    let users = scene.sim.user_ids().into_iter().filter(|id| *id != owner && is_active(id));
    let users: Vec<_> = users.take(4).collect();
    for user in &users {
        scene
            .execute(format!(
                "SELECT roster.write_ask({}, 'user_deactivate', {user})",
                scene.sim.account_id()
            ))
            .await;
    }
    daemon.until("write.held").await;
    scene.until("SELECT count(*) = 2 FROM roster.writes WHERE outcome = 'done'").await;
    scene.until("SELECT count(*) = 2 FROM roster.writes WHERE held_at IS NOT NULL").await;
    assert_eq!(scene.sent().len(), 2);
    let wrong = program.call(&["writes", "accept", "--all", "1", "--yes"]).await;
    assert!(wrong.expect(1).sentence().contains("another number"), "{}", wrong.sentence());
    let held = writes(program.call(&["writes", "list", "--held", "--json"]).await.expect(0));
    program.call(&["writes", "accept", held[0]["id"].as_str().unwrap(), "--yes"]).await.expect(0);
    program.call(&["writes", "reject", held[1]["id"].as_str().unwrap()]).await.expect(0);
    scene.until("SELECT count(*) = 3 FROM roster.writes WHERE outcome = 'done'").await;
    assert_eq!(scene.number("SELECT count(*) FROM roster.writes WHERE outcome = 'rejected'").await, 1);
    assert_eq!(scene.sent().len(), 1);
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_and_foreign_requests_by_sql_are_refused_without_a_request_to_harvest() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let owner = scene.sim.token_owner().0;
    let user = scene.any_user().0;
    let assignments = scene.sim.assignments_json();
    let of = |user: i64| assignments.iter().find(|it| it["user"]["id"] == user).unwrap();
    let theirs = of(owner);
    let account = scene.sim.account_id();
    for (kind, project, assignment, wanted) in [
        ("user_update", Value::Null, Value::Null, json!({"is_admin": true})),
        ("user_update", Value::Null, Value::Null, json!([1])),
        ("user_update", Value::Null, Value::Null, json!({"email": "no address"})),
        // An assignment of the token's owner in the name of another user.
        ("assignment_archive", theirs["project"]["id"].clone(), theirs["id"].clone(), json!({})),
    ] {
        let ask = format!(
            "SELECT roster.write_ask({account}, '{kind}', {user}, {}, {}, '{wanted}')",
            if project.is_null() { "NULL".to_owned() } else { project.to_string() },
            if assignment.is_null() { "NULL".to_owned() } else { assignment.to_string() },
        );
        scene.execute(ask).await;
    }
    let foreign = "SELECT roster.write_ask(42, 'user_deactivate', 5)";
    let error = sqlx::query(foreign).execute(scene.store.pool()).await.unwrap_err();
    assert!(error.to_string().contains("no account 42"), "{error}");
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    scene.until("SELECT count(*) = 4 FROM roster.writes WHERE outcome = 'refused' AND error <> ''").await;
    scene.sim.expect_no_writes();
}

#[tokio::test]
async fn journal_lists_a_thousand_writes_and_every_write_that_is_named() {
    let scene = Scene::without_limit().await;
    let insert = "INSERT INTO roster.writes (account_id, kind, user_id, fields, actor, done_at, outcome)
                  SELECT 1, 'user_deactivate', id, '{}', 'sql:test', now(), 'done' FROM generate_series(1, 1200) AS id";
    scene.execute(insert).await;
    let ids = sqlx::query_scalar("SELECT id FROM roster.writes").fetch_all(scene.store.pool()).await.unwrap();
    let listed = async |selection| scene.store.list_writes(&selection).await.unwrap().len();
    assert_eq!(listed(WriteSelection::default()).await, 1000);
    assert_eq!(listed(WriteSelection { ids, ..WriteSelection::default() }).await, 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_write_is_not_sent_and_equal_requests_are_one_write() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let (account, user) = (scene.sim.account_id(), scene.any_user());
    let ask = format!("SELECT roster.write_ask({account}, 'user_deactivate', {user})::text");
    let ask = async || {
        sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(ask.clone()))
            .fetch_one(scene.store.pool())
            .await
            .unwrap()
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!(first, second);
    scene.execute(format!("SELECT roster.write_withdraw('{first}')")).await;
    let third = ask().await;
    assert_ne!(first, third);
    let daemon = program.start();
    scene.until("SELECT count(*) = 1 FROM roster.writes WHERE outcome = 'done'").await;
    assert_eq!(scene.number("SELECT count(*) FROM roster.writes WHERE outcome = 'withdrawn'").await, 1);
    assert_eq!(scene.sent().len(), 1);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn later_request_is_not_joined_to_an_earlier_one_that_another_write_follows() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene).await;
    let (account, user) = (scene.sim.account_id(), scene.any_user());
    let ask = async |kind: &str| {
        let ask = format!("SELECT roster.write_ask({account}, '{kind}', {user})::text");
        sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(ask)).fetch_one(scene.store.pool()).await.unwrap()
    };
    let (first, between, last) =
        (ask("user_deactivate").await, ask("user_reactivate").await, ask("user_deactivate").await);
    assert!(first != between && first != last);
    let _daemon = program.start();
    scene.until("SELECT count(*) = 3 FROM roster.writes WHERE done_at IS NOT NULL").await;
    let archived = "SELECT count(*) FROM roster.users WHERE NOT is_active AND version > 1";
    assert_eq!(scene.number(archived).await, 1);
    assert_eq!(scene.sent().len(), 3);
    scene.expect_right().await;
}
