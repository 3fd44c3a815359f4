//! The token endpoint, and the API with the tokens it gives.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::TimeDelta;
use harvest_sim::{Company, Grant, Limit, Options, Outcome, Refusal};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use super::{Desk, header};

const GRANTED: Outcome = Outcome::Granted;
const INVALID_GRANT: Outcome = Outcome::Refused(Refusal::InvalidGrant);
const INVALID_CLIENT: Outcome = Outcome::Refused(Refusal::InvalidClient);

impl Desk {
    /// A request to the token endpoint, without any body.
    fn knock(&self) -> RequestBuilder {
        let url = format!("{}/api/v2/oauth2/token", self.sim.identity_url());
        self.http.post(url).header("User-Agent", "tests (tests@example.com)")
    }

    /// The same with these fields, and the application's id and secret.
    pub fn exchange(&self, fields: &[(&str, &str)]) -> RequestBuilder {
        let (id, secret) = (self.sim.oauth().client_id(), self.sim.oauth().client_secret());
        self.form(&[&[("client_id", &*id), ("client_secret", &*secret)], fields].concat())
    }

    fn form(&self, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.knock().header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    pub fn refresh(&self, token: &str) -> RequestBuilder {
        self.exchange(&[("grant_type", "refresh_token"), ("refresh_token", token)])
    }

    /// The tokens that a refresh gives.
    pub async fn refreshed(&self, token: &str) -> Pair {
        Pair::of(self.refresh(token).send().await.unwrap()).await
    }

    /// What the API says to this token.
    async fn me(&self, access_token: &str) -> Response {
        let request = self.bare("/users/me").header("User-Agent", "t").bearer_auth(access_token);
        request.header("Harvest-Account-Id", self.sim.account_id()).send().await.unwrap()
    }

    pub async fn status_with(&self, access_token: &str) -> u16 {
        self.me(access_token).await.status().as_u16()
    }
}

/// A good answer of the token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub access: String,
    pub refresh: String,
}

impl Pair {
    pub async fn of(answer: Response) -> Self {
        assert_eq!(answer.status().as_u16(), 200);
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let token = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: token("access_token"), refresh: token("refresh_token") }
    }
}

/// Status and `error` of a refusal.
pub async fn refused(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert!(!body["error_description"].as_str().unwrap().is_empty());
    (status, body["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_refresh_answers_as_documented_and_its_token_opens_the_api() {
    let desk = Desk::quiet().await;
    let refresh_token = desk.sim.oauth().mint_refresh_token();
    let answer = desk.refresh(&refresh_token).send().await.unwrap();
    assert_eq!(header(&answer, "content-type"), "application/json; charset=utf-8");
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let text = answer.text().await.unwrap();
    assert_eq!(super::keys(&text, ""), ["access_token", "refresh_token", "token_type", "expires_in"]);
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("bearer"), &json!(1_209_600)));
    assert_eq!(body["refresh_token"], json!(refresh_token), "it stays the same");
    let access_token = body["access_token"].as_str().unwrap();
    assert!(access_token.starts_with("2348607.at."), "{access_token}");
    assert_eq!(desk.status_with(access_token).await, 200);
    assert_eq!(desk.status_with(&refresh_token).await, 401);
    assert_eq!(desk.status_with(&desk.sim.token()).await, 200, "the personal one stays good");
}

#[tokio::test]
async fn a_token_request_may_be_a_form_or_json_and_name_the_client_in_a_header() {
    let desk = Desk::quiet().await;
    let (id, secret) = (desk.sim.oauth().client_id(), desk.sim.oauth().client_secret());
    let token = desk.sim.oauth().mint_refresh_token();
    let fields = json!({
        "grant_type": "refresh_token", "refresh_token": token, "client_id": id, "client_secret": secret,
    });
    let as_json = desk.knock().header("Content-Type", "application/json").body(fields.to_string());
    Pair::of(as_json.send().await.unwrap()).await;
    let by_header = desk
        .form(&[("grant_type", "refresh_token"), ("refresh_token", &token)])
        .header("Authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}"))));
    Pair::of(by_header.send().await.unwrap()).await;
    assert_eq!(desk.sim.oauth().count(Grant::RefreshToken, GRANTED), 2);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_words_of_oauth2() {
    let desk = Desk::quiet().await;
    let token = desk.sim.oauth().mint_refresh_token();
    let refusal = |status, error: &str| (status, error.to_owned());
    assert_eq!(refused(desk.refresh("unknown")).await, refusal(400, "invalid_grant"));
    assert_eq!(refused(desk.exchange(&[])).await, refusal(400, "invalid_request"));
    let no_token = desk.exchange(&[("grant_type", "refresh_token")]);
    assert_eq!(refused(no_token).await, refusal(400, "invalid_request"));
    let password = desk.exchange(&[("grant_type", "password")]);
    assert_eq!(refused(password).await, refusal(400, "unsupported_grant_type"));
    let fields = [("grant_type", "refresh_token"), ("refresh_token", &*token)];
    assert_eq!(refused(desk.form(&fields)).await, refusal(401, "invalid_client"));
    let request = desk.refresh(&token);
    desk.sim.oauth().register("another", "application");
    let answer = request.send().await.unwrap();
    assert!(header(&answer, "www-authenticate").starts_with("Basic "));
    assert_eq!(answer.status().as_u16(), 401);
    assert_eq!(desk.sim.oauth().client_id(), "another");
    Pair::of(desk.refresh(&token).send().await.unwrap()).await;

    let oauth = desk.sim.oauth();
    let count = |outcome| oauth.count(Grant::RefreshToken, outcome);
    assert_eq!([count(GRANTED), count(INVALID_GRANT), count(INVALID_CLIENT)], [1, 1, 2]);
    assert_eq!(oauth.count(Grant::Other, Outcome::Refused(Refusal::UnsupportedGrantType)), 1);
}

