//! Job roles: reads and writes by id, and role names in user records.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::writes::{expect_refused, json_of};
use super::{TestClient, header, ids, keys};

#[tokio::test]
async fn role_changes_are_visible_in_user_records() {
    let client = TestClient::quiet().await;
    let (jane, john) = (client.sim.create_user("Jane", "Doe"), client.sim.create_user("John", "Doe"));
    let roles_of = async |user| client.json(&format!("/users/{user}")).await["roles"].clone();
    let hired = client.json(&format!("/users/{jane}")).await["updated_at"].clone();
    let wanted = json!({ "name": "Marketing", "user_ids": [jane.0, john.0] });
    let response = client.post("/roles", wanted).await;
    let location = header(&response, "location").to_owned();
    let made = json_of(response, StatusCode::CREATED).await;
    assert_eq!(made["user_ids"], json!([jane.0, john.0]));
    assert_eq!(client.json(&location).await, made);
    assert_eq!(roles_of(jane).await, json!(["Marketing"]));

    client.sim.advance_clock(std::time::Duration::from_mins(1));
    let path = format!("/roles/{}", made["id"]);
    let fewer = json_of(client.patch(&path, json!({ "user_ids": [john.0] })).await, StatusCode::OK).await;
    assert_eq!((&fewer["user_ids"], &fewer["updated_at"]), (&json!([john.0]), &made["updated_at"]));
    assert_eq!(roles_of(jane).await, json!([]));
    assert_eq!(client.json(&format!("/users/{jane}")).await["updated_at"], hired);
    let renamed = json_of(client.patch(&path, json!({ "name": "HR" })).await, StatusCode::OK).await;
    assert_ne!(renamed["updated_at"], made["updated_at"]);
    assert_eq!(roles_of(john).await, json!(["HR"]));
    assert_eq!(json_of(client.delete(&path).await, StatusCode::OK).await["id"], made["id"]);
    assert_eq!(roles_of(john).await, json!([]));
    assert_eq!(client.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn roles_are_listed_newest_first_with_the_recorded_keys() {
    let client = TestClient::quiet().await;
    client.sim.set_roles(client.sim.token_owner(), &["Founder", "CEO"]);
    let list = client.text("/roles").await;
    assert_eq!(keys(&list, r#""roles":["#), ["id", "name", "created_at", "updated_at", "user_ids"]);
    let pages = client.read_all_pages("/roles?per_page=1").await;
    let names: Vec<&Value> = pages.iter().map(|page| &page["roles"][0]["name"]).collect();
    assert_eq!(names, ["CEO", "Founder"], "an unknown name creates a role");
    assert!(ids(&pages, "roles").is_sorted_by(|a, b| a > b));
}

#[tokio::test]
async fn role_without_name_with_duplicate_name_or_unknown_user_is_refused() {
    let client = TestClient::quiet().await;
    client.sim.set_roles(client.sim.token_owner(), &["CEO"]);
    expect_refused(client.post("/roles", json!({})).await, "Name can't be blank").await;
    expect_refused(client.post("/roles", json!({ "name": "CEO" })).await, "Name has already been taken")
        .await;
    let unknown = client.post("/roles", json!({ "name": "HR", "user_ids": [1] })).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    client.sim.demote_token();
    assert_eq!(client.get("/roles").await.status(), StatusCode::FORBIDDEN);
}
