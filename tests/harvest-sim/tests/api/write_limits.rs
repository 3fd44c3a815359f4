//! Seats, invitations, and what a user or an assignment may not have twice.

use harvest_sim::Options;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::TestClient;
use super::writes::{expect_refused, george, json_of};

fn user(email: &str) -> Value {
    json!({ "first_name": "A", "last_name": "B", "email": email })
}

#[tokio::test]
async fn active_users_need_a_seat() {
    let client = TestClient::quiet().await;
    client.sim.configure(|options: &mut Options| options.seats = Some(2));
    let full = "You have reached the maximum number of users for your plan.";
    let george = json_of(client.post("/users", george()).await, StatusCode::CREATED).await;
    expect_refused(client.post("/users", user("a@example.com")).await, full).await;
    let mut archived = user("a@example.com");
    archived["is_active"] = false.into();
    let archived = json_of(client.post("/users", archived).await, StatusCode::CREATED).await;
    let archived = format!("/users/{}", archived["id"]);
    expect_refused(client.patch(&archived, json!({ "is_active": true })).await, full).await;
    json_of(client.patch(&archived, json!({ "telephone": "1" })).await, StatusCode::OK).await;
    let george = format!("/users/{}", george["id"]);
    json_of(client.patch(&george, json!({ "is_active": true })).await, StatusCode::OK).await;
    json_of(client.patch(&george, json!({ "is_active": false })).await, StatusCode::OK).await;
    json_of(client.patch(&archived, json!({ "is_active": true })).await, StatusCode::OK).await;
}

#[tokio::test]
async fn each_created_user_gets_one_invitation() {
    let client = TestClient::quiet().await;
    client.sim.create_user("Jane", "Doe");
    let created = json_of(client.post("/users", george()).await, StatusCode::CREATED).await;
    client.post("/users", george()).await;
    let path = format!("/users/{}", created["id"]);
    for fields in
        [json!({ "email": "frank@example.com" }), json!({ "is_active": false }), json!({ "is_active": true })]
    {
        json_of(client.patch(&path, fields).await, StatusCode::OK).await;
    }
    let mut archived = user("a@example.com");
    archived["is_active"] = false.into();
    json_of(client.post("/users", archived).await, StatusCode::CREATED).await;
    assert_eq!(client.sim.invitations(), ["george@example.com", "a@example.com"]);
}

#[tokio::test]
async fn address_of_another_user_is_taken_in_any_case_and_also_if_that_user_is_archived() {
    let client = TestClient::quiet().await;
    let john = client.sim.create_user("John", "Doe");
    client.sim.set_email(john, "john@example.com");
    client.sim.archive_user(john);
    let other = format!("/users/{}", client.sim.create_user("Joe", "Doe"));
    for email in ["john@example.com", "JOHN@example.com", "Joe.Doe@example.com"] {
        expect_refused(client.post("/users", user(email)).await, "Email has already been taken").await;
    }
    let taken = client.patch(&other, json!({ "email": "John@example.com" })).await;
    expect_refused(taken, "Email has already been taken").await;
    json_of(client.patch(&other, json!({ "email": "JOE.DOE@example.com" })).await, StatusCode::OK).await;
}

#[tokio::test]
async fn assigning_a_user_again_creates_another_assignment() {
    let client = TestClient::quiet().await;
    let (jane, project) =
        (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", "RB"));
    let before = client.sim.assign(jane, project);
    client.sim.archive_assignment(before);
    let list = format!("/projects/{project}/user_assignments");
    let response = client.post(&list, json!({ "user_id": jane.0, "budget": 8 })).await;
    let made = json_of(response, StatusCode::CREATED).await;
    assert_eq!((&made["is_active"], &made["budget"]), (&json!(true), &json!(8.0)));
    assert_ne!(made["id"], before.0);
    assert_eq!(client.sim.assignment_ids().len(), 2);
}
