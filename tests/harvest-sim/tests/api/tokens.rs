//! The token endpoint, and API requests with its tokens.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::TimeDelta;
use harvest_sim::{Company, Grant, Limit, Options, Outcome, Refusal};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use super::{TestClient, header};

const GRANTED: Outcome = Outcome::Granted;
const INVALID_GRANT: Outcome = Outcome::Refused(Refusal::InvalidGrant);
const INVALID_CLIENT: Outcome = Outcome::Refused(Refusal::InvalidClient);

impl TestClient {
    /// A token request without a body.
    fn token_request(&self) -> RequestBuilder {
        let url = format!("{}/api/v2/oauth2/token", self.sim.identity_url());
        self.http.post(url).header("User-Agent", "tests (tests@example.com)")
    }

    /// A token request with these fields and the application's id and secret.
    pub fn exchange(&self, fields: &[(&str, &str)]) -> RequestBuilder {
        let (id, secret) = (self.sim.oauth().client_id(), self.sim.oauth().client_secret());
        self.form(&[&[("client_id", &*id), ("client_secret", &*secret)], fields].concat())
    }

    fn form(&self, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.token_request().header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    pub fn refresh(&self, token: &str) -> RequestBuilder {
        self.exchange(&[("grant_type", "refresh_token"), ("refresh_token", token)])
    }

    /// Exchanges a refresh token for new tokens.
    pub async fn refreshed(&self, token: &str) -> Pair {
        Pair::of(self.refresh(token).send().await.unwrap()).await
    }

    /// Requests `/users/me` with this access token.
    async fn me(&self, access_token: &str) -> Response {
        let request = self.bare("/users/me").header("User-Agent", "t").bearer_auth(access_token);
        request.header("Harvest-Account-Id", self.sim.account_id()).send().await.unwrap()
    }

    pub async fn status_with(&self, access_token: &str) -> u16 {
        self.me(access_token).await.status().as_u16()
    }
}

/// The tokens in a successful response of the token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub access: String,
    pub refresh: String,
}

impl Pair {
    pub async fn of(response: Response) -> Self {
        assert_eq!(response.status().as_u16(), 200);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let token = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: token("access_token"), refresh: token("refresh_token") }
    }
}

/// The status and the `error` of a refused token request.
pub async fn refused(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(header(&response, "content-type"), "application/json");
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert!(!body["error_description"].as_str().unwrap().is_empty());
    (status, body["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn refresh_response_is_as_documented_and_its_access_token_is_valid() {
    let client = TestClient::quiet().await;
    let refresh_token = client.sim.oauth().issue_refresh_token();
    let response = client.refresh(&refresh_token).send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "application/json; charset=utf-8");
    assert_eq!(header(&response, "cache-control"), "no-store");
    let text = response.text().await.unwrap();
    assert_eq!(super::keys(&text, ""), ["access_token", "refresh_token", "token_type", "expires_in"]);
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("bearer"), &json!(1_209_600)));
    assert_eq!(body["refresh_token"], json!(refresh_token), "the refresh token does not change");
    let access_token = body["access_token"].as_str().unwrap();
    assert!(access_token.starts_with("2348607.at."), "{access_token}");
    assert_eq!(client.status_with(access_token).await, 200);
    assert_eq!(client.status_with(&refresh_token).await, 401);
    assert_eq!(client.status_with(&client.sim.token()).await, 200, "the personal token stays valid");
}

#[tokio::test]
async fn token_request_accepts_form_json_and_basic_credentials() {
    let client = TestClient::quiet().await;
    let (id, secret) = (client.sim.oauth().client_id(), client.sim.oauth().client_secret());
    let token = client.sim.oauth().issue_refresh_token();
    let fields = json!({
        "grant_type": "refresh_token", "refresh_token": token, "client_id": id, "client_secret": secret,
    });
    let as_json = client.token_request().header("Content-Type", "application/json").body(fields.to_string());
    Pair::of(as_json.send().await.unwrap()).await;
    let by_header = client
        .form(&[("grant_type", "refresh_token"), ("refresh_token", &token)])
        .header("Authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}"))));
    Pair::of(by_header.send().await.unwrap()).await;
    assert_eq!(client.sim.oauth().count(Grant::RefreshToken, GRANTED), 2);
}

#[tokio::test]
async fn wrong_token_request_gets_the_oauth2_error_code() {
    let client = TestClient::quiet().await;
    let token = client.sim.oauth().issue_refresh_token();
    let refusal = |status, error: &str| (status, error.to_owned());
    assert_eq!(refused(client.refresh("unknown")).await, refusal(400, "invalid_grant"));
    assert_eq!(refused(client.exchange(&[])).await, refusal(400, "invalid_request"));
    let no_token = client.exchange(&[("grant_type", "refresh_token")]);
    assert_eq!(refused(no_token).await, refusal(400, "invalid_request"));
    let password = client.exchange(&[("grant_type", "password")]);
    assert_eq!(refused(password).await, refusal(400, "unsupported_grant_type"));
    let fields = [("grant_type", "refresh_token"), ("refresh_token", &*token)];
    assert_eq!(refused(client.form(&fields)).await, refusal(401, "invalid_client"));
    let request = client.refresh(&token);
    client.sim.oauth().register("another", "application");
    let response = request.send().await.unwrap();
    assert!(header(&response, "www-authenticate").starts_with("Basic "));
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(client.sim.oauth().client_id(), "another");
    Pair::of(client.refresh(&token).send().await.unwrap()).await;

    let oauth = client.sim.oauth();
    let count = |outcome| oauth.count(Grant::RefreshToken, outcome);
    assert_eq!([count(GRANTED), count(INVALID_GRANT), count(INVALID_CLIENT)], [1, 1, 2]);
    assert_eq!(oauth.count(Grant::Other, Outcome::Refused(Refusal::UnsupportedGrantType)), 1);
}

