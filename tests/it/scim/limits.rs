//! Limits of requests and connections, and what remains of users whom a directory deleted.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use harvest_sim::{Limit, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Directory, answer, patch, user};

#[tokio::test(flavor = "multi_thread")]
async fn body_that_does_not_arrive_is_408_and_frees_its_place() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let account = directory.scene.sim.account_id();
    let head = format!(
        "POST /scim/v2/{account}/Users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\n{{",
        super::WRITER
    );
    let slow = directory.send_raw(&head).await.expect(408);
    assert_eq!(slow.body["schemas"][0], "urn:ietf:params:scim:api:messages:2.0:Error");
    directory.get("/Users").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_for_a_place() {
    const MAX_CONNECTIONS: usize = 256;
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(&directory.address).await.unwrap());
    }
    let request = directory.request(Some(super::WRITER), "GET", "/Users?count=0", None);
    let mut further = TcpStream::connect(&directory.address).await.unwrap();
    further.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0];
    let early = timeout(Duration::from_secs(1), further.read(&mut first)).await;
    assert!(early.is_err(), "{early:?}");
    idle.pop();
    answer(further).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_without_a_valid_token_are_one_warning() {
    let directory = Directory::new().await;
    let mut daemon = directory.start().await;
    for _ in 0..45 {
        directory.send_as(Some("wrong"), "GET", "/Users", None).await.expect(401);
    }
    let warned = daemon.until("scim.unauthorized").await;
    assert_eq!((&warned["level"], &warned["peer"]), (&json!("WARN"), &json!("127.0.0.1")));
    daemon.signal("-TERM");
    daemon.ended().await;
    let warnings = daemon.rest().iter().filter(|line| line.contains("scim.unauthorized")).count();
    assert_eq!(warnings, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forget_erases_what_a_directory_stored_about_a_hidden_user() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let id = directory.send("POST", "/Users", user("Nora", "New")).await.expect(201).id();
    directory.delete(&id).await.expect(204);
    directory.sent();
    directory.program.call(&["forget", "user", &id, "--yes"]).await.expect(0);
    let values =
        "SELECT count(*) FROM roster.scim_links WHERE num_nonnulls(external_id, user_name, display_name) > 0";
    assert_eq!(directory.scene.number(values).await, 0);
    // The user stays hidden, also after the next full read has stored the names again.
    directory.program.call(&["sync", "--full"]).await.expect(0);
    directory.get(&format!("/Users/{id}")).await.expect(404);
    let found = directory.get("/Users?filter=externalId%20eq%20%22ext-Nora%22").await.expect(200);
    assert_eq!(found.body["totalResults"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_users_whom_harvest_deleted_end_with_the_retention_of_writes() {
    let mut directory = Directory::new().await;
    directory.program.set("ROSTERD__RETENTION__WRITES", "1s");
    let _daemon = directory.start().await;
    let mut ids = Vec::new();
    for name in ["Ada", "Bob"] {
        ids.push(directory.send("POST", "/Users", user(name, "Test")).await.expect(201).id());
    }
    directory.sent();
    directory.scene.sim.delete_user(harvest_sim::UserId(ids[0].parse().unwrap()));
    directory.scene.until("SELECT count(*) = 1 FROM roster.scim_links").await;
    directory.get("/Users?filter=externalId%20eq%20%22ext-Bob%22").await.expect(200);
    assert_eq!(directory.scene.number("SELECT record_id FROM roster.scim_links").await.to_string(), ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_of_changes_is_answered_200_or_503_and_ends_done_within_harvests_limit() {
    const CHANGES: usize = 150;
    let (requests, window) = (40, Duration::from_secs(2));
    let mut directory =
        Directory::of(Options { limit: Some(Limit { requests, window }), ..Options::default() }).await;
    directory
        .program
        .set("ROSTERD__RATE_LIMIT__REQUESTS", "40")
        .set("ROSTERD__RATE_LIMIT__WINDOW", "2s")
        .set("ROSTERD__WRITE__PATIENCE", "1s");
    let _daemon = directory.start().await;
    let (users, owner) = (directory.scene.sim.user_ids(), directory.scene.sim.token_owner());
    let users: Vec<_> = users.into_iter().filter(|user| *user != owner).collect();
    let telephone = |number: usize| format!("555 {number}");
    let change = |number: usize| {
        let (user, directory) = (users[number % users.len()], &directory);
        async move {
            let body = patch("phoneNumbers[type eq \"work\"].value", json!(telephone(number)));
            let mut late = 0;
            loop {
                let answer = directory.send("PATCH", &format!("/Users/{user}"), body.clone()).await;
                match answer.status {
                    200 => return late,
                    503 => assert!(answer.header("retry-after").is_some(), "{}", answer.body),
                    other => panic!("{other} {}", answer.body),
                }
                late += 1;
            }
        }
    };
    let late: Vec<usize> = stream::iter(0..CHANGES).map(change).buffer_unordered(50).collect().await;
    assert!(late.iter().sum::<usize>() > 0, "no change waited longer than the patience");
    directory.scene.until("SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    let outcomes =
        "SELECT count(*) FROM roster.writes WHERE outcome NOT IN ('done', 'unchanged', 'withdrawn')";
    assert_eq!(directory.scene.number(outcomes).await, 0);
    // Each change was received by Harvest once at least, and none was received that the journal lacks.
    let sent = directory.scene.sim.take_writes();
    assert!(sent.len() >= CHANGES, "{}", sent.len());
    let journal = "SELECT count(*) FROM roster.writes WHERE sent_at IS NOT NULL";
    assert_eq!(directory.scene.number(journal).await, i64::try_from(sent.len()).unwrap());
    let refused = directory.scene.sim.requests().iter().filter(|it| it.status == Some(429)).count();
    assert_eq!(refused, 0);
    directory.scene.expect_right().await;
    let shown: Value = directory.get("/Users?count=200").await.expect(200).body;
    assert!(
        shown["Resources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|user| user["phoneNumbers"][0]["value"] != Value::Null)
    );
}
