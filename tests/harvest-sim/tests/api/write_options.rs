//! The options for guesses about write requests.

use std::time::Duration;

use harvest_sim::Options;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::writes::{expect_refused, george, json_of};
use super::{TestClient, header};

fn user(email: &str) -> Value {
    json!({ "first_name": "A", "last_name": "B", "email": email })
}

#[tokio::test]
async fn email_options_decide_which_addresses_are_taken() {
    let (unique, exact) = (true, true);
    // The addresses of an active user, the same in capitals, and of an archived user.
    for (options, taken) in [
        ((unique, false, false), [true, true, true]),
        ((unique, exact, false), [true, false, true]),
        ((unique, false, true), [true, true, false]),
        ((unique, exact, true), [true, false, false]),
        ((false, false, false), [false, false, false]),
    ] {
        let client = TestClient::quiet().await;
        client.sim.configure(|it: &mut Options| {
            (it.unique_emails, it.case_sensitive_emails, it.archived_users_free_emails) = options;
        });
        client.sim.set_email(client.sim.create_user("Jane", "Doe"), "jane@example.com");
        let john = client.sim.create_user("John", "Doe");
        client.sim.set_email(john, "john@example.com");
        client.sim.archive_user(john);
        let other = format!("/users/{}", client.sim.create_user("Joe", "Doe"));
        for (email, is_taken) in
            ["jane@example.com", "JANE@example.com", "john@example.com"].into_iter().zip(taken)
        {
            let response = client.patch(&other, json!({ "email": email })).await;
            if is_taken {
                expect_refused(response, "Email has already been taken").await;
                expect_refused(client.post("/users", user(email)).await, "Email has already been taken")
                    .await;
            } else {
                assert_eq!(json_of(response, StatusCode::OK).await["email"], email);
                client.patch(&other, json!({ "email": "joe@example.com" })).await;
                assert_eq!(client.post("/users", user(email)).await.status(), StatusCode::CREATED);
            }
        }
    }
}

#[tokio::test]
async fn new_name_of_an_archived_user_is_ignored_with_the_option() {
    let client = TestClient::quiet().await;
    client.sim.configure(|options: &mut Options| options.archived_names_are_ignored = true);
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.archive_user(jane);
    let path = format!("/users/{jane}");
    let before = client.json(&path).await;
    let names = json!({ "first_name": "X", "last_name": "Y", "email": "x@example.com" });
    assert_eq!(json_of(client.patch(&path, names).await, StatusCode::OK).await, before);
    let restored = client.patch(&path, json!({ "last_name": "Y", "is_active": true })).await;
    let restored = json_of(restored, StatusCode::OK).await;
    assert_eq!((&restored["last_name"], &restored["is_active"]), (&json!("Doe"), &json!(true)));
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
    assert_eq!(client.sim.invitations(), ["george@example.com"]);
    for (email, are_invited) in [("a@example.com", true), ("b@example.com", false)] {
        client.sim.configure(|options: &mut Options| options.archived_users_are_invited = are_invited);
        let mut archived = user(email);
        archived["is_active"] = false.into();
        json_of(client.post("/users", archived).await, StatusCode::CREATED).await;
    }
    assert_eq!(client.sim.invitations(), ["george@example.com", "a@example.com"]);
}

#[tokio::test]
async fn deleted_assignment_with_time_is_archived_with_the_option() {
    let client = TestClient::quiet().await;
    client.sim.configure(|options: &mut Options| options.assignments_with_time_are_archived = true);
    let (jane, project) =
        (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", "RB"));
    let (timed, untimed) =
        (client.sim.assign(jane, project), client.sim.assign(client.sim.token_owner(), project));
    client.sim.track_time(jane, project);
    client.sim.advance_clock(Duration::from_mins(1));
    let list = format!("/projects/{project}/user_assignments");
    let mut expected = client.json(&format!("{list}/{timed}")).await;
    let response = client.delete(&format!("{list}/{timed}")).await;
    let message = "This user assignment is not removable. It still has time entries and/or expenses.";
    assert_eq!(header(&response, "hint"), message);
    let archived = json_of(response, StatusCode::OK).await;
    assert_ne!(archived["updated_at"], expected["updated_at"]);
    expected["updated_at"] = archived["updated_at"].clone();
    expected["is_active"] = false.into();
    assert_eq!(archived, expected);
    let response = client.delete(&format!("{list}/{untimed}")).await;
    assert_eq!(response.headers().get("hint"), None);
    json_of(response, StatusCode::OK).await;
    assert_eq!(client.json(&list).await["user_assignments"], json!([archived]));
}

#[tokio::test]
async fn assigning_again_creates_or_restores_an_assignment() {
    for restores in [false, true] {
        let client = TestClient::quiet().await;
        client.sim.configure(|options: &mut Options| options.assigning_again_restores = restores);
        let (jane, project) =
            (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", "RB"));
        let before = client.sim.assign(jane, project);
        client.sim.archive_assignment(before);
        let list = format!("/projects/{project}/user_assignments");
        let response = client.post(&list, json!({ "user_id": jane.0, "budget": 8 })).await;
        let made = json_of(response, StatusCode::CREATED).await;
        assert_eq!((&made["is_active"], &made["budget"]), (&json!(true), &json!(8.0)));
        assert_eq!(made["id"] == before.0, restores);
        assert_eq!(client.sim.assignment_ids().len(), if restores { 1 } else { 2 });
    }
}

#[tokio::test]
async fn archiving_a_user_changes_the_assignments_updated_at_only_with_the_option() {
    for touches in [true, false] {
        let client = TestClient::quiet().await;
        client.sim.configure(|options: &mut Options| options.archiving_touches_assignments = touches);
        let jane = client.sim.create_user("Jane", "Doe");
        client.sim.assign(jane, client.sim.new_project("Road Building", "RB"));
        let before = client.sim.assignments_json()[0].clone();
        client.sim.advance_clock(Duration::from_mins(1));
        json_of(client.patch(&format!("/users/{jane}"), json!({ "is_active": false })).await, StatusCode::OK)
            .await;
        let after = client.sim.assignments_json()[0].clone();
        assert_eq!(after["is_active"], false);
        assert_eq!(after["updated_at"] != before["updated_at"], touches);
    }
}
