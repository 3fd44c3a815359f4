//! The checks before the routing, and their order.

use harvest_sim::{Company, Limit, Options};
use reqwest::{Response, StatusCode};
use std::time::Duration;

use super::{TestClient, header};

const INVALID_TOKEN: &str = r#"{"error":"invalid_token","error_description":"The access token provided is expired, revoked, malformed or invalid for other reasons."}"#;
const NO_RECORD: &str = r#"{"status":404,"error":"Not Found"}"#;

async fn expect(response: Response, status: u16, content_type: &str, body: &str) {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(header(&response, "content-type"), content_type);
    assert_eq!(response.text().await.unwrap(), body);
}

#[tokio::test]
async fn wrong_token_gets_401_with_the_recorded_challenge() {
    let client = TestClient::quiet().await;
    let agent = |path| client.bare(path).header("User-Agent", "t").header("Harvest-Account-Id", "bar");
    let response = agent("/users/me").bearer_auth("foo").send().await.unwrap();
    assert_eq!(
        header(&response, "www-authenticate"),
        r#"Bearer realm="Rack::OAuth2 Protected Resources", error="invalid_token", error_description="The access token provided is expired, revoked, malformed or invalid for other reasons.""#
    );
    expect(response, 401, "application/json", INVALID_TOKEN).await;
    // The token is checked before the account and before the path.
    let missing = agent("/nowhere").send().await.unwrap();
    expect(missing, 401, "application/json", INVALID_TOKEN).await;
}

#[tokio::test]
async fn missing_account_header_gets_the_invalid_token_error() {
    let client = TestClient::quiet().await;
    let request = client.bare("/users").header("User-Agent", "t").bearer_auth(client.sim.token());
    expect(request.send().await.unwrap(), 401, "application/json", INVALID_TOKEN).await;
}

#[tokio::test]
async fn unknown_account_gets_404() {
    let client = TestClient::quiet().await;
    for account in ["1", "bar"] {
        let request = client.bare("/users").header("User-Agent", "t").header("harvest-account-id", account);
        let response = request.bearer_auth(client.sim.token()).send().await.unwrap();
        expect(response, 404, "application/json; charset=UTF-8", NO_RECORD).await;
    }
}

#[tokio::test]
async fn credentials_in_the_query_are_accepted_and_never_logged() {
    let client = TestClient::quiet().await;
    let (token, account) = (client.sim.token(), client.sim.account_id());
    let path = format!("/users?access_token={token}&account_id={account}&per_page=1");
    let response = client.bare(&path).header("User-Agent", "t").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.text().await.unwrap().contains(&token), "links contain no token");
    assert_eq!(client.sim.requests()[0].path, "/v2/users?per_page=1");
}

#[tokio::test]
async fn request_without_user_agent_or_get_with_body_gets_400() {
    let client = TestClient::quiet().await;
    let anonymous = client.bare("/users").header("Harvest-Account-Id", client.sim.account_id());
    let response = anonymous.bearer_auth(client.sim.token()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let response = client.ask("/users").body("{}").send().await.unwrap();
    expect(response, 400, "text/plain", "HTTP GET requests with a body are not accepted.").await;
}

#[tokio::test]
async fn unknown_path_gets_html_404_and_missing_record_gets_json_404() {
    let client = TestClient::quiet().await;
    let project = client.sim.new_project("Road Building", None);
    let assignment = client.sim.assign(client.sim.token_owner(), project);
    let paths = [
        "/nowhere",
        "//users",
        "/projects/",
        "/projects//user_assignments",
        "/users/",
        "/user_assignments/7",
    ];
    for path in paths {
        let response = client.get(path).await;
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-type")),
            (404, "text/html"),
            "{path}"
        );
        assert!(response.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    }
    let other = client.sim.new_project("Castle Building", None);
    for path in [
        "/users/9999999999".to_owned(),
        "/users/none".to_owned(),
        "/users/none/billable_rates".to_owned(),
        "/projects/1".to_owned(),
        "/projects/1/user_assignments".to_owned(),
        format!("/projects/{project}/user_assignments/1"),
        format!("/projects/{other}/user_assignments/{assignment}"),
    ] {
        expect(client.get(&path).await, 404, "application/json; charset=UTF-8", NO_RECORD).await;
    }
    let found = client.json(&format!("/projects/{project}/user_assignments/{assignment}")).await;
    assert_eq!(found["id"], assignment.0);
}

#[tokio::test]
async fn unreadable_parameter_gets_400_and_value_out_of_range_gets_422() {
    let client = TestClient::quiet().await;
    for since in ["yesterday", "2010-01-01%2000:00:00%2B00:00", "2010-01-01T00:00:00+00:00"] {
        let response = client.get(&format!("/users?updated_since={since}")).await;
        assert_eq!(response.status().as_u16(), 400, "{since}");
    }
    for query in ["per_page=2001", "per_page=0", "per_page=many", "page=0", "cursor=nonsense"] {
        let response = client.get(&format!("/users?{query}")).await;
        assert_eq!(response.status().as_u16(), 422, "{query}");
        let hint = header(&response, "hint").to_owned();
        let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body["message"], hint, "the hint repeats the message");
    }
    assert_eq!(client.get("/users?per_page=2000").await.status(), StatusCode::OK);
    client.sim.configure(|options| options.max_per_page = 100);
    assert_eq!(client.get("/users?per_page=2000").await.status().as_u16(), 422);
    assert_eq!(client.json("/users").await["per_page"], 100);
}

#[tokio::test]
async fn rate_limit_is_checked_first() {
    let limit = Some(Limit { requests: 1, window: Duration::from_mins(1) });
    let client = TestClient::open(Company::new(), Options { limit, ..Options::default() }).await;
    assert_eq!(client.bare("/users").send().await.unwrap().status().as_u16(), 400);
    assert_eq!(client.bare("/users").send().await.unwrap().status().as_u16(), 429);
}

#[tokio::test]
async fn every_response_has_a_request_id_and_the_simulators_date() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    client.sim.shift_clock(chrono::TimeDelta::days(-400));
    let expected = client.sim.now();
    let mut seen = std::collections::HashSet::new();
    for path in ["/users", "/nowhere", "/users/1"] {
        let response = client.get(path).await;
        let date = httpdate::parse_http_date(header(&response, "date")).unwrap();
        assert_eq!(
            date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
            expected.unix().unsigned_abs()
        );
        let id = header(&response, "x-request-id").to_owned();
        assert_eq!(id.len(), 32);
        assert!(seen.insert(id));
    }
}

#[tokio::test]
async fn old_path_prefix_serves_the_same_responses() {
    let client = TestClient::quiet().await;
    let old = client.sim.base_url().replace("/v2", "/api/v2/users");
    assert_eq!(client.json(&old).await, client.json("/users").await);
}
