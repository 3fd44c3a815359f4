//! OAuth2 consent, authorization codes and the list of accounts.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use harvest_sim::{Account, Grant, Host, Outcome};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tokens::{Pair, refused};
use super::{TestClient, header};

const BACK: &str = "http://127.0.0.1:49152/callback";
const VERIFIER: &str = "a-verifier-of-more-than-forty-three-characters";

impl TestClient {
    /// Requests consent as a browser does, with the application's id and these parameters.
    async fn visit(&self, parameters: &[(&str, &str)]) -> Response {
        let id = self.sim.oauth().client_id();
        let all = [&[("client_id", &*id), ("response_type", "code")], parameters].concat();
        let url = format!("{}/oauth2/authorize", self.sim.identity_url());
        self.http.get(url).query(&all).send().await.unwrap()
    }

    /// The authorization code after consent.
    async fn code(&self, parameters: &[(&str, &str)]) -> String {
        let response = self.visit(&[&[("redirect_uri", BACK)], parameters].concat()).await;
        sent_back(&response).into_iter().find(|(name, _)| name == "code").unwrap().1
    }

    fn redeem(&self, code: &str, more: &[(&str, &str)]) -> RequestBuilder {
        self.exchange(&[&[("grant_type", "authorization_code"), ("code", code)], more].concat())
    }

    async fn accounts(&self, token: &str) -> Value {
        let url = format!("{}/api/v2/accounts", self.sim.identity_url());
        let response = self.bare(&url).header("User-Agent", "t").bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }
}

/// The query parameters of the redirect to the application.
fn sent_back(response: &Response) -> Vec<(String, String)> {
    assert_eq!(response.status().as_u16(), 302);
    let (uri, query) = header(response, "location").split_once('?').unwrap();
    assert_eq!(uri, BACK);
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn challenge() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

#[tokio::test]
async fn granted_consent_redirects_with_code_scope_and_state() {
    let client = TestClient::quiet().await;
    let response = client.visit(&[("redirect_uri", BACK), ("state", "a+b&c")]).await;
    let mut carried = sent_back(&response);
    assert_eq!(carried.remove(0).0, "code");
    assert_eq!(carried, pairs(&[("scope", "forecast:88888 harvest:123456"), ("state", "a+b&c")]));
    let seen = client.sim.requests().remove(0);
    assert_eq!((seen.host, seen.status), (Host::Identity, Some(302)));
    assert!(seen.path.starts_with("/oauth2/authorize?client_id=harvest-sim-client&"), "{}", seen.path);
}

#[tokio::test]
async fn denied_consent_redirects_with_error_and_state() {
    let client = TestClient::quiet().await;
    client.sim.oauth().deny_consent(true);
    let refusal = client.visit(&[("redirect_uri", BACK), ("state", "s")]).await;
    assert_eq!(sent_back(&refusal), pairs(&[("error", "access_denied"), ("state", "s")]));
    client.sim.oauth().deny_consent(false);
    let implicit = client.visit(&[("redirect_uri", BACK), ("response_type", "token")]).await;
    assert_eq!(sent_back(&implicit), pairs(&[("error", "unsupported_response_type")]));
    let plain = client.visit(&[("redirect_uri", BACK), ("code_challenge", "plain")]).await;
    assert_eq!(sent_back(&plain), pairs(&[("error", "invalid_request")]));
}

#[tokio::test]
async fn unknown_client_or_foreign_redirect_uri_gets_no_redirect() {
    let client = TestClient::quiet().await;
    for parameters in [
        &[("redirect_uri", BACK), ("client_id", "another")][..],
        &[("redirect_uri", "https://app.example.net/callback")],
        &[],
    ] {
        let response = client.visit(parameters).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (400, "text/html"));
        assert!(response.headers().get("location").is_none());
    }
}

