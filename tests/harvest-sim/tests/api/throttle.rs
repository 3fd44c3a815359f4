//! The rate limit over HTTP, and the report of it.

use std::time::Duration;

use harvest_sim::{Company, Limit, Options};
use reqwest::StatusCode;

use super::{Desk, header};

#[tokio::test]
async fn the_hundred_and_first_request_is_refused_in_html_and_told_when_to_come_back() {
    let desk = Desk::open(Company::new(), Options::default()).await;
    for _ in 0..100 {
        assert_eq!(desk.get("/users/me").await.status(), StatusCode::OK);
    }
    let refused = desk.get("/users/me").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&refused, "content-type"), "text/html");
    let seconds: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=15).contains(&seconds), "{seconds}");
    assert!(!refused.headers().keys().any(|name| name.as_str().starts_with("x-ratelimit")));
    assert!(refused.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(desk.sim.most_in_any_window(Duration::from_secs(15)), 101);
}

#[tokio::test]
async fn after_retry_after_the_throttle_is_lifted() {
    let limit = Some(Limit { requests: 2, window: Duration::from_millis(300) });
    let desk = Desk::open(Company::new(), Options { limit, ..Options::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(desk.get("/users/me").await);
    }
    let seconds: u64 = header(&statuses[2], "retry-after").parse().unwrap();
    assert_eq!(seconds, 1, "a whole second is the least that can be said");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(desk.get("/users/me").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_limit_can_be_off() {
    let desk = Desk::quiet().await;
    for _ in 0..150 {
        assert_eq!(desk.get("/users/me").await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn every_request_is_reported_in_the_order_of_arrival() {
    let desk = Desk::quiet().await;
    desk.get("/users?per_page=5&is_active=true").await;
    desk.ask("/nowhere").send().await.unwrap();
    let report = desk.sim.requests();
    let seen: Vec<_> = report.iter().map(|it| (it.method.as_str(), it.path.as_str(), it.status)).collect();
    let expected =
        [("GET", "/v2/users?per_page=5&is_active=true", Some(200)), ("GET", "/v2/nowhere", Some(404))];
    assert_eq!(seen, expected);
    assert!(report[0].at <= report[1].at);
    desk.sim.clear_requests();
    assert!(desk.sim.requests().is_empty());
    assert_eq!(desk.sim.most_in_any_window(Duration::from_secs(15)), 0);
}
