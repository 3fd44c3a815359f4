//! Whole life cycles with the requests of Okta, Entra ID, `JumpCloud` and Google. At their ends, what Harvest received,
//! the mirror, the outbox and the journal agree.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::Directory;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

fn patch(operations: &Value) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations})
}

/// The total of a filter by user name, as directories ask before they create a user.
async fn found(directory: &Directory, user_name: &str) -> Value {
    let path = format!("/Users?filter=userName%20eq%20%22{user_name}%22&startIndex=1&count=100");
    directory.get(&path).await.expect(200).body
}

async fn texts(directory: &Directory, query: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(directory.scene.store.pool()).await.unwrap()
}

/// Harvest received what the journal says, each change has one event, and the mirror equals Harvest.
async fn expect_agreement(directory: &Directory, events: &[&str]) {
    let sent = "SELECT CASE kind WHEN 'user_create' THEN 'POST /v2/users' WHEN 'user_delete' THEN 'DELETE /v2/users/' || user_id
                                 ELSE 'PATCH /v2/users/' || user_id END
                  FROM roster.writes WHERE sent_at IS NOT NULL ORDER BY sent_at";
    assert_eq!(directory.sent(), texts(directory, sent).await);
    let unfinished = "SELECT kind FROM roster.writes WHERE outcome IS DISTINCT FROM 'done'";
    assert_eq!(texts(directory, unfinished).await, Vec::<String>::new());
    // A poll that reads a change before its write is stored has the event.
    let of_user = "SELECT type FROM roster.outbox
                    WHERE aggregatetype = 'user' AND record_id IN (SELECT user_id FROM roster.writes) ORDER BY seq";
    assert_eq!(texts(directory, of_user).await, events);
    assert_eq!(directory.scene.sim.invitations().len(), 1);
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn okta_hires_renames_suspends_and_rehires_a_user() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    assert_eq!(directory.get("/Users?startIndex=1&count=2").await.expect(200).body["itemsPerPage"], 2);
    assert_eq!(found(&directory, "nora@example.com").await["totalResults"], 0);
    let mut nora = json!({
        "schemas": [USER],
        "userName": "nora@example.com",
        "name": {"givenName": "Nora", "familyName": "New"},
        "emails": [{"primary": true, "value": "nora@example.com", "type": "work"}],
        "displayName": "Nora New",
        "locale": "en-US",
        "externalId": "00u1abcdef",
        "groups": [],
        "password": "1mz050nq",
        "active": true,
    });
    let created = directory.send("POST", "/Users", nora.clone()).await.expect(201);
    let id = created.id();
    let path = format!("/Users/{id}");
    directory.send("POST", "/Users", nora.clone()).await.expect(409);

    nora["id"] = json!(id);
    nora["meta"] = created.body["meta"].clone();
    nora["name"]["familyName"] = json!("Newman");
    nora["displayName"] = json!("Nora Newman");
    let renamed = directory.send("PUT", &path, nora.clone()).await.expect(200);
    assert_eq!(renamed.body["name"]["familyName"], "Newman");

    let off = patch(&json!([{"op": "replace", "value": {"active": false}}]));
    assert_eq!(directory.send("PATCH", &path, off).await.expect(200).body["active"], false);
    let left = found(&directory, "nora@example.com").await;
    assert_eq!((&left["Resources"][0]["id"], &left["Resources"][0]["active"]), (&json!(id), &json!(false)));

    // Assigned again, and renamed meanwhile.
    nora["name"]["familyName"] = json!("New");
    let returned = directory.send("PUT", &path, nora).await.expect(200);
    assert_eq!(
        (&returned.body["active"], &returned.body["name"]["familyName"]),
        (&json!(true), &json!("New"))
    );
    let events = ["user.created", "user.updated", "user.deactivated", "user.reactivated", "user.updated"];
    expect_agreement(&directory, &events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entra_hires_renames_suspends_deletes_and_rehires_a_user() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    assert_eq!(found(&directory, "4e0f7b1c-0b6e-4b62-9d5c-3f4f0a4c6f11").await["totalResults"], 0);
    assert_eq!(found(&directory, "nora@corp.onmicrosoft.test").await["Resources"], json!([]));
    let nora = json!({
        "schemas": [USER, ENTERPRISE],
        "externalId": "8f1a2b3c-0000-4000-8000-000000000001",
        "userName": "nora@corp.onmicrosoft.test",
        "active": true,
        "displayName": "Nora New",
        "emails": [{"primary": true, "type": "work", "value": "nora@example.com"}],
        "meta": {"resourceType": "User"},
        "name": {"formatted": "Nora New", "familyName": "New", "givenName": "Nora"},
        "title": "Analyst",
        "roles": [],
        ENTERPRISE: {"department": "Sales"},
    });
    let id = directory.send("POST", "/Users", nora.clone()).await.expect(201).id();
    let path = format!("/Users/{id}");
    assert_eq!(found(&directory, "NORA@corp.onmicrosoft.test").await["Resources"][0]["id"], json!(id));

    let renamed = patch(&json!([
        {"op": "Replace", "path": "name.familyName", "value": "Newman"},
        {"op": "Add", "path": "emails[type eq \"work\"].value", "value": "newman@example.com"},
        {"op": "Replace", "path": format!("{ENTERPRISE}:department"), "value": "Support"},
    ]));
    let renamed = directory.send("PATCH", &path, renamed).await.expect(200).body;
    assert_eq!(renamed["emails"][0]["value"], "newman@example.com");
    assert_eq!(renamed["userName"], "nora@corp.onmicrosoft.test");

    let active = |value: &str| patch(&json!([{"op": "Replace", "path": "active", "value": value}]));
    assert_eq!(directory.send("PATCH", &path, active("False")).await.expect(200).body["active"], false);
    assert_eq!(directory.send("PATCH", &path, active("True")).await.expect(200).body["active"], true);
    // 30 days after a deletion.
    directory.delete(&id).await.expect(204);
    directory.get(&path).await.expect(404);
    assert_eq!(found(&directory, "nora@corp.onmicrosoft.test").await["totalResults"], 0);
    let returned = directory.send("POST", "/Users", nora).await.expect(201);
    assert_eq!((returned.id(), &returned.body["emails"][0]["value"]), (id, &json!("nora@example.com")));
    let events = [
        "user.created",
        "user.updated",
        "user.deactivated",
        "user.reactivated",
        "user.deactivated",
        "user.reactivated",
        "user.updated",
    ];
    expect_agreement(&directory, &events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jumpclouds_connection_test_passes_and_can_be_repeated() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let mut tested = Vec::new();
    for _ in 0..2 {
        let mut user = json!({
            "schemas": [USER],
            "userName": "scim-test@example.com",
            "name": {"givenName": "Test", "familyName": "User"},
            "emails": [{"value": "scim-test@example.com", "primary": true}],
            "active": true,
        });
        directory.get("/Users?count=1&startIndex=1").await.expect(200);
        let id = directory.send("POST", "/Users", user.clone()).await.expect(201).id();
        user["name"]["givenName"] = json!("Tested");
        let path = format!("/Users/{id}");
        assert_eq!(directory.send("PUT", &path, user).await.expect(200).body["name"]["givenName"], "Tested");
        assert_eq!(directory.get(&path).await.expect(200).body["active"], true);
        directory.delete(&id).await.expect(204);
        directory.get(&path).await.expect(404);
        tested.push(id);
    }
    assert_eq!(tested[0], tested[1]);
    let group = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "test"});
    directory.send("POST", "/Groups", group).await.expect(404);
    let once = ["user.created", "user.updated", "user.deactivated"];
    let again = ["user.reactivated", "user.updated", "user.updated", "user.deactivated"];
    expect_agreement(&directory, &[&once[..], &again].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_tests_with_one_user_and_deletes_departing_users() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let page = directory.get("/Users?startIndex=1&count=1").await.expect(200).body;
    assert_eq!((&page["itemsPerPage"], &page["startIndex"]), (&json!(1), &json!(1)));
    let id = directory.send("POST", "/Users", super::user("Nora", "New")).await.expect(201).id();
    directory.delete(&id).await.expect(204);
    directory.delete(&id).await.expect(404);
    let user = directory
        .scene
        .sim
        .users_json()
        .into_iter()
        .find(|user| user["id"].as_i64() == id.parse().ok())
        .unwrap();
    assert_eq!(user["is_active"], false);
    expect_agreement(&directory, &["user.created", "user.deactivated"]).await;
}
