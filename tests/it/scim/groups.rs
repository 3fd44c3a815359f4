//! Groups: Harvest's job roles, with the requests of directories. At their ends Harvest, the mirror and the journal agree.

use std::time::Duration;

use harvest_sim::UserId;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{ALL, Directory, READER, WRITER, user};

const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const LIMIT: Duration = Duration::from_mins(1);

/// A directory whose daemon serves groups and may write roles.
pub async fn with_groups() -> Directory {
    let mut directory = Directory::new().await;
    directory
        .program
        .set("ROSTERD__SCIM__GROUPS", "roles")
        .set("ROSTERD__SCIM__DELETE", "delete")
        .set("ROSTERD__WRITE__ALLOW", &format!("{ALL}, roles"));
    directory
}

pub fn patch(operations: &Value) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations})
}

/// Users other than the owner of the token.
pub fn users<const N: usize>(directory: &Directory) -> [UserId; N] {
    let owner = directory.scene.sim.token_owner();
    let users: Vec<_> =
        directory.scene.sim.user_ids().into_iter().filter(|id| *id != owner).take(N).collect();
    users.try_into().unwrap()
}

pub fn group(name: &str, members: &[UserId]) -> Value {
    let members: Vec<Value> = members.iter().map(|id| json!({"value": id.to_string()})).collect();
    json!({"schemas": [GROUP], "displayName": name, "members": members})
}

