//! The checks that come before any record, in their order.

use harvest_sim::{Company, Limit, Options};
use reqwest::{Response, StatusCode};
use std::time::Duration;

use super::{Desk, header};

const INVALID_TOKEN: &str = r#"{"error":"invalid_token","error_description":"The access token provided is expired, revoked, malformed or invalid for other reasons."}"#;
const NO_RECORD: &str = r#"{"status":404,"error":"Not Found"}"#;

async fn expect(answer: Response, status: u16, content_type: &str, body: &str) {
    assert_eq!(answer.status().as_u16(), status);
    assert_eq!(header(&answer, "content-type"), content_type);
    assert_eq!(answer.text().await.unwrap(), body);
}

#[tokio::test]
async fn a_bad_token_is_refused_with_the_recorded_challenge() {
    let desk = Desk::quiet().await;
    let agent = |path| desk.bare(path).header("User-Agent", "t").header("Harvest-Account-Id", "bar");
    let answer = agent("/users/me").bearer_auth("foo").send().await.unwrap();
    assert_eq!(
        header(&answer, "www-authenticate"),
        r#"Bearer realm="Rack::OAuth2 Protected Resources", error="invalid_token", error_description="The access token provided is expired, revoked, malformed or invalid for other reasons.""#
    );
    expect(answer, 401, "application/json", INVALID_TOKEN).await;
    // The token is checked before the account, and before there is a path.
    let missing = agent("/nowhere").send().await.unwrap();
    expect(missing, 401, "application/json", INVALID_TOKEN).await;
}

#[tokio::test]
async fn a_missing_account_is_refused_in_the_words_of_a_bad_token() {
    let desk = Desk::quiet().await;
    let request = desk.bare("/users").header("User-Agent", "t").bearer_auth(desk.sim.token());
    expect(request.send().await.unwrap(), 401, "application/json", INVALID_TOKEN).await;
}

#[tokio::test]
async fn another_account_is_not_found() {
    let desk = Desk::quiet().await;
    for account in ["1", "bar"] {
        let request = desk.bare("/users").header("User-Agent", "t").header("harvest-account-id", account);
        let answer = request.bearer_auth(desk.sim.token()).send().await.unwrap();
        expect(answer, 404, "application/json; charset=UTF-8", NO_RECORD).await;
    }
}

#[tokio::test]
async fn credentials_in_the_query_are_accepted_and_never_logged() {
    let desk = Desk::quiet().await;
    let (token, account) = (desk.sim.token(), desk.sim.account_id());
    let path = format!("/users?access_token={token}&account_id={account}&per_page=1");
    let answer = desk.bare(&path).header("User-Agent", "t").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.text().await.unwrap().contains(&token), "links carry no token");
    assert_eq!(desk.sim.requests()[0].path, "/v2/users?per_page=1");
}

#[tokio::test]
async fn a_request_needs_a_user_agent_and_a_get_no_body() {
    let desk = Desk::quiet().await;
    let anonymous = desk.bare("/users").header("Harvest-Account-Id", desk.sim.account_id());
    let answer = anonymous.bearer_auth(desk.sim.token()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let answer = desk.ask("/users").body("{}").send().await.unwrap();
    expect(answer, 400, "text/plain", "HTTP GET requests with a body are not accepted.").await;
}

#[tokio::test]
async fn a_path_without_a_route_is_a_page_of_html_and_a_missing_record_is_json() {
    let desk = Desk::quiet().await;
    let project = desk.sim.new_project("Road Building", None);
    let held = desk.sim.assign(desk.sim.token_owner(), project);
    let paths = [
        "/nowhere",
        "//users",
        "/projects/",
        "/projects//user_assignments",
        "/users/",
        "/user_assignments/7",
    ];
    for path in paths {
        let answer = desk.get(path).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (404, "text/html"), "{path}");
        assert!(answer.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    }
    let other = desk.sim.new_project("Castle Building", None);
    for path in [
        "/users/9999999999".to_owned(),
        "/users/none".to_owned(),
        "/users/none/billable_rates".to_owned(),
        "/projects/1".to_owned(),
        "/projects/1/user_assignments".to_owned(),
        format!("/projects/{project}/user_assignments/1"),
        format!("/projects/{other}/user_assignments/{held}"),
    ] {
        expect(desk.get(&path).await, 404, "application/json; charset=UTF-8", NO_RECORD).await;
    }
    let found = desk.json(&format!("/projects/{project}/user_assignments/{held}")).await;
    assert_eq!(found["id"], held.0);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_400_and_what_is_out_of_range_a_422() {
    let desk = Desk::quiet().await;
    for since in ["yesterday", "2010-01-01%2000:00:00%2B00:00", "2010-01-01T00:00:00+00:00"] {
        let answer = desk.get(&format!("/users?updated_since={since}")).await;
        assert_eq!(answer.status().as_u16(), 400, "{since}");
    }
    for query in ["per_page=2001", "per_page=0", "per_page=many", "page=0", "cursor=nonsense"] {
        let answer = desk.get(&format!("/users?{query}")).await;
        assert_eq!(answer.status().as_u16(), 422, "{query}");
        let hint = header(&answer, "hint").to_owned();
        let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(body["message"], hint, "the hint repeats the message");
    }
    assert_eq!(desk.get("/users?per_page=2000").await.status(), StatusCode::OK);
    desk.sim.configure(|options| options.max_per_page = 100);
    assert_eq!(desk.get("/users?per_page=2000").await.status().as_u16(), 422);
    assert_eq!(desk.json("/users").await["per_page"], 100);
}

#[tokio::test]
async fn the_throttle_comes_before_every_other_check() {
    let limit = Some(Limit { requests: 1, window: Duration::from_mins(1) });
    let desk = Desk::open(Company::new(), Options { limit, ..Options::default() }).await;
    assert_eq!(desk.bare("/users").send().await.unwrap().status().as_u16(), 400);
    assert_eq!(desk.bare("/users").send().await.unwrap().status().as_u16(), 429);
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_the_simulators_time() {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    desk.sim.shift_clock(chrono::TimeDelta::days(-400));
    let expected = desk.sim.now();
    let mut seen = std::collections::HashSet::new();
    for path in ["/users", "/nowhere", "/users/1"] {
        let answer = desk.get(path).await;
        let date = httpdate::parse_http_date(header(&answer, "date")).unwrap();
        assert_eq!(
            date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
            expected.unix().unsigned_abs()
        );
        let id = header(&answer, "x-request-id").to_owned();
        assert_eq!(id.len(), 32);
        assert!(seen.insert(id));
    }
}

#[tokio::test]
async fn the_old_prefix_is_served_as_well() {
    let desk = Desk::quiet().await;
    let old = desk.sim.base_url().replace("/v2", "/api/v2/users");
    assert_eq!(desk.json(&old).await, desk.json("/users").await);
}
