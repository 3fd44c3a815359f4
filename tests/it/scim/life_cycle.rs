//! A user is hired, renamed, leaves, returns and leaves again.

use serde_json::json;

use super::{Directory, user};

#[tokio::test(flavor = "multi_thread")]
async fn user_is_created_read_renamed_deactivated_deleted_and_rehired_with_the_same_id() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let nora = user("Nora", "New");

    let created = directory.send("POST", "/Users", nora.clone()).await.expect(201);
    let id = created.id();
    let account = directory.scene.sim.account_id();
    let location = format!("https://scim.test/scim/v2/{account}/users/{id}");
    assert_eq!(created.header("location"), Some(location));
    assert_eq!(created.header("content-type").as_deref(), Some("application/scim+json"));
    assert_eq!(created.body["externalId"], "ext-Nora");
    assert_eq!(directory.scene.sim.invitations().len(), 1);
    directory.send("POST", "/Users", nora.clone()).await.expect(409);

    let read = directory.get(&format!("/Users/{id}")).await.expect(200);
    assert_eq!(read.body, created.body);
    let found = directory.get("/Users?filter=userName%20eq%20%22NORA.new@example.com%22").await.expect(200);
    assert_eq!((&found.body["totalResults"], &found.body["Resources"][0]["id"]), (&json!(1), &json!(id)));

    let renamed = directory.patch(&id, "name.familyName", json!("Old")).await.expect(200);
    assert_eq!(renamed.body["name"]["familyName"], "Old");
    assert_ne!(renamed.body["meta"]["version"], read.body["meta"]["version"]);
    let again = directory.patch(&id, "name.familyName", json!("Old")).await.expect(200);
    assert_eq!(again.body["meta"]["version"], renamed.body["meta"]["version"]);
    assert_eq!(directory.sent(), ["POST /v2/users".to_owned(), format!("PATCH /v2/users/{id}")]);

    // A deactivation is sent each time, because the mirror may be a minute old.
    for _ in 0..2 {
        let left = directory.patch(&id, "active", json!("False")).await.expect(200);
        assert_eq!(left.body["active"], false);
    }
    assert_eq!(directory.sent().len(), 2);
    let listed = directory.get("/Users?count=200").await.expect(200).body["totalResults"].clone();
    directory.delete(&id).await.expect(204);
    directory.get(&format!("/Users/{id}")).await.expect(404);
    directory.delete(&id).await.expect(404);
    let hidden = directory.get("/Users?count=0").await.expect(200).body["totalResults"].clone();
    assert_eq!(hidden.as_u64().unwrap() + 1, listed.as_u64().unwrap());

    directory.sent();
    let rehired = directory.send("POST", "/Users", nora).await.expect(201);
    assert_eq!((rehired.id(), &rehired.body["active"]), (id.clone(), &json!(true)));
    assert_eq!(rehired.body["name"]["familyName"], "New");
    assert_eq!(directory.sent(), [format!("PATCH /v2/users/{id}"), format!("PATCH /v2/users/{id}")]);
    assert_eq!(directory.scene.sim.invitations().len(), 1);
    directory.scene.expect_right().await;
    let actors = "SELECT count(*) FROM roster.writes WHERE actor <> 'scim:okta'";
    assert_eq!(directory.scene.number(actors).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_another_user_are_refused_with_409_and_links_persist_without_harvest() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let [ada, bob] = ["Ada", "Bob"].map(|name| user(name, "Test"));
    let ada_id = directory.send("POST", "/Users", ada).await.expect(201).id();
    let bob_id = directory.send("POST", "/Users", bob).await.expect(201).id();
    directory.sent();
    for (attribute, value) in [
        ("userName", "ada.test@example.com"),
        ("externalId", "ext-Ada"),
        ("emails[type eq \"work\"].value", "Ada.Test@example.com"),
    ] {
        let refused = directory.patch(&bob_id, attribute, json!(value)).await.expect(409);
        assert_eq!(refused.body["scimType"], "uniqueness", "{attribute}");
    }
    let changed = directory.patch(&ada_id, "displayName", json!("Countess")).await.expect(200);
    assert_eq!(changed.body["displayName"], "Countess");
    let changed = directory.patch(&ada_id, "userName", json!("ada")).await.expect(200);
    assert_eq!(
        (&changed.body["userName"], &changed.body["displayName"]),
        (&json!("ada"), &json!("Countess"))
    );
    let found = directory.get("/Users?filter=userName%20eq%20%22Ada%22").await.expect(200);
    assert_eq!(found.body["Resources"][0]["id"], ada_id.as_str());
    assert!(directory.sent().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_user_with_active_false_ends_inactive_and_put_leaves_absent_attributes() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let mut eve = user("Eve", "Early");
    eve["active"] = json!(false);
    let created = directory.send("POST", "/Users", eve).await.expect(201);
    assert_eq!(created.body["active"], false);
    let id = created.id();
    assert_eq!(directory.sent(), ["POST /v2/users".to_owned(), format!("PATCH /v2/users/{id}")]);
    let put = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "userName": "eve.early@example.com",
        "active": true,
    });
    let active = directory.send("PUT", &format!("/Users/{id}"), put).await.expect(200);
    assert_eq!((&active.body["active"], &active.body["externalId"]), (&json!(true), &json!("ext-Eve")));
    assert_eq!(directory.sent(), [format!("PATCH /v2/users/{id}")]);
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_can_delete_at_harvest_archives_users_with_time_and_can_be_refused() {
    let mut directory = Directory::new().await;
    directory.program.set("ROSTERD__SCIM__DELETE", "delete");
    let (busy, idle) = (directory.scene.any_user(), directory.scene.sim.create_user("Ida", "Idle"));
    directory.scene.sim.track_time(busy, directory.scene.sim.project_ids()[0]);
    {
        let mut daemon = directory.start().await;
        directory.delete(&idle.to_string()).await.expect(204);
        assert_eq!(directory.sent(), [format!("DELETE /v2/users/{idle}")]);
        directory.delete(&busy.to_string()).await.expect(204);
        directory.get(&format!("/Users/{busy}")).await.expect(404);
        assert_eq!(directory.sent(), [format!("DELETE /v2/users/{busy}"), format!("PATCH /v2/users/{busy}")]);
        daemon.signal("-TERM");
        daemon.ended().await;
    }
    directory.program.set("ROSTERD__SCIM__DELETE", "refuse");
    let _daemon = directory.start().await;
    let other = directory.scene.any_user().0 + 1;
    directory.delete(&other.to_string()).await.expect(403);
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_tags_guard_changes_and_save_reads() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let (account, id) = (directory.scene.sim.account_id(), directory.scene.any_user());
    let read = directory.get(&format!("/Users/{id}")).await.expect(200);
    let etag = read.body["meta"]["version"].as_str().unwrap().to_owned();
    assert_eq!(read.header("etag").unwrap(), etag.to_lowercase());
    let with = |method: &str, header: &str, body: &str| {
        format!(
            "{method} /scim/v2/{account}/Users/{id} HTTP/1.0\r\nAuthorization: Bearer {}\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}",
            super::WRITER,
            body.len()
        )
    };
    directory.send_raw(&with("GET", &format!("If-None-Match: {etag}"), "")).await.expect(304);
    directory.send_raw(&with("GET", "If-None-Match: W/\"0-0\"", "")).await.expect(200);
    let body = super::patch("displayName", json!("D")).to_string();
    directory.send_raw(&with("PATCH", "If-Match: W/\"0-0\"", &body)).await.expect(412);
    directory.send_raw(&with("PATCH", &format!("If-Match: \"x\", {etag}"), &body)).await.expect(200);
    directory.send_raw(&with("PATCH", &format!("If-Match: {etag}"), &body)).await.expect(412);
}
