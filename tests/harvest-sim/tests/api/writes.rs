//! Compares write requests for users, assignments and rates with documented and recorded responses.

use harvest_sim::{Company, Options};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{TestClient, header, keys};

impl TestClient {
    pub(super) async fn send(&self, method: Method, path: &str, body: Value) -> Response {
        self.request(method, path).json(&body).send().await.unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Response {
        self.send(Method::POST, path, body).await
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> Response {
        self.send(Method::PATCH, path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }
}

pub(super) async fn json_of(response: Response, status: StatusCode) -> Value {
    let found = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Expects a 422 with the same message in its body and in `Hint`.
pub(super) async fn expect_refused(response: Response, message: &str) {
    assert_eq!(header(&response, "hint"), message);
    let body = json_of(response, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(body, json!({ "message": message }));
}

pub(super) fn george() -> Value {
    json!({ "first_name": "George", "last_name": "Frank", "email": "george@example.com" })
}

#[tokio::test]
async fn created_user_has_the_recorded_keys_and_a_location() {
    let client = TestClient::quiet().await;
    let response = client.post("/users", george()).await;
    let location = header(&response, "location").to_owned();
    assert_eq!(response.status(), StatusCode::CREATED);
    let text = response.text().await.unwrap();
    assert_eq!(keys(&text, ""), keys(&client.text("/users/me").await, ""));
    let made: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "first_name": "George", "last_name": "Frank", "email": "george@example.com", "telephone": "",
        "timezone": "Eastern Time (US & Canada)", "weekly_capacity": 126_000,
        "has_access_to_all_future_projects": false, "is_contractor": false, "is_active": true,
        "default_hourly_rate": null, "cost_rate": null, "roles": [], "access_roles": ["member"],
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&made[key], value, "{key}");
    }
    assert!(location.ends_with(&format!("/api/v2/users/{}", made["id"])), "{location}");
    assert_eq!(client.json(&location).await, made);
    assert_eq!(client.json("/users").await["users"][0], made);
}

#[tokio::test]
async fn created_user_has_the_values_of_the_request() {
    let client = TestClient::quiet().await;
    let mut wanted = george();
    let more = json!({
        "timezone": "Kyiv", "has_access_to_all_future_projects": true, "is_contractor": true, "is_active": false,
        "weekly_capacity": 72_000, "default_hourly_rate": 120.5, "cost_rate": 50, "roles": ["Developer"],
        "access_roles": ["manager", "project_creator", "time_and_expenses_manager"],
    });
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = json_of(client.post("/users", wanted.clone()).await, StatusCode::CREATED).await;
    for (key, value) in wanted.as_object().unwrap() {
        let same = made[key] == *value || made[key].as_f64().is_some_and(|it| Some(it) == value.as_f64());
        assert!(same, "{key}: {} is not {value}", made[key]);
    }
    let rates = client.json(&format!("/users/{}/billable_rates", made["id"])).await;
    assert_eq!(rates["billable_rates"][0]["start_date"], Value::Null);
}

#[tokio::test]
async fn invalid_user_is_refused_with_all_validation_errors() {
    let client = TestClient::quiet().await;
    let all = "First name can't be blank, Last name can't be blank, Email can't be blank";
    expect_refused(client.post("/users", json!({})).await, all).await;
    for (field, value, message) in [
        ("email", json!("no-address"), "Email is invalid"),
        ("email", json!("ALEXANDRA.hamilton@example.com"), "Email has already been taken"),
        ("weekly_capacity", json!("many"), "Weekly capacity is invalid"),
        ("cost_rate", json!(-1), "Cost rate is invalid"),
        ("roles", json!("Developer"), "Roles is invalid"),
        ("access_roles", json!([]), "Access roles is invalid"),
        ("access_roles", json!(["owner"]), "Access roles is invalid"),
        ("access_roles", json!(["member", "project_creator"]), "Access roles is invalid"),
    ] {
        let mut wanted = george();
        wanted[field] = value;
        expect_refused(client.post("/users", wanted).await, message).await;
    }
    assert_eq!(client.sim.user_ids().len(), 1);
}

#[tokio::test]
async fn updated_user_keeps_the_other_fields() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    let path = format!("/users/{jane}");
    let before = client.json(&path).await;
    client.sim.advance_clock(std::time::Duration::from_mins(1));
    let updated = json_of(client.patch(&path, json!({ "last_name": "Roe" })).await, StatusCode::OK).await;
    let mut expected = before.clone();
    expected["last_name"] = "Roe".into();
    expected["updated_at"] = updated["updated_at"].clone();
    assert_ne!(updated["updated_at"], before["updated_at"]);
    assert_eq!(updated, expected);
    assert_eq!(client.json(&path).await, updated);

    client.sim.advance_clock(std::time::Duration::from_mins(1));
    // Unchanged values and job roles keep `updated_at`. A PATCH of a user ignores rates.
    for fields in [json!({ "last_name": "Roe" }), json!({ "roles": ["Designer"] }), json!({ "cost_rate": 9 })]
    {
        let again = json_of(client.patch(&path, fields).await, StatusCode::OK).await;
        assert_eq!(again["updated_at"], updated["updated_at"]);
    }
    assert_eq!(client.json(&path).await["roles"], json!(["Designer"]));
    expect_refused(client.patch(&path, json!({ "first_name": "" })).await, "First name can't be blank").await;
}

#[tokio::test]
async fn archived_user_has_no_active_assignments_and_cannot_be_renamed() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    let path = format!("/users/{jane}");
    client.sim.assign(jane, client.sim.new_project("Road Building", "RB"));
    let archived = json_of(client.patch(&path, json!({ "is_active": false })).await, StatusCode::OK).await;
    assert_eq!(archived["is_active"], false);
    assert_eq!(client.sim.assignments_json()[0]["is_active"], false);

    let renamed = client.patch(&path, json!({ "last_name": "Roe", "email": "roe@example.com" })).await;
    let message =
        "Last name can't be updated if the user is inactive, Email can't be updated if the user is inactive";
    expect_refused(renamed, message).await;
    let restored = json_of(client.patch(&path, json!({ "is_active": true })).await, StatusCode::OK).await;
    assert_eq!(restored["is_active"], true);
    assert_eq!(client.sim.assignments_json()[0]["is_active"], false, "the assignment stays archived");
    json_of(client.patch(&path, json!({ "last_name": "Roe" })).await, StatusCode::OK).await;
}

#[tokio::test]
async fn deleted_user_is_returned_and_user_with_time_entries_is_kept() {
    let client = TestClient::quiet().await;
    let (jane, john) = (client.sim.create_user("Jane", "Doe"), client.sim.create_user("John", "Doe"));
    let project = client.sim.new_project("Road Building", "RB");
    client.sim.assign(john, project);
    client.sim.track_time(john, project);
    let gone = json_of(client.delete(&format!("/users/{jane}")).await, StatusCode::OK).await;
    assert_eq!((&gone["id"], &gone["is_active"]), (&jane.0.into(), &true.into()));
    let again = client.delete(&format!("/users/{jane}")).await;
    assert_eq!(json_of(again, StatusCode::NOT_FOUND).await, json!({ "status": 404, "error": "Not Found" }));
    let refused = client.delete(&format!("/users/{john}")).await;
    expect_refused(refused, "This user is not removable. It still has time entries and/or expenses.").await;
    assert!(client.sim.user_ids().contains(&john));
}

#[tokio::test]
async fn assignment_is_created_updated_and_deleted_under_its_project() {
    let client = TestClient::quiet().await;
    let (jane, project) =
        (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", "RB"));
    let list = format!("/projects/{project}/user_assignments");
    let response = client.post(&list, json!({ "user_id": jane.0.to_string() })).await;
    let location = header(&response, "location").to_owned();
    let made = json_of(response, StatusCode::CREATED).await;
    let expected = json!({
        "id": made["id"], "is_project_manager": false, "is_active": true, "use_default_rates": true, "budget": null,
        "created_at": made["created_at"], "updated_at": made["created_at"], "hourly_rate": null,
        "project": { "id": project.0, "name": "Road Building", "code": "RB" },
        "user": { "id": jane.0, "name": "Jane Doe" },
    });
    assert_eq!(made, expected);
    assert_eq!(client.json(&location).await, made);
    expect_refused(client.post(&list, json!({ "user_id": jane.0 })).await, "User has already been taken")
        .await;

    let path = format!("{list}/{}", made["id"]);
    let fields =
        json!({ "budget": 120, "use_default_rates": false, "hourly_rate": 75.5, "is_project_manager": true });
    let updated = json_of(client.patch(&path, fields).await, StatusCode::OK).await;
    assert_eq!((&updated["budget"], &updated["hourly_rate"]), (&json!(120.0), &json!(75.5)));
    assert_eq!((&updated["is_project_manager"], &updated["is_active"]), (&json!(true), &json!(true)));
    let updated =
        json_of(client.patch(&path, json!({ "budget": null, "is_active": false })).await, StatusCode::OK)
            .await;
    assert_eq!((&updated["budget"], &updated["is_active"]), (&json!(null), &json!(false)));

    client.sim.track_time(jane, project);
    let message = "This user assignment is not removable. It still has time entries and/or expenses.";
    expect_refused(client.delete(&path).await, message).await;
    let other = client.sim.create_user("John", "Doe");
    let other = json_of(client.post(&list, json!({ "user_id": other.0 })).await, StatusCode::CREATED).await;
    let path = format!("{list}/{}", other["id"]);
    assert_eq!(json_of(client.delete(&path).await, StatusCode::OK).await["id"], other["id"]);
    assert_eq!(client.delete(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn assignment_with_unknown_user_or_project_is_refused() {
    let client = TestClient::quiet().await;
    let (jane, project) =
        (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", "RB"));
    let list = format!("/projects/{project}/user_assignments");
    expect_refused(client.post(&list, json!({})).await, "User can't be blank").await;
    expect_refused(client.post(&list, json!({ "user_id": 1 })).await, "User must exist").await;
    client.sim.archive_user(jane);
    expect_refused(client.post(&list, json!({ "user_id": jane.0 })).await, "User must be active").await;
    let nowhere = client.post("/projects/1/user_assignments", json!({ "user_id": jane.0 })).await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    let assignment = client.sim.assign(client.sim.token_owner(), project);
    let elsewhere = client.sim.new_project("Other", "O");
    let path = format!("/projects/{elsewhere}/user_assignments/{assignment}");
    assert_eq!(client.patch(&path, json!({ "is_active": false })).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn created_rate_replaces_later_rates_and_has_no_patch_or_delete() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    for kind in ["billable_rates", "cost_rates"] {
        let path = format!("/users/{jane}/{kind}");
        json_of(
            client.post(&path, json!({ "amount": 8.25, "start_date": "2018-01-01" })).await,
            StatusCode::CREATED,
        )
        .await;
        let second = json!({ "amount": 9.5, "start_date": "2018-06-01" });
        let second = json_of(client.post(&path, second).await, StatusCode::CREATED).await;
        assert_eq!((&second["amount"], &second["end_date"]), (&json!(9.5), &json!(null)));
        let list = client.json(&path).await;
        assert_eq!(list[kind][0]["end_date"], "2018-05-31");
        let whole = json_of(client.post(&path, json!({ "amount": 10 })).await, StatusCode::CREATED).await;
        assert_eq!(
            client.json(&path).await[kind],
            json!([whole]),
            "a rate without a start date replaces all rates"
        );

        expect_refused(client.post(&path, json!({})).await, "Amount can't be blank").await;
        let future = json!({ "amount": 1, "start_date": "9999-01-01" });
        expect_refused(client.post(&path, future).await, "Start date can't be in the future").await;
        let one = format!("{path}/{}", whole["id"]);
        assert_eq!(client.patch(&one, json!({ "amount": 1 })).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(client.delete(&one).await.status(), StatusCode::NOT_FOUND);
    }
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["default_hourly_rate"], &shown["cost_rate"]), (&json!(10.0), &json!(10.0)));
    assert_eq!(
        client.post("/users/1/cost_rates", json!({ "amount": 1 })).await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn malformed_body_gets_400_and_unknown_path_gets_html_404() {
    let client = TestClient::quiet().await;
    let bad = client.request(Method::POST, "/users").header("Content-Type", "application/json").body("{");
    assert_eq!(bad.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    for (method, path) in
        [(Method::POST, "/users/me"), (Method::PUT, "/users/1"), (Method::DELETE, "/company")]
    {
        let response = client.send(method, path, json!({})).await;
        assert_eq!(
            (response.status(), header(&response, "content-type")),
            (StatusCode::NOT_FOUND, "text/html")
        );
    }
}

#[tokio::test]
async fn request_of_the_readme_changes_a_user() {
    let client = TestClient::open(Company::seeded(1, 50, 10), Options::default()).await;
    let request = include_str!("../../README.md").split("curl -X PATCH").nth(1).unwrap();
    let body = request.split("-d '").nth(1).unwrap().split('\'').next().unwrap();
    let path = request.split("/v2").nth(1).unwrap().split('\'').next().unwrap();
    let changed =
        json_of(client.patch(path, serde_json::from_str(body).unwrap()).await, StatusCode::OK).await;
    assert_eq!(changed["last_name"], "Roe");
}
