//! Requests that change people, assignments and rates, held against the documented and the recorded answers.

use harvest_sim::{Company, Fault, Options};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Desk, header, keys};

impl Desk {
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

pub(super) async fn json_of(answer: Response, status: StatusCode) -> Value {
    let found = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// A 422 says the same in its body and in its `Hint`.
pub(super) async fn expect_refused(answer: Response, message: &str) {
    assert_eq!(header(&answer, "hint"), message);
    let body = json_of(answer, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(body, json!({ "message": message }));
}

fn george() -> Value {
    json!({ "first_name": "George", "last_name": "Frank", "email": "george@example.com" })
}

#[tokio::test]
async fn created_user_is_answered_as_recorded_and_found_at_its_location() {
    let desk = Desk::quiet().await;
    let answer = desk.post("/users", george()).await;
    let location = header(&answer, "location").to_owned();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let text = answer.text().await.unwrap();
    assert_eq!(keys(&text, ""), keys(&desk.text("/users/me").await, ""));
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
    assert_eq!(desk.json(&location).await, made);
    assert_eq!(desk.json("/users").await["users"][0], made);
}

#[tokio::test]
async fn created_user_has_what_the_request_names() {
    let desk = Desk::quiet().await;
    let mut wanted = george();
    let more = json!({
        "timezone": "Kyiv", "has_access_to_all_future_projects": true, "is_contractor": true, "is_active": false,
        "weekly_capacity": 72_000, "default_hourly_rate": 120.5, "cost_rate": 50, "roles": ["Developer"],
        "access_roles": ["manager", "project_creator", "time_and_expenses_manager"],
    });
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = json_of(desk.post("/users", wanted.clone()).await, StatusCode::CREATED).await;
    for (key, value) in wanted.as_object().unwrap() {
        let same = made[key] == *value || made[key].as_f64().is_some_and(|it| Some(it) == value.as_f64());
        assert!(same, "{key}: {} is not {value}", made[key]);
    }
    let rates = desk.json(&format!("/users/{}/billable_rates", made["id"])).await;
    assert_eq!(rates["billable_rates"][0]["start_date"], Value::Null);
}

#[tokio::test]
async fn user_without_required_fields_or_with_wrong_ones_is_refused_in_one_sentence() {
    let desk = Desk::quiet().await;
    let all = "First name can't be blank, Last name can't be blank, Email can't be blank";
    expect_refused(desk.post("/users", json!({})).await, all).await;
    for (field, value, message) in [
        ("email", json!("nobody"), "Email is invalid"),
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
        expect_refused(desk.post("/users", wanted).await, message).await;
    }
    assert_eq!(desk.sim.user_ids().len(), 1);
    desk.sim.configure(|options: &mut Options| options.unique_emails = false);
    let twin = json!({ "first_name": "A", "last_name": "H", "email": "alexandra.hamilton@example.com" });
    assert_eq!(desk.post("/users", twin).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn updated_user_keeps_what_the_request_does_not_name() {
    let desk = Desk::quiet().await;
    let jane = desk.sim.hire("Jane", "Doe");
    let path = format!("/users/{jane}");
    let before = desk.json(&path).await;
    desk.sim.advance_clock(std::time::Duration::from_mins(1));
    let updated = json_of(desk.patch(&path, json!({ "last_name": "Roe" })).await, StatusCode::OK).await;
    let mut expected = before.clone();
    expected["last_name"] = "Roe".into();
    expected["updated_at"] = updated["updated_at"].clone();
    assert_ne!(updated["updated_at"], before["updated_at"]);
    assert_eq!(updated, expected);
    assert_eq!(desk.json(&path).await, updated);

    desk.sim.advance_clock(std::time::Duration::from_mins(1));
    // Neither a repetition nor job roles move the stamp, and rates are no fields of a user to be updated.
    for fields in [json!({ "last_name": "Roe" }), json!({ "roles": ["Designer"] }), json!({ "cost_rate": 9 })]
    {
        let again = json_of(desk.patch(&path, fields).await, StatusCode::OK).await;
        assert_eq!(again["updated_at"], updated["updated_at"]);
    }
    assert_eq!(desk.json(&path).await["roles"], json!(["Designer"]));
    expect_refused(desk.patch(&path, json!({ "first_name": "" })).await, "First name can't be blank").await;
}

#[tokio::test]
async fn archived_user_loses_assignments_and_cannot_be_renamed_until_restored() {
    let desk = Desk::quiet().await;
    let jane = desk.sim.hire("Jane", "Doe");
    let path = format!("/users/{jane}");
    desk.sim.assign(jane, desk.sim.new_project("Road Building", "RB"));
    let archived = json_of(desk.patch(&path, json!({ "is_active": false })).await, StatusCode::OK).await;
    assert_eq!(archived["is_active"], false);
    assert_eq!(desk.sim.assignments_json()[0]["is_active"], false);

    let renamed = desk.patch(&path, json!({ "last_name": "Roe", "email": "roe@example.com" })).await;
    let message =
        "Last name can't be updated if the user is inactive, Email can't be updated if the user is inactive";
    expect_refused(renamed, message).await;
    let restored = json_of(desk.patch(&path, json!({ "is_active": true })).await, StatusCode::OK).await;
    assert_eq!(restored["is_active"], true);
    assert_eq!(desk.sim.assignments_json()[0]["is_active"], false, "it stays archived");
    json_of(desk.patch(&path, json!({ "last_name": "Roe" })).await, StatusCode::OK).await;
}

#[tokio::test]
async fn deleted_user_is_answered_whole_and_gone_unless_there_is_time() {
    let desk = Desk::quiet().await;
    let (jane, john) = (desk.sim.hire("Jane", "Doe"), desk.sim.hire("John", "Doe"));
    let project = desk.sim.new_project("Road Building", "RB");
    desk.sim.assign(john, project);
    desk.sim.track_time(john, project);
    let gone = json_of(desk.delete(&format!("/users/{jane}")).await, StatusCode::OK).await;
    assert_eq!((&gone["id"], &gone["is_active"]), (&jane.0.into(), &true.into()));
    let again = desk.delete(&format!("/users/{jane}")).await;
    assert_eq!(json_of(again, StatusCode::NOT_FOUND).await, json!({ "status": 404, "error": "Not Found" }));
    let refused = desk.delete(&format!("/users/{john}")).await;
    expect_refused(refused, "This user is not removable. It still has time entries and/or expenses.").await;
    assert!(desk.sim.user_ids().contains(&john));
}

#[tokio::test]
async fn assignment_is_created_updated_and_deleted_below_its_project() {
    let desk = Desk::quiet().await;
    let (jane, project) = (desk.sim.hire("Jane", "Doe"), desk.sim.new_project("Road Building", "RB"));
    let list = format!("/projects/{project}/user_assignments");
    let answer = desk.post(&list, json!({ "user_id": jane.0.to_string() })).await;
    let location = header(&answer, "location").to_owned();
    let made = json_of(answer, StatusCode::CREATED).await;
    let expected = json!({
        "id": made["id"], "is_project_manager": false, "is_active": true, "use_default_rates": true, "budget": null,
        "created_at": made["created_at"], "updated_at": made["created_at"], "hourly_rate": null,
        "project": { "id": project.0, "name": "Road Building", "code": "RB" },
        "user": { "id": jane.0, "name": "Jane Doe" },
    });
    assert_eq!(made, expected);
    assert_eq!(desk.json(&location).await, made);
    expect_refused(desk.post(&list, json!({ "user_id": jane.0 })).await, "User has already been taken").await;

    let path = format!("{list}/{}", made["id"]);
    let fields =
        json!({ "budget": 120, "use_default_rates": false, "hourly_rate": 75.5, "is_project_manager": true });
    let updated = json_of(desk.patch(&path, fields).await, StatusCode::OK).await;
    assert_eq!((&updated["budget"], &updated["hourly_rate"]), (&json!(120.0), &json!(75.5)));
    assert_eq!((&updated["is_project_manager"], &updated["is_active"]), (&json!(true), &json!(true)));
    let updated =
        json_of(desk.patch(&path, json!({ "budget": null, "is_active": false })).await, StatusCode::OK).await;
    assert_eq!((&updated["budget"], &updated["is_active"]), (&json!(null), &json!(false)));

    desk.sim.track_time(jane, project);
    let message = "This user assignment is not removable. It still has time entries and/or expenses.";
    expect_refused(desk.delete(&path).await, message).await;
    let other = desk.sim.hire("John", "Doe");
    let other = json_of(desk.post(&list, json!({ "user_id": other.0 })).await, StatusCode::CREATED).await;
    let path = format!("{list}/{}", other["id"]);
    assert_eq!(json_of(desk.delete(&path).await, StatusCode::OK).await["id"], other["id"]);
    assert_eq!(desk.delete(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn assignment_of_a_user_or_project_that_is_not_there_is_refused() {
    let desk = Desk::quiet().await;
    let (jane, project) = (desk.sim.hire("Jane", "Doe"), desk.sim.new_project("Road Building", "RB"));
    let list = format!("/projects/{project}/user_assignments");
    expect_refused(desk.post(&list, json!({})).await, "User can't be blank").await;
    expect_refused(desk.post(&list, json!({ "user_id": 1 })).await, "User must exist").await;
    desk.sim.deactivate(jane);
    expect_refused(desk.post(&list, json!({ "user_id": jane.0 })).await, "User must be active").await;
    let nowhere = desk.post("/projects/1/user_assignments", json!({ "user_id": jane.0 })).await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    let held = desk.sim.assign(desk.sim.token_owner(), project);
    let elsewhere = desk.sim.new_project("Other", "O");
    let path = format!("/projects/{elsewhere}/user_assignments/{held}");
    assert_eq!(desk.patch(&path, json!({ "is_active": false })).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn rate_is_created_replaces_later_ones_and_is_neither_changed_nor_deleted() {
    let desk = Desk::quiet().await;
    let jane = desk.sim.hire("Jane", "Doe");
    for kind in ["billable_rates", "cost_rates"] {
        let path = format!("/users/{jane}/{kind}");
        json_of(
            desk.post(&path, json!({ "amount": 8.25, "start_date": "2018-01-01" })).await,
            StatusCode::CREATED,
        )
        .await;
        let second = json!({ "amount": 9.5, "start_date": "2018-06-01" });
        let second = json_of(desk.post(&path, second).await, StatusCode::CREATED).await;
        assert_eq!((&second["amount"], &second["end_date"]), (&json!(9.5), &json!(null)));
        let list = desk.json(&path).await;
        assert_eq!(list[kind][0]["end_date"], "2018-05-31");
        let whole = json_of(desk.post(&path, json!({ "amount": 10 })).await, StatusCode::CREATED).await;
        assert_eq!(desk.json(&path).await[kind], json!([whole]), "without a start it replaces all");

        expect_refused(desk.post(&path, json!({})).await, "Amount can't be blank").await;
        let future = json!({ "amount": 1, "start_date": "9999-01-01" });
        expect_refused(desk.post(&path, future).await, "Start date can't be in the future").await;
        let one = format!("{path}/{}", whole["id"]);
        assert_eq!(desk.patch(&one, json!({ "amount": 1 })).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(desk.delete(&one).await.status(), StatusCode::NOT_FOUND);
    }
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["default_hourly_rate"], &shown["cost_rate"]), (&json!(10.0), &json!(10.0)));
    assert_eq!(
        desk.post("/users/1/cost_rates", json!({ "amount": 1 })).await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn only_an_administrators_token_may_write() {
    let desk = Desk::quiet().await;
    let jane = desk.sim.hire("Jane", "Doe");
    desk.sim.demote_token();
    for refused in [
        desk.post("/users", george()).await,
        desk.patch(&format!("/users/{jane}"), json!({ "is_active": false })).await,
        desk.delete(&format!("/users/{jane}")).await,
        desk.post("/roles", json!({ "name": "HR" })).await,
    ] {
        assert_eq!(json_of(refused, StatusCode::FORBIDDEN).await, json!({ "message": "Not authorized!" }));
    }
    assert_eq!(desk.sim.user_ids().len(), 2);
}

#[tokio::test]
async fn writes_are_recorded_with_their_fields_and_faults_can_strike_them_alone() {
    let desk = Desk::quiet().await;
    desk.get("/users").await;
    desk.sim.inject(Fault::html(502).on("POST /v2/users").times(1));
    assert_eq!(desk.post("/users", george()).await.status(), StatusCode::BAD_GATEWAY);
    desk.sim.inject(Fault::lost_answer().on("POST /v2/users").times(1));
    assert!(desk.request(Method::POST, "/users").json(&george()).send().await.is_err());
    assert_eq!(desk.sim.user_ids().len(), 2, "the answer was lost after the deed");
    let form = desk.request(Method::PATCH, &format!("/users/{}", desk.sim.user_ids()[1]));
    let form =
        form.header("Content-Type", "application/x-www-form-urlencoded").body("telephone=12&roles[]=HR");
    assert_eq!(form.send().await.unwrap().status(), StatusCode::OK);

    let writes = desk.sim.writes();
    let seen: Vec<_> = writes.iter().map(|it| (it.method.as_str(), it.status)).collect();
    assert_eq!(seen, [("POST", Some(502)), ("POST", None), ("PATCH", Some(200))]);
    assert_eq!(writes[0].fields, Some(george()));
    assert_eq!(writes[2].fields, Some(json!({ "telephone": "12", "roles": ["HR"] })));
}

#[tokio::test]
async fn body_that_cannot_be_read_is_a_400_and_an_unknown_path_is_a_page() {
    let desk = Desk::quiet().await;
    let bad = desk.request(Method::POST, "/users").header("Content-Type", "application/json").body("{");
    assert_eq!(bad.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    for (method, path) in
        [(Method::POST, "/users/me"), (Method::PUT, "/users/1"), (Method::DELETE, "/company")]
    {
        let answer = desk.send(method, path, json!({})).await;
        assert_eq!((answer.status(), header(&answer, "content-type")), (StatusCode::NOT_FOUND, "text/html"));
    }
}

#[tokio::test]
async fn request_of_the_readme_changes_a_person() {
    let desk = Desk::open(Company::seeded(1, 50, 10), Options::default()).await;
    let request = include_str!("../../README.md").split("curl -X PATCH").nth(1).unwrap();
    let body = request.split("-d '").nth(1).unwrap().split('\'').next().unwrap();
    let path = request.split("/v2").nth(1).unwrap().split('\'').next().unwrap();
    let changed = json_of(desk.patch(path, serde_json::from_str(body).unwrap()).await, StatusCode::OK).await;
    assert_eq!(changed["last_name"], "Roe");
}
