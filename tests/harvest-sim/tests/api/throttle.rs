//! The rate limit and the request log over HTTP.

use std::time::Duration;

use harvest_sim::{Company, Limit, Options};
use reqwest::StatusCode;

use super::{TestClient, header};

#[tokio::test]
async fn request_101_gets_an_html_429_with_retry_after() {
    let client = TestClient::open(Company::new(), Options::default()).await;
    for _ in 0..100 {
        assert_eq!(client.get("/users/me").await.status(), StatusCode::OK);
    }
    let refused = client.get("/users/me").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&refused, "content-type"), "text/html");
    let seconds: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=15).contains(&seconds), "{seconds}");
    assert!(!refused.headers().keys().any(|name| name.as_str().starts_with("x-ratelimit")));
    assert!(refused.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(client.sim.max_requests_in_window(Duration::from_secs(15)), 101);
}

#[tokio::test]
async fn request_after_retry_after_is_admitted() {
    let limit = Some(Limit { requests: 2, window: Duration::from_millis(300) });
    let client = TestClient::open(Company::new(), Options { limit, ..Options::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.get("/users/me").await);
    }
    let seconds: u64 = header(&statuses[2], "retry-after").parse().unwrap();
    assert_eq!(seconds, 1, "one second is the minimum of Retry-After");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(client.get("/users/me").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn disabled_limit_admits_all_requests() {
    let client = TestClient::quiet().await;
    for _ in 0..150 {
        assert_eq!(client.get("/users/me").await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_are_logged_in_the_order_of_arrival() {
    let client = TestClient::quiet().await;
    client.get("/users?per_page=5&is_active=true").await;
    client.ask("/nowhere").send().await.unwrap();
    let report = client.sim.requests();
    let seen: Vec<_> = report.iter().map(|it| (it.method.as_str(), it.path.as_str(), it.status)).collect();
    let expected =
        [("GET", "/v2/users?per_page=5&is_active=true", Some(200)), ("GET", "/v2/nowhere", Some(404))];
    assert_eq!(seen, expected);
    assert!(report[0].at <= report[1].at);
    client.sim.clear_requests();
    assert!(client.sim.requests().is_empty());
    assert_eq!(client.sim.max_requests_in_window(Duration::from_secs(15)), 0);
}