#[tokio::test]
async fn token_request_needs_a_user_agent_and_the_post_method() {
    let client = TestClient::quiet().await;
    let url = format!("{}/api/v2/oauth2/token", client.sim.identity_url());
    assert_eq!(client.http.post(&url).send().await.unwrap().status().as_u16(), 400);
    let response = client.ask(&url).send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (404, "text/html"));
}

#[tokio::test]
async fn access_token_expires_by_the_simulators_clock() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    client.sim.oauth().set_token_lifetime(Duration::from_secs(4));
    let first = client.refreshed(&client.sim.oauth().issue_refresh_token()).await;
    client.sim.shift_clock(TimeDelta::seconds(3));
    assert_eq!(client.status_with(&first.access).await, 200);
    client.sim.shift_clock(TimeDelta::seconds(1));
    let response = client.me(&first.access).await;
    assert!(header(&response, "www-authenticate").starts_with("Bearer "));
    assert_eq!(response.status().as_u16(), 401);
    let second = client.refreshed(&first.refresh).await;
    assert_ne!(second.access, first.access);
    assert_eq!(client.status_with(&second.access).await, 200);
}

#[tokio::test]
async fn rotated_refresh_token_is_invalid_at_once() {
    let client = TestClient::quiet().await;
    client.sim.oauth().rotate(true);
    let first = client.sim.oauth().issue_refresh_token();
    let pair = client.refreshed(&first).await;
    assert_ne!(pair.refresh, first);
    assert_eq!(refused(client.refresh(&first)).await.1, "invalid_grant");
    let next = client.refreshed(&pair.refresh).await;
    for access in [&pair.access, &next.access] {
        assert_eq!(client.status_with(access).await, 200, "both access tokens are valid until they expire");
    }
    let shown: Vec<_> = client.sim.oauth().requests().into_iter().map(|it| it.refresh_token).collect();
    assert_eq!(shown, [Some(first.clone()), Some(first.clone()), Some(pair.refresh.clone())]);
    let secrets = client.sim.oauth().secrets();
    for secret in [&first, &pair.refresh, &next.refresh, &pair.access, &next.access] {
        assert!(secrets.contains(secret));
    }
    assert!(secrets.contains(&client.sim.oauth().client_secret()));
}

#[tokio::test]
async fn access_tokens_or_all_tokens_are_revoked() {
    let client = TestClient::quiet().await;
    let oauth = client.sim.oauth();
    let pair = client.refreshed(&oauth.issue_refresh_token()).await;
    oauth.revoke_access_tokens();
    assert_eq!(client.status_with(&pair.access).await, 401);
    let pair = client.refreshed(&pair.refresh).await;
    oauth.revoke_all();
    assert_eq!(client.status_with(&pair.access).await, 401);
    assert_eq!(refused(client.refresh(&pair.refresh)).await.1, "invalid_grant");
    assert_eq!(client.status_with(&client.sim.token()).await, 200);
}

#[tokio::test]
async fn access_token_has_the_permissions_of_its_owner() {
    let client = TestClient::quiet().await;
    let pair = client.refreshed(&client.sim.oauth().issue_refresh_token()).await;
    let statuses = async || {
        let request = client.bare("/users").header("User-Agent", "t").bearer_auth(&pair.access);
        let account = request.try_clone().unwrap().header("Harvest-Account-Id", client.sim.account_id());
        let other = request.header("Harvest-Account-Id", "1");
        let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
        [status(account).await, status(other).await]
    };
    assert_eq!(statuses().await, [200, 404]);
    client.sim.set_token_role("member");
    assert_eq!(statuses().await, [403, 404]);
    client.sim.archive_user(client.sim.token_owner());
    assert_eq!(statuses().await, [401, 401]);
}

#[tokio::test]
async fn identity_requests_do_not_count_against_the_limit() {
    let limit = Some(Limit { requests: 2, window: Duration::from_mins(1) });
    let client = TestClient::open(Company::new(), Options { limit, ..Options::default() }).await;
    let token = client.sim.oauth().issue_refresh_token();
    for _ in 0..3 {
        client.refreshed(&token).await;
    }
    assert_eq!(client.sim.requests().len(), 3);
    assert_eq!(client.sim.max_requests_in_window(Duration::from_mins(1)), 0);
}
