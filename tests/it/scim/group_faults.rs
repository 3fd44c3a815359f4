//! Writes of job roles whose answer is lost.

use std::time::Duration;

use harvest_sim::Fault;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::groups::{expect_right, group, patch, users, with_groups};

const OPEN: &str = "SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL";

#[tokio::test(flavor = "multi_thread")]
async fn role_writes_without_an_answer_are_settled_and_none_is_sent_twice() {
    let directory = with_groups().await;
    let [first, second] = users(&directory);
    let _daemon = directory.start().await;
    directory.scene.sim.inject(Fault::lost_response().on("POST /v2/roles"));
    let created = directory.send("POST", "/Groups", group("Design", &[first])).await.expect(201);
    assert_eq!(created.body["members"][0]["value"], first.to_string());
    let path = format!("/Groups/{}", created.id());
    directory.scene.sim.inject(Fault::lost_response().on("PATCH /v2/roles"));
    let add = json!([{"op": "add", "path": "members", "value": [{"value": second.to_string()}]}]);
    directory.send("PATCH", &path, patch(&add)).await.expect(200);
    directory.scene.sim.inject(Fault::lost_response().on("DELETE /v2/roles"));
    directory.send_as(Some(super::WRITER), "DELETE", &path, None).await.expect(204);
    let methods: Vec<_> =
        directory.sent().into_iter().map(|it| it.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["POST", "PATCH", "DELETE"]);
    assert_eq!(directory.scene.number("SELECT count(*) FROM roster.writes WHERE outcome <> 'done'").await, 0);
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn role_write_whose_process_is_killed_is_settled_by_the_next_one() {
    let directory = with_groups().await;
    let [first, second] = users(&directory);
    let role = directory.scene.sim.create_role("Design", &[first]);
    let mut daemon = directory.start().await;
    let held = CancellationToken::new();
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on("PATCH /v2/roles"));
    let add = json!([{"op": "add", "path": "members", "value": [{"value": second.to_string()}]}]);
    let _waiting = directory.begin("PATCH", &format!("/Groups/{role}"), &patch(&add)).await;
    directory.scene.until_asked("/v2/roles").await;
    directory
        .scene
        .until("SELECT count(*) = 1 FROM roster.writes WHERE sent_at IS NOT NULL AND done_at IS NULL")
        .await;
    daemon.signal("-KILL");
    daemon.ended().await;
    held.cancel();
    assert_eq!(directory.sent(), [format!("PATCH /v2/roles/{role}")]);
    let _daemon = directory.program.start();
    directory.scene.until(OPEN).await;
    let done =
        "SELECT count(*) FROM roster.writes WHERE kind = 'role_update' AND outcome = 'done' AND attempts = 1";
    assert_eq!(directory.scene.number(done).await, 1);
    assert!(directory.sent().is_empty());
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_that_harvest_has_not_received_is_sent_with_the_users_that_the_role_has_then() {
    let directory = with_groups().await;
    let [first, second, third] = users(&directory);
    let role = directory.scene.sim.create_role("Design", &[first]);
    let _daemon = directory.start().await;
    // The request does not reach Harvest, and a person changes the role before rosterd tries again.
    let sim = directory.scene.sim.clone();
    directory.scene.sim.inject(Fault::html(429).on("PATCH /v2/roles"));
    sim.set_role_users(role, &[third]);
    let add = json!([{"op": "add", "path": "members", "value": [{"value": second.to_string()}]}]);
    directory.send("PATCH", &format!("/Groups/{role}"), patch(&add)).await.expect(200);
    let mut expected = vec![second, third];
    expected.sort_unstable();
    assert_eq!(directory.scene.sim.users_of_role("Design"), Some(expected));
    directory.sent();
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_that_was_asked_for_before_a_role_write_and_arrives_after_it_changes_nothing() {
    let directory = with_groups().await;
    let [first, second] = users(&directory);
    let sim = &directory.scene.sim;
    let (design, art) = (sim.create_role("Design", &[first]), sim.create_role("Art", &[first]));
    directory.program.call(&["sync"]).await.expect(0);
    // The list shows names that the mirror does not have.
    let older = |role: &mut Map<String, Value>| {
        if role["name"] == "Design" || role["name"] == "Art" {
            role["name"] = json!("Older");
        }
    };
    let held = CancellationToken::new();
    sim.inject(Fault::edit_records(older).on("GET /v2/roles?"));
    sim.inject(Fault::hold_response(held.clone()).on("GET /v2/roles?"));
    let mut daemon = directory.program.start();
    daemon.until("lease.acquired").await;
    directory.scene.until_asked("/v2/roles?").await;
    let add = json!([{"op": "add", "path": "members", "value": [{"value": second.to_string()}]}]);
    directory.send("PATCH", &format!("/Groups/{design}"), patch(&add)).await.expect(200);
    directory.send_as(Some(super::WRITER), "DELETE", &format!("/Groups/{art}"), None).await.expect(204);
    let lists =
        || sim.requests().iter().filter(|it| it.path.contains("/v2/roles?") && it.status.is_some()).count();
    let before = lists();
    held.cancel();
    // The held one, the next one, and one more, so that the next one is stored.
    let give_up = Instant::now() + Duration::from_mins(1);
    while lists() < before + 3 {
        assert!(Instant::now() < give_up, "no polls");
        sleep(Duration::from_millis(20)).await;
    }
    // Each has changed once, by the write.
    let versions = "SELECT sum(version)::bigint FROM roster.roles WHERE version > 1";
    assert_eq!(directory.scene.number(versions).await, 4);
    assert_eq!(directory.sent().len(), 2);
    expect_right(&directory).await;
}

/// The mirror has the role only when it has the users, so a process that ends in between leaves nothing unread.
#[tokio::test(flavor = "multi_thread")]
async fn users_who_could_not_be_read_after_a_change_of_their_role_are_read_by_the_next_cycle() {
    let directory = with_groups().await;
    let [first, second] = users(&directory);
    let sim = &directory.scene.sim;
    let role = sim.create_role("Design", &[first]);
    directory.program.call(&["sync"]).await.expect(0);
    sim.set_role_users(role, &[second]);
    sim.inject(Fault::refusal(500).on(format!("GET /v2/users/{second}")).forever());
    directory.program.call(&["sync"]).await.expect(69);
    sim.clear_faults();
    directory.program.call(&["sync"]).await.expect(0);
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_rosterd_cannot_read_are_one_warning_while_they_last() {
    let directory = with_groups().await;
    let sim = &directory.scene.sim;
    sim.create_role("Design", &[]);
    directory.program.call(&["sync"]).await.expect(0);
    let without_name = |role: &mut Map<String, Value>| {
        if role["name"] == "Design" {
            role["name"] = json!(7);
        }
    };
    sim.inject(Fault::edit_records(without_name).on("GET /v2/roles?").forever());
    let lists = || sim.requests().iter().filter(|it| it.path.contains("/v2/roles?")).count();
    let mut daemon = directory.program.start();
    let warning = daemon.until("roles.unreadable").await;
    assert_eq!((&warning["account_id"], &warning["roles"]), (&json!(sim.account_id()), &json!(1)));
    let (before, give_up) = (lists(), Instant::now() + Duration::from_mins(1));
    while lists() < before + 3 {
        assert!(Instant::now() < give_up, "no polls");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(daemon.log().matches("roles.unreadable").count(), 1);
}
