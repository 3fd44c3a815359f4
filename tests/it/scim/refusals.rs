//! Requests that rosterd refuses or cannot carry out in time.

use std::time::Duration;

use harvest_sim::{Fault, RetryAfter};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Directory, WRITER, patch, user};

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_filters_wrong_methods_and_unknown_resources_have_scim_errors() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    for filter in ["userName%20co%20%22a%22", "nonsense", "userName%20eq", "not%20(active%20eq%20true)"] {
        let refused = directory.get(&format!("/Users?filter={filter}")).await.expect(400);
        assert_eq!(refused.body["scimType"], "invalidFilter", "{filter}");
        assert!(refused.body["Resources"].is_null());
    }
    let search =
        json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": "x pr"});
    directory.send("POST", "/Users/.search", search).await.expect(400);
    for (method, path, status) in [
        ("GET", "/Nothing", 404),
        ("GET", "/Groups", 404),
        ("GET", "/Users/abc", 404),
        ("GET", "/Users/999999999", 404),
        ("GET", "/Me", 501),
        ("POST", "/Bulk", 501),
        ("POST", "/.search", 501),
        ("POST", "/Schemas", 405),
        ("DELETE", "/Users", 405),
        ("GET", "/Schemas?filter=x", 403),
        ("GET", "/ServiceProviderConfig", 200),
        ("GET", "/Schemas/urn:ietf:params:scim:schemas:core:2.0:User", 200),
        ("GET", "/ResourceTypes/User", 200),
        ("GET", "/ResourceTypes/Group", 404),
        ("PATCH", "/Users/999999999", 404),
        ("DELETE", "/Users/999999999", 404),
    ] {
        let body = patch("active", json!(false));
        let body = Some(&body).filter(|_| method == "PATCH");
        let got = directory.send_as(Some(WRITER), method, path, body).await.expect(status);
        assert_eq!(got.header("content-type").as_deref(), Some("application/scim+json"), "{path}");
        assert!(got.header("x-request-id").is_some());
        if status >= 400 {
            assert_eq!(got.body["status"], status.to_string(), "{path}");
        }
    }
    let allow =
        directory.send("POST", "/ServiceProviderConfig", Value::Null).await.expect(405).header("allow");
    assert_eq!(allow.as_deref(), Some("get, head"));
    let account = directory.scene.sim.account_id();
    let post = |length: usize, media_type: &str| {
        format!(
            "POST /scim/v2/{account}/Users HTTP/1.0\r\nAuthorization: Bearer {WRITER}\r\nContent-Type: {media_type}\r\n\
             Content-Length: {length}\r\n\r\n{{}}"
        )
    };
    directory.send_raw(&post(2_000_000, "application/json")).await.expect(413);
    directory.send_raw(&post(2, "text/plain")).await.expect(415);
    directory.send_raw(&post(2, "application/json")).await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_unavailable_before_the_first_full_read_ends() {
    let directory = Directory::new().await;
    let held = CancellationToken::new();
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on("/user_assignments"));
    let mut daemon = directory.program.start();
    daemon.until("lease.acquired").await;
    directory.scene.until_asked("/user_assignments").await;
    for (method, path, body) in [
        ("GET", "/Users".to_owned(), None),
        ("GET", format!("/Users/{}", directory.scene.any_user()), None),
        ("POST", "/Users".to_owned(), Some(user("Nora", "New"))),
    ] {
        let early = directory.send_as(Some(WRITER), method, &path, body.as_ref()).await.expect(503);
        assert_eq!(early.header("retry-after").as_deref(), Some("30"), "{path}");
    }
    directory.get("/ServiceProviderConfig").await.expect(200);
    held.cancel();
    daemon.until("cycle.finished").await;
    directory.get("/Users").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_mode_names_the_write_and_off_only_reads() {
    let mut directory = Directory::new().await;
    for (mode, detail) in [
        ("dry", "write.mode is \"dry\": rosterd would send user_update (first_name) to Harvest"),
        ("off", "rosterd does not write to Harvest: write.mode is \"off\""),
    ] {
        directory.program.set("ROSTERD__WRITE__MODE", mode);
        let mut daemon = directory.start().await;
        let id = directory.scene.any_user().to_string();
        let refused = directory.patch(&id, "name.givenName", json!("Zoe")).await.expect(403);
        assert_eq!(refused.body["detail"], detail);
        directory.patch(&id, "displayName", json!("Zoe")).await.expect(403);
        directory.get("/Users").await.expect(200);
        daemon.signal("-TERM");
        daemon.ended().await;
    }
    assert_eq!(directory.scene.number("SELECT count(*) FROM roster.scim_links").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_is_403_and_writes_held_by_the_guard_are_503_until_accepted() {
    let mut directory = Directory::new().await;
    directory
        .program
        .set("ROSTERD__WRITE__GUARD__AT_LEAST", "0")
        .set("ROSTERD__WRITE__GUARD__FRACTION", "0")
        .set("ROSTERD__WRITE__ALLOW", "deactivate");
    let _daemon = directory.start().await;
    let (id, owner) = (directory.scene.any_user().to_string(), directory.scene.sim.token_owner().to_string());
    let refused = directory.patch(&id, "name.givenName", json!("Zoe")).await.expect(403);
    assert!(refused.body["detail"].as_str().unwrap().contains("write.allow"), "{}", refused.body);
    directory.patch(&owner, "active", json!(false)).await.expect(403);
    for _ in 0..2 {
        let held = directory.patch(&id, "active", json!(false)).await.expect(503);
        assert_eq!(held.header("retry-after").as_deref(), Some("3600"));
        assert!(held.body["detail"].as_str().unwrap().starts_with("held"), "{}", held.body);
    }
    assert!(directory.sent().is_empty());
    assert_eq!(
        directory
            .scene
            .number("SELECT count(*) FROM roster.writes WHERE kind = 'user_deactivate' AND done_at IS NULL")
            .await,
        1
    );
    directory.program.call(&["writes", "accept", "--all", "1", "--yes"]).await.expect(0);
    directory.scene.until("SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    assert_eq!(directory.get(&format!("/Users/{id}")).await.expect(200).body["active"], false);
    assert_eq!(directory.sent(), [format!("PATCH /v2/users/{id}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn harvests_limit_is_503_with_retry_after_and_never_429() {
    let mut directory = Directory::new().await;
    directory.program.set("ROSTERD__WRITE__PATIENCE", "1s");
    let _daemon = directory.start().await;
    let id = directory.scene.any_user().to_string();
    directory.scene.sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(120)).on("/users"));
    // A poll meets the limit.
    directory
        .scene
        .until("SELECT coalesce(max(paused_until) > now() + interval '60 s', false) FROM roster.rate_budgets")
        .await;
    let late = directory.patch(&id, "name.givenName", json!("Zoe")).await.expect(503);
    let retry_after: u64 = late.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=120).contains(&retry_after), "{retry_after}");
    assert!(late.body["detail"].as_str().unwrap().contains("withdrawn"), "{}", late.body);
    // A deactivation is not withdrawn: its loss would leave access open.
    directory.patch(&id, "active", json!(false)).await.expect(503);
    let states = "SELECT count(*) FROM roster.writes
                   WHERE (kind, outcome) = ('user_update', 'withdrawn') OR kind = 'user_deactivate' AND done_at IS NULL";
    assert_eq!(directory.scene.number(states).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_of_one_token_at_a_time_are_503() {
    let mut directory = Directory::new().await;
    directory.program.set("ROSTERD__WRITE__PATIENCE", "55s");
    let _daemon = directory.start().await;
    let held = CancellationToken::new();
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on("PATCH /v2/users").forever());
    let id = directory.scene.any_user();
    let mut waiting = Vec::new();
    for number in 0..64 {
        let body = patch("name.givenName", json!(format!("Zoe{number}")));
        waiting.push(directory.begin("PATCH", &format!("/Users/{id}"), &body).await);
    }
    directory.scene.until("SELECT count(*) = 64 FROM roster.writes WHERE done_at IS NULL").await;
    let refused = directory.get("/Users").await.expect(503);
    assert_eq!(refused.header("retry-after").as_deref(), Some("10"));
    // Clients that disconnect are not counted any more.
    drop(waiting);
    tokio::time::timeout(Duration::from_mins(1), async {
        while directory.get("/Users").await.status == 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    held.cancel();
    directory.scene.until("SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    assert_eq!(directory.sent().len(), 64);
}
