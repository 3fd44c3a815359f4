//! Faults at the token endpoint, above all responses that are lost after the request was processed.

use std::time::Duration;

use harvest_sim::{Fault, Grant, Outcome, Refusal};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::TestClient;
use super::tokens::refused;

const TOKEN: &str = "/oauth2/token";

#[tokio::test]
async fn fault_before_processing_keeps_the_refresh_token_valid() {
    let client = TestClient::quiet().await;
    client.sim.oauth().rotate(true);
    let token = client.sim.oauth().issue_refresh_token();
    client.sim.inject(Fault::html(503).on(TOKEN));
    client.sim.inject(Fault::reset().on(TOKEN));
    client.sim.inject(Fault::refusal(400).on(TOKEN));
    client.sim.inject(Fault::refusal(401).on(TOKEN));
    assert_eq!(
        client.get("/users/me").await.status().as_u16(),
        200,
        "the faults apply only to the token endpoint"
    );
    assert_eq!(client.refresh(&token).send().await.unwrap().status().as_u16(), 503);
    assert!(client.refresh(&token).send().await.is_err());
    assert_eq!(refused(client.refresh(&token)).await, (400, "invalid_grant".to_owned()));
    assert_eq!(refused(client.refresh(&token)).await, (401, "invalid_client".to_owned()));
    client.refreshed(&token).await;
    let outcomes: Vec<_> = client.sim.oauth().requests().into_iter().map(|it| it.outcome).collect();
    assert_eq!(outcomes, [None, None, None, None, Some(Outcome::Granted)]);
}

#[tokio::test]
async fn lost_response_invalidates_a_rotated_refresh_token() {
    for (fault, kind) in [(Fault::lost_response(), "reset"), (Fault::truncate_body(), "cut")] {
        let client = TestClient::quiet().await;
        client.sim.oauth().rotate(true);
        let token = client.sim.oauth().issue_refresh_token();
        client.sim.inject(fault.on(TOKEN));
        let lost = match client.refresh(&token).send().await {
            Ok(response) => response.text().await.is_err(),
            Err(_) => true,
        };
        assert!(lost, "{kind}");
        assert_eq!(refused(client.refresh(&token)).await.1, "invalid_grant", "{kind}");
        let outcomes: Vec<_> = client.sim.oauth().requests().into_iter().map(|it| it.outcome).collect();
        let refused = Outcome::Refused(Refusal::InvalidGrant);
        assert_eq!(outcomes, [Some(Outcome::Granted), Some(refused)], "{kind}");
    }
}

#[tokio::test]
async fn slow_response_waits_after_processing_and_delay_waits_before() {
    let by = Duration::from_mins(10);
    let held = Fault::hold_response(CancellationToken::new());
    for (fault, done) in [(Fault::slow_response(by), 1), (held, 1), (Fault::delay_request(by), 0)] {
        let client = TestClient::quiet().await;
        let oauth = client.sim.oauth();
        oauth.rotate(true);
        let token = oauth.issue_refresh_token();
        client.sim.inject(fault.on(TOKEN));
        let waiting = tokio::spawn(client.refresh(&token).send());
        until(|| oauth.requests().len() == 1 && oauth.count(Grant::RefreshToken, Outcome::Granted) == done)
            .await;
        waiting.abort();
        let again = client.refresh(&token).send().await.unwrap();
        assert_eq!(again.status().as_u16(), if done == 1 { 400 } else { 200 });
        assert_eq!(oauth.count(Grant::RefreshToken, Outcome::Granted), 1);
    }
}

#[tokio::test]
async fn token_requests_in_flight_are_counted_until_the_client_disconnects() {
    let client = TestClient::quiet().await;
    let oauth = client.sim.oauth();
    let token = oauth.issue_refresh_token();
    for _ in 0..3 {
        client.refreshed(&token).await;
    }
    assert_eq!(oauth.max_in_flight(), 1);
    client.sim.inject(Fault::delay_request(Duration::from_mins(10)).on(TOKEN).times(2));
    let waiting = [(); 2].map(|()| tokio::spawn(client.refresh(&token).send()));
    until(|| oauth.max_in_flight() == 2).await;
    waiting.iter().for_each(JoinHandle::abort);
    // Wait until the server detects the disconnects.
    until(|| {
        oauth.clear_requests();
        oauth.max_in_flight() == 0
    })
    .await;
    client.refreshed(&token).await;
    assert_eq!((oauth.max_in_flight(), oauth.requests().len()), (1, 1));
}

/// Waits until the condition is true, at most 30 seconds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

#[tokio::test]
async fn remove_field_fault_removes_a_field_of_the_response() {
    let client = TestClient::quiet().await;
    let token = client.sim.oauth().issue_refresh_token();
    client.sim.inject(Fault::remove_field("refresh_token").on(TOKEN));
    let response = client.refresh(&token).send().await.unwrap().text().await.unwrap();
    let response: Value = serde_json::from_str(&response).unwrap();
    assert!(response.get("refresh_token").is_none() && response.get("access_token").is_some());
}