fn members(group: &Value) -> Vec<String> {
    let members = group["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().map(|member| member["value"].as_str().unwrap().to_owned()).collect()
}

fn texts(ids: &[UserId]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.iter().map(ToString::to_string).collect()
}

/// Waits until the mirror has every user's roles, which are read after the write of a role; then compares everything.
pub async fn expect_right(directory: &Directory) {
    let query = "SELECT id, coalesce(roles, '{}') FROM roster.users WHERE deleted_at IS NULL ORDER BY id";
    let give_up = Instant::now() + LIMIT;
    let set = |mut roles: Vec<String>| {
        roles.sort();
        roles
    };
    loop {
        let rows: Vec<(i64, Vec<String>)> =
            sqlx::query_as(query).fetch_all(directory.scene.store.pool()).await.unwrap();
        let mirrored: Vec<_> = rows.into_iter().map(|(id, roles)| (id, set(roles))).collect();
        let mut expected: Vec<(i64, Vec<String>)> = directory
            .scene
            .sim
            .users_json()
            .iter()
            .map(|user| {
                let roles = user["roles"].as_array().unwrap().iter();
                let roles = roles.map(|role| role.as_str().unwrap().to_owned()).collect();
                (user["id"].as_i64().unwrap(), set(roles))
            })
            .collect();
        expected.sort();
        if mirrored == expected {
            break;
        }
        assert!(Instant::now() < give_up, "{mirrored:?}\n{expected:?}");
        sleep(Duration::from_millis(50)).await;
    }
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entra_creates_a_group_and_changes_its_members() {
    let directory = with_groups().await;
    let [first, second] = users(&directory);
    let _daemon = directory.start().await;
    let by_name = "/Groups?excludedAttributes=members&filter=displayName%20eq%20%22Design%22";
    assert_eq!(directory.get(by_name).await.expect(200).body["totalResults"], 0);
    let created = json!({
        "schemas": [GROUP, "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
        "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159",
        "displayName": "Design",
        "meta": {"resourceType": "Group"},
    });
    let answer = directory.send("POST", "/Groups", created.clone()).await.expect(201);
    let (id, path) = (answer.id(), format!("/Groups/{}", answer.id()));
    let location = answer.header("location").unwrap();
    assert!(location.ends_with(&format!("/groups/{id}")), "{location}");
    assert_eq!(
        answer.header("etag").unwrap(),
        answer.body["meta"]["version"].as_str().unwrap().to_lowercase()
    );
    let conflict = directory.send("POST", "/Groups", created).await.expect(409);
    assert_eq!(conflict.body["scimType"], "uniqueness");

    let add = |user: UserId| json!([{"op": "Add", "path": "members", "value": [{"$ref": null, "value": user.to_string()}]}]);
    directory.send("PATCH", &path, patch(&add(first))).await.expect(200);
    let both = directory.send("PATCH", &path, patch(&add(second))).await.expect(200);
    assert_eq!(members(&both.body), texts(&[first, second]));
    // A member already: no write.
    let sent = directory.sent().len();
    assert_eq!(sent, 3);
    directory.send("PATCH", &path, patch(&add(first))).await.expect(200);
    assert!(directory.sent().is_empty());
    let found = directory.get(by_name).await.expect(200).body;
    assert_eq!((&found["totalResults"], found["Resources"][0].get("members")), (&json!(1), None));
    assert_eq!(found["Resources"][0]["externalId"], "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159");

    let remove = json!([{"op": "Remove", "path": "members", "value": [{"value": first.to_string()}]}]);
    let one = directory.send("PATCH", &path, patch(&remove)).await.expect(200);
    assert_eq!(members(&one.body), texts(&[second]));
    directory.send("PATCH", &path, patch(&add(first))).await.expect(200);
    let remove = json!([{"op": "remove", "path": format!("members[value eq \"{second}\"]")}]);
    let one = directory.send("PATCH", &path, patch(&remove)).await.expect(200);
    assert_eq!(members(&one.body), texts(&[first]));
    assert_eq!(directory.scene.sim.users_of_role("Design"), Some(vec![first]));
    assert_eq!(directory.sent().len(), 3);
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn okta_and_jumpcloud_rename_replace_and_delete_a_group() {
    let directory = with_groups().await;
    let [first, second, third] = users(&directory);
    let _daemon = directory.start().await;
    let created = directory.send("POST", "/Groups", group("Test", &[first])).await.expect(201);
    assert_eq!(members(&created.body), texts(&[first]));
    let (id, path) = (created.id(), format!("/Groups/{}", created.id()));
    let rename = json!([{"op": "replace", "value": {"id": id, "displayName": "Design"}}]);
    let renamed = directory.send("PATCH", &path, patch(&rename)).await.expect(200);
    assert_eq!((&renamed.body["displayName"], members(&renamed.body)), (&json!("Design"), texts(&[first])));
    let add =
        json!([{"op": "add", "path": "members", "value": [{"value": second.to_string(), "display": "a@x"}]}]);
    directory.send("PATCH", &path, patch(&add)).await.expect(200);
    let exactly = json!([{"op": "replace", "path": "members", "value": [{"value": second.to_string()}, {"value": third.to_string()}]}]);
    let replaced = directory.send("PATCH", &path, patch(&exactly)).await.expect(200);
    assert_eq!(members(&replaced.body), texts(&[second, third]));

    // JumpCloud: PUT, GET, DELETE.
    let put = directory.send("PUT", &path, group("Art", &[third])).await.expect(200);
    assert_eq!((&put.body["displayName"], members(&put.body)), (&json!("Art"), texts(&[third])));
    let kept = directory.send("PUT", &path, json!({"schemas": [GROUP], "externalId": "g"})).await.expect(200);
    assert_eq!((members(&kept.body), &kept.body["externalId"]), (texts(&[third]), &json!("g")));
    assert_eq!(directory.get(&path).await.expect(200).body, kept.body);
    directory.send_as(Some(WRITER), "DELETE", &path, None).await.expect(204);
    directory.send_as(Some(WRITER), "DELETE", &path, None).await.expect(404);
    directory.get(&path).await.expect(404);
    let sent = directory.sent();
    assert_eq!(sent.len(), 6, "{sent:?}");
    assert_eq!(sent[5], format!("DELETE /v2/roles/{id}"));
    assert_eq!(directory.scene.sim.users_of_role("Art"), None);
    expect_right(&directory).await;
    // The name and the externalId are free again.
    let again = json!({"schemas": [GROUP], "displayName": "Art", "externalId": "g"});
    directory.send("POST", "/Groups", again).await.expect(201);
    directory.sent();
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_changed_in_harvest_are_groups_after_a_poll_and_no_write_undoes_the_change() {
    let directory = with_groups().await;
    let [first, second, third] = users(&directory);
    let role = directory.scene.sim.create_role("Design", &[first]);
    let gone = directory.scene.sim.create_role("Old", &[first]);
    let _daemon = directory.start().await;
    let path = format!("/Groups/{role}");
    let read = directory.get(&path).await.expect(200);
    assert_eq!(members(&read.body), texts(&[first]));
    let etag = read.body["meta"]["version"].as_str().unwrap().to_owned();

    // A person adds a user and the directory another one, before a poll: both stay.
    directory.scene.sim.set_role_users(role, &[first, second]);
    let add = json!([{"op": "add", "path": "members", "value": [{"value": third.to_string()}]}]);
    let all = directory.send("PATCH", &path, patch(&add)).await.expect(200);
    assert_eq!(members(&all.body), texts(&[first, second, third]));
    assert_ne!(all.body["meta"]["version"], etag);

    directory.scene.sim.create_role("New", &[second]);
    directory.scene.sim.delete_role(gone);
    directory.program.call(&["sync"]).await.expect(0);
    directory.scene.until("SELECT count(*) = 1 FROM roster.scim_groups WHERE name = 'New'").await;
    directory.scene.until("SELECT count(*) = 0 FROM roster.scim_groups WHERE name = 'Old'").await;
    directory.get(&format!("/Groups/{gone}")).await.expect(404);
    // The users' rows have the names, each change with its event.
    expect_right(&directory).await;
    // Harvest has a role with this name that no poll has shown yet.
    directory.scene.sim.create_role("Hidden", &[]);
    let conflict = directory.send("POST", "/Groups", group("hidden", &[])).await.expect(409);
    assert_eq!(conflict.body["scimType"], "uniqueness");
    let found = directory.get("/Groups?filter=displayName%20eq%20%22hidden%22").await.expect(200);
    assert_eq!(found.body["totalResults"], 1);
    assert_eq!(directory.sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_found_by_filters_and_users_name_their_groups() {
    let directory = with_groups().await;
    let [first, second] = users(&directory);
    let [design, art] = [("Design", vec![first, second]), ("Art", vec![second])]
        .map(|(name, users)| directory.scene.sim.create_role(name, &users));
    let _daemon = directory.start().await;
    let ids = |list: &Value| -> Vec<String> {
        list["Resources"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    let design = design.to_string();
    for (filter, expected) in [
        ("displayName eq \"DESIGN\"", vec![design.clone()]),
        (&format!("members.value eq \"{first}\" and displayName eq \"Design\""), vec![design.clone()]),
        (&format!("members[value eq \"{first}\"] and displayName eq \"Art\""), vec![]),
        (&format!("id eq \"{design}\""), vec![design.clone()]),
        ("externalId eq jyoung", vec![]),
    ] {
        let path = format!("/Groups?filter={}", filter.replace(' ', "%20").replace('"', "%22"));
        assert_eq!(ids(&directory.get(&path).await.expect(200).body), expected, "{filter}");
    }
    let search = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": "displayName eq \"Art\""});
    let found = directory.send("POST", "/Groups/.search", search).await.expect(200).body;
    assert_eq!(ids(&found), [art.to_string()]);
    let page = directory.get("/Groups?startIndex=2&count=1&attributes=displayName").await.expect(200).body;
    assert_eq!(page["itemsPerPage"], 1);
    assert!(page["Resources"][0].get("members").is_none() && page["Resources"][0].get("meta").is_none());
    let refused = directory.get("/Groups?filter=displayName%20co%20%22a%22").await.expect(400);
    assert_eq!(refused.body["scimType"], "invalidFilter");

    let shown = directory.get(&format!("/Users/{first}")).await.expect(200).body;
    let location = format!("https://scim.test/scim/v2/{}/Groups/{design}", directory.scene.sim.account_id());
    let expected = json!({"value": design, "display": "Design", "$ref": location});
    assert!(shown["groups"].as_array().unwrap().contains(&expected), "{shown}");
    let of_design =
        directory.get(&format!("/Users?filter=groups.value%20eq%20%22{design}%22")).await.expect(200).body;
    assert_eq!(ids(&of_design), texts(&[first, second]));
    let of_both = format!("/Users?filter=groups.value%20eq%20%22{design}%22%20and%20id%20eq%20{second}");
    assert_eq!(ids(&directory.get(&of_both).await.expect(200).body), texts(&[second]));
    directory.get("/Users?filter=groups%20eq%20%22fake%22").await.expect(200);
    let without = directory.get(&format!("/Users/{first}?excludedAttributes=groups")).await.expect(200).body;
    assert!(without.get("groups").is_none());
    directory.get("/ResourceTypes/Group").await.expect(200);
    directory.get(&format!("/Schemas/{GROUP}")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn group_requests_are_refused_as_the_settings_and_the_members_require() {
    let mut directory = with_groups().await;
    let [first] = users(&directory);
    let role = directory.scene.sim.create_role("Design", &[first]);
    let path = format!("/Groups/{role}");
    directory.program.set("ROSTERD__SCIM__DELETE", "deactivate").set("ROSTERD__WRITE__ALLOW", ALL);
    let mut daemon = directory.start().await;
    let name = json!([{"op": "replace", "path": "displayName", "value": "Art"}]);
    let refused = directory.send("PATCH", &path, patch(&name)).await.expect(403);
    assert!(refused.body["detail"].as_str().unwrap().contains("\"roles\""), "{}", refused.body);
    directory.send_as(Some(WRITER), "DELETE", &path, None).await.expect(403);
    directory.send_as(Some(READER), "PATCH", &path, Some(&patch(&name))).await.expect(403);
    let unknown = json!([{"op": "add", "path": "members", "value": [{"value": "999999999"}]}]);
    let unknown = directory.send("PATCH", &path, patch(&unknown)).await.expect(400);
    assert_eq!(unknown.body["scimType"], "invalidValue");
    directory.send("PATCH", "/Groups/999999999", patch(&name)).await.expect(404);
    directory.send("POST", "/Groups", json!({"schemas": [GROUP]})).await.expect(400);
    directory.send("DELETE", "/Groups", Value::Null).await.expect(405);
    assert!(directory.sent().is_empty());
    daemon.signal("-TERM");
    daemon.ended().await;

    let checked = directory.program.call(&["check"]).await.stdout();
    assert!(checked.contains("directories can only read groups"), "{checked}");

    // "dry" plans, and without the setting there are no groups.
    directory
        .program
        .set("ROSTERD__WRITE__MODE", "dry")
        .set("ROSTERD__WRITE__ALLOW", &format!("{ALL}, roles"));
    let mut daemon = directory.start().await;
    let planned = directory.send("PATCH", &path, patch(&name)).await.expect(403);
    assert!(planned.body["detail"].as_str().unwrap().contains("role_update (name)"), "{}", planned.body);
    daemon.signal("-TERM");
    daemon.ended().await;
    directory.program.set("ROSTERD__SCIM__GROUPS", "");
    let _daemon = directory.start().await;
    directory.get("/Groups").await.expect(404);
    directory.get(&path).await.expect(404);
    directory.get("/ResourceTypes/Group").await.expect(404);
    assert!(directory.get(&format!("/Users/{first}")).await.expect(200).body.get("groups").is_none());
    directory.get("/Users?filter=groups.value%20eq%20%227%22").await.expect(400);
    assert!(directory.sent().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_the_directory_deleted_is_no_member() {
    let mut directory = with_groups().await;
    directory.program.set("ROSTERD__SCIM__DELETE", "deactivate");
    let [other] = users(&directory);
    let _daemon = directory.start().await;
    let id = directory.send("POST", "/Users", user("Nora", "New")).await.expect(201).id();
    let nora = UserId(id.parse().unwrap());
    let made = directory.send("POST", "/Groups", group("Design", &[nora, other])).await.expect(201);
    assert_eq!(members(&made.body), texts(&[nora, other]));
    directory.delete(&id).await.expect(204);
    let path = format!("/Groups/{}", made.id());
    assert_eq!(members(&directory.get(&path).await.expect(200).body), texts(&[other]));
    let again = json!([{"op": "add", "path": "members", "value": [{"value": id}]}]);
    directory.send("PATCH", &path, patch(&again)).await.expect(400);
    directory.sent();
    expect_right(&directory).await;
}
