//! The log of write requests, their permission and the rate limit.

use harvest_sim::{Company, Fault, Limit, Options};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::writes::{george, json_of};
use super::{TestClient, header};

#[tokio::test]
async fn writes_are_logged_with_fields_and_match_method_faults() {
    let client = TestClient::quiet().await;
    client.get("/users").await;
    client.sim.inject(Fault::html(502).on("POST /v2/users").times(1));
    assert_eq!(client.post("/users", george()).await.status(), StatusCode::BAD_GATEWAY);
    client.sim.inject(Fault::lost_response().on("POST /v2/users").times(1));
    assert!(client.request(Method::POST, "/users").json(&george()).send().await.is_err());
    assert_eq!(client.sim.user_ids().len(), 2, "the user was created before the response was lost");
    let form = client.request(Method::PATCH, &format!("/users/{}", client.sim.user_ids()[1]));
    let form =
        form.header("Content-Type", "application/x-www-form-urlencoded").body("telephone=12&roles[]=HR");
    assert_eq!(form.send().await.unwrap().status(), StatusCode::OK);

    let writes = client.sim.writes();
    let seen: Vec<_> = writes.iter().map(|it| (it.method.as_str(), it.status, it.processed)).collect();
    let expected = [("POST", Some(502), None), ("POST", None, Some(201)), ("PATCH", Some(200), Some(200))];
    assert_eq!(seen, expected);
    assert_eq!(writes[0].fields, Some(george()));
    assert_eq!(writes[2].fields, Some(json!({ "telephone": "12", "roles": ["HR"] })));
}

#[tokio::test]
async fn writes_stay_in_their_log_until_they_are_taken() {
    let client = TestClient::quiet().await;
    client.get("/users").await;
    client.refreshed(&client.sim.oauth().issue_refresh_token()).await;
    client.sim.expect_no_writes();
    client.post("/users", george()).await;
    client.sim.clear_requests();
    client.delete("/users/1").await;
    let log = |writes: Vec<harvest_sim::Request>| -> Vec<_> {
        writes.into_iter().map(|it| (it.method, it.path, it.status)).collect()
    };
    let expected = [
        ("POST".to_owned(), "/v2/users".to_owned(), Some(201)),
        ("DELETE".to_owned(), "/v2/users/1".to_owned(), Some(404)),
    ];
    assert_eq!(log(client.sim.writes()), expected);
    assert_eq!(log(client.sim.take_writes()), expected);
    client.sim.expect_no_writes();
    assert_eq!(client.sim.requests().len(), 1, "taking writes keeps the log of all requests");
    client.patch("/users/1", json!({})).await;
    assert_eq!(client.sim.take_writes().len(), 1);
}

#[tokio::test]
#[should_panic(expected = "the client sent write requests")]
async fn expect_no_writes_panics_after_a_refused_write() {
    let client = TestClient::quiet().await;
    client.delete("/users/1").await;
    client.sim.expect_no_writes();
}

#[tokio::test]
async fn write_without_administrator_access_gets_403() {
    let client = TestClient::quiet().await;
    let (jane, project) =
        (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", None));
    let assignment = client.sim.assign(jane, project);
    let (user, assignments) = (format!("/users/{jane}"), format!("/projects/{project}/user_assignments"));
    let mut administrator = george();
    administrator["access_roles"] = json!(["administrator"]);
    client.sim.demote_token();
    for access_role in ["manager", "time_and_expenses_manager", "member"] {
        client.sim.set_token_role(access_role);
        for refused in [
            client.post("/users", george()).await,
            client.post("/users", administrator.clone()).await,
            client.patch(&user, json!({ "is_active": false })).await,
            client.patch(&user, json!({ "access_roles": ["manager"] })).await,
            client.delete(&user).await,
            client.post(&assignments, json!({ "user_id": jane.0 })).await,
            client.patch(&format!("{assignments}/{assignment}"), json!({ "is_active": false })).await,
            client.delete(&format!("{assignments}/{assignment}")).await,
            client.post("/roles", json!({ "name": "HR" })).await,
        ] {
            assert_eq!(header(&refused, "hint"), "Not authorized!");
            assert_eq!(
                json_of(refused, StatusCode::FORBIDDEN).await,
                json!({ "message": "Not authorized!" })
            );
        }
    }
    assert_eq!(client.sim.user_ids().len(), 2);
    assert_eq!(client.sim.assignments_json()[0]["is_active"], true);
}

#[tokio::test]
async fn writes_count_against_the_rate_limit_and_a_refused_write_has_no_effect() {
    let limit = Some(Limit { requests: 3, ..Limit::default() });
    let client = TestClient::open(Company::new(), Options { limit, ..Options::default() }).await;
    client.get("/users").await;
    assert_eq!(client.post("/users", george()).await.status(), StatusCode::CREATED);
    client.get("/users").await;
    let refused = client.post("/users", json!({ "first_name": "A", "last_name": "B", "email": "c@d" })).await;
    assert_eq!(
        (refused.status(), header(&refused, "content-type")),
        (StatusCode::TOO_MANY_REQUESTS, "text/html")
    );
    assert!(header(&refused, "retry-after").parse::<u64>().unwrap() <= 16);
    assert_eq!(client.sim.user_ids().len(), 2);
    let write = client.sim.take_writes().remove(1);
    assert_eq!((write.status, write.processed), (Some(429), None));
    assert_eq!(write.fields.unwrap()["email"], "c@d");
    assert_eq!(client.sim.max_requests_in_window(Limit::default().window), 4);
}