#[tokio::test]
async fn authorization_code_can_be_redeemed_once() {
    let client = TestClient::quiet().await;
    let code = client.code(&[]).await;
    let pair = Pair::of(client.redeem(&code, &[]).send().await.unwrap()).await;
    assert_eq!(client.status_with(&pair.access).await, 200);
    assert_eq!(client.refreshed(&pair.refresh).await.refresh, pair.refresh);
    assert_eq!(refused(client.redeem(&code, &[])).await, (400, "invalid_grant".to_owned()));
    assert_eq!(refused(client.redeem("unknown", &[])).await.1, "invalid_grant");
    assert_eq!(client.sim.oauth().count(Grant::AuthorizationCode, Outcome::Granted), 1);
    assert!(client.sim.oauth().secrets().contains(&code));
    let late = client.code(&[]).await;
    client.sim.shift_clock(TimeDelta::minutes(11));
    assert_eq!(refused(client.redeem(&late, &[])).await.1, "invalid_grant");
}

#[tokio::test]
async fn code_with_another_redirect_uri_gets_invalid_grant() {
    let client = TestClient::quiet().await;
    let (right, wrong) = (client.code(&[]).await, client.code(&[]).await);
    Pair::of(client.redeem(&right, &[("redirect_uri", BACK)]).send().await.unwrap()).await;
    let elsewhere = client.redeem(&wrong, &[("redirect_uri", "http://127.0.0.1:49152/")]);
    assert_eq!(refused(elsewhere).await.1, "invalid_grant");
}

#[tokio::test]
async fn code_with_a_challenge_needs_its_verifier() {
    let client = TestClient::quiet().await;
    let challenge = challenge();
    let sent = [("code_challenge", &*challenge), ("code_challenge_method", "S256")];
    let code = client.code(&sent).await;
    Pair::of(client.redeem(&code, &[("code_verifier", VERIFIER)]).send().await.unwrap()).await;
    for proof in [&[][..], &[("code_verifier", &*challenge)]] {
        let code = client.code(&sent).await;
        assert_eq!(refused(client.redeem(&code, proof)).await.1, "invalid_grant");
        let again = client.redeem(&code, &[("code_verifier", VERIFIER)]);
        assert_eq!(refused(again).await.1, "invalid_grant", "the first attempt invalidates the code");
    }
}

#[tokio::test]
async fn accounts_need_no_account_id_and_list_forecast_first() {
    let client = TestClient::quiet().await;
    let pair = client.refreshed(&client.sim.oauth().issue_refresh_token()).await;
    let listed = client.accounts(&pair.access).await;
    assert_eq!(listed["user"]["email"], client.json("/users/me").await["email"]);
    assert_ne!(listed["user"]["id"], client.sim.token_owner().0, "a Harvest ID is not the id in the account");
    assert_eq!(
        listed["accounts"],
        json!([
            { "id": 88888, "name": "Example Works", "product": "forecast", "google_sign_in_required": false },
            { "id": 123_456, "name": "Example Works", "product": "harvest", "google_sign_in_required": false },
        ])
    );
    assert_eq!(
        client.accounts(&client.sim.token()).await,
        listed,
        "the personal token lists the same accounts"
    );
}

#[tokio::test]
async fn list_of_accounts_can_be_replaced_or_empty() {
    let client = TestClient::quiet().await;
    let two = [Account::harvest(123_456, "Example Works"), Account::harvest(7, "Second Works")];
    client.sim.oauth().accounts(two);
    let token = client.sim.token();
    assert_eq!(client.accounts(&token).await["accounts"][1]["id"], 7);
    let carried = sent_back(&client.visit(&[("redirect_uri", BACK)]).await);
    assert_eq!(carried[1].1, "harvest:123456 harvest:7");
    client.sim.oauth().accounts([]);
    assert_eq!(client.accounts(&token).await["accounts"], json!([]));
}

#[tokio::test]
async fn accounts_need_a_valid_token_and_hosts_serve_different_paths() {
    let client = TestClient::quiet().await;
    let identity = client.sim.identity_url().to_owned();
    let url = format!("{identity}/api/v2/accounts");
    let response = client.bare(&url).header("User-Agent", "t").bearer_auth("foo").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert!(header(&response, "www-authenticate").contains(r#"error="invalid_token""#));
    let api = client.sim.base_url().replace("/v2", "");
    for url in [
        format!("{identity}/v2/users/me"),
        format!("{api}/api/v2/accounts"),
        format!("{api}/oauth2/authorize"),
    ] {
        let response = client.get(&url).await;
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-type")),
            (404, "text/html"),
            "{url}"
        );
    }
}