#[tokio::test]
async fn a_token_request_needs_a_user_agent_and_the_post_method() {
    let desk = Desk::quiet().await;
    let url = format!("{}/api/v2/oauth2/token", desk.sim.identity_url());
    assert_eq!(desk.http.post(&url).send().await.unwrap().status().as_u16(), 400);
    let answer = desk.ask(&url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (404, "text/html"));
}

#[tokio::test]
async fn an_access_token_expires_by_the_simulators_clock() {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    desk.sim.oauth().lifetime(Duration::from_secs(4));
    let first = desk.refreshed(&desk.sim.oauth().mint_refresh_token()).await;
    desk.sim.shift_clock(TimeDelta::seconds(3));
    assert_eq!(desk.status_with(&first.access).await, 200);
    desk.sim.shift_clock(TimeDelta::seconds(1));
    let answer = desk.me(&first.access).await;
    assert!(header(&answer, "www-authenticate").starts_with("Bearer "));
    assert_eq!(answer.status().as_u16(), 401);
    let second = desk.refreshed(&first.refresh).await;
    assert_ne!(second.access, first.access);
    assert_eq!(desk.status_with(&second.access).await, 200);
}

#[tokio::test]
async fn a_rotated_refresh_token_is_dead_at_once() {
    let desk = Desk::quiet().await;
    desk.sim.oauth().rotate(true);
    let first = desk.sim.oauth().mint_refresh_token();
    let pair = desk.refreshed(&first).await;
    assert_ne!(pair.refresh, first);
    assert_eq!(refused(desk.refresh(&first)).await.1, "invalid_grant");
    let next = desk.refreshed(&pair.refresh).await;
    for access in [&pair.access, &next.access] {
        assert_eq!(desk.status_with(access).await, 200, "both live until they expire");
    }
    let shown: Vec<_> = desk.sim.oauth().requests().into_iter().map(|it| it.refresh_token).collect();
    assert_eq!(shown, [Some(first.clone()), Some(first.clone()), Some(pair.refresh.clone())]);
    let secrets = desk.sim.oauth().secrets();
    for secret in [&first, &pair.refresh, &next.refresh, &pair.access, &next.access] {
        assert!(secrets.contains(secret));
    }
    assert!(secrets.contains(&desk.sim.oauth().client_secret()));
}

#[tokio::test]
async fn a_refresh_can_end_the_access_token_before_it() {
    let desk = Desk::quiet().await;
    desk.sim.oauth().refresh_ends_access(true);
    let first = desk.refreshed(&desk.sim.oauth().mint_refresh_token()).await;
    let second = desk.refreshed(&first.refresh).await;
    assert_eq!([desk.status_with(&first.access).await, desk.status_with(&second.access).await], [401, 200]);
}

#[tokio::test]
async fn tokens_are_revoked_by_kind_or_all_at_once() {
    let desk = Desk::quiet().await;
    let oauth = desk.sim.oauth();
    let pair = desk.refreshed(&oauth.mint_refresh_token()).await;
    oauth.revoke_access_tokens();
    assert_eq!(desk.status_with(&pair.access).await, 401);
    let pair = desk.refreshed(&pair.refresh).await;
    oauth.revoke_refresh_tokens();
    assert_eq!(desk.status_with(&pair.access).await, 200);
    assert_eq!(refused(desk.refresh(&pair.refresh)).await, (400, "invalid_grant".to_owned()));
    let pair = desk.refreshed(&oauth.mint_refresh_token()).await;
    oauth.revoke_all();
    assert_eq!(desk.status_with(&pair.access).await, 401);
    assert_eq!(refused(desk.refresh(&pair.refresh)).await.1, "invalid_grant");
    assert_eq!(desk.status_with(&desk.sim.token()).await, 200);
}

#[tokio::test]
async fn an_access_token_sees_what_its_owner_sees() {
    let desk = Desk::quiet().await;
    let pair = desk.refreshed(&desk.sim.oauth().mint_refresh_token()).await;
    let statuses = async || {
        let request = desk.bare("/users").header("User-Agent", "t").bearer_auth(&pair.access);
        let account = request.try_clone().unwrap().header("Harvest-Account-Id", desk.sim.account_id());
        let other = request.header("Harvest-Account-Id", "1");
        let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
        [status(account).await, status(other).await]
    };
    assert_eq!(statuses().await, [200, 404]);
    desk.sim.set_token_role("member");
    assert_eq!(statuses().await, [403, 404]);
    desk.sim.deactivate(desk.sim.token_owner());
    assert_eq!(statuses().await, [401, 401]);
}

#[tokio::test]
async fn the_identity_host_is_outside_the_limit_unless_told_otherwise() {
    let limit = Some(Limit { requests: 2, window: Duration::from_mins(1) });
    let desk = Desk::open(Company::new(), Options { limit, ..Options::default() }).await;
    let token = desk.sim.oauth().mint_refresh_token();
    for _ in 0..3 {
        desk.refreshed(&token).await;
    }
    assert_eq!(desk.sim.requests().len(), 3);
    assert_eq!(desk.sim.most_in_any_window(Duration::from_mins(1)), 0);
    desk.sim.configure(|options| options.identity_requests_count = true);
    for _ in 0..2 {
        desk.refreshed(&token).await;
    }
    assert_eq!(desk.refresh(&token).send().await.unwrap().status().as_u16(), 429);
    assert_eq!(desk.get("/users/me").await.status().as_u16(), 429);
    assert_eq!(desk.sim.most_in_any_window(Duration::from_mins(1)), 4);
}
