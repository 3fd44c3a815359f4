//! A person is asked for a yes, and what it leads to: a code, tokens, the accounts they let into.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use harvest_sim::{Account, Grant, Host, Outcome};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tokens::{Pair, refused};
use super::{Desk, header};

const BACK: &str = "http://127.0.0.1:49152/callback";
const VERIFIER: &str = "a-verifier-of-more-than-forty-three-characters";

impl Desk {
    /// The browser's visit, with these parameters beside the application's id.
    async fn visit(&self, parameters: &[(&str, &str)]) -> Response {
        let id = self.sim.oauth().client_id();
        let all = [&[("client_id", &*id), ("response_type", "code")], parameters].concat();
        let url = format!("{}/oauth2/authorize", self.sim.identity_url());
        self.http.get(url).query(&all).send().await.unwrap()
    }

    /// The code of a person's yes.
    async fn code(&self, parameters: &[(&str, &str)]) -> String {
        let answer = self.visit(&[&[("redirect_uri", BACK)], parameters].concat()).await;
        sent_back(&answer).into_iter().find(|(name, _)| name == "code").unwrap().1
    }

    fn redeem(&self, code: &str, more: &[(&str, &str)]) -> RequestBuilder {
        self.exchange(&[&[("grant_type", "authorization_code"), ("code", code)], more].concat())
    }

    async fn accounts(&self, token: &str) -> Value {
        let url = format!("{}/api/v2/accounts", self.sim.identity_url());
        let answer = self.bare(&url).header("User-Agent", "t").bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}

/// What the browser is told to carry to the application.
fn sent_back(answer: &Response) -> Vec<(String, String)> {
    assert_eq!(answer.status().as_u16(), 302);
    let (uri, query) = header(answer, "location").split_once('?').unwrap();
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
async fn a_yes_sends_back_a_code_the_scope_and_the_state() {
    let desk = Desk::quiet().await;
    let answer = desk.visit(&[("redirect_uri", BACK), ("state", "a+b&c")]).await;
    let mut carried = sent_back(&answer);
    assert_eq!(carried.remove(0).0, "code");
    assert_eq!(carried, pairs(&[("scope", "forecast:88888 harvest:123456"), ("state", "a+b&c")]));
    let seen = desk.sim.requests().remove(0);
    assert_eq!((seen.host, seen.status), (Host::Identity, Some(302)));
    assert!(seen.path.starts_with("/oauth2/authorize?client_id=harvest-sim-client&"), "{}", seen.path);
}

#[tokio::test]
async fn a_no_sends_back_the_error_and_the_state() {
    let desk = Desk::quiet().await;
    desk.sim.oauth().person_refuses(true);
    let refusal = desk.visit(&[("redirect_uri", BACK), ("state", "s")]).await;
    assert_eq!(sent_back(&refusal), pairs(&[("error", "access_denied"), ("state", "s")]));
    desk.sim.oauth().person_refuses(false);
    let implicit = desk.visit(&[("redirect_uri", BACK), ("response_type", "token")]).await;
    assert_eq!(sent_back(&implicit), pairs(&[("error", "unsupported_response_type")]));
    let plain = desk.visit(&[("redirect_uri", BACK), ("code_challenge", "plain")]).await;
    assert_eq!(sent_back(&plain), pairs(&[("error", "invalid_request")]));
}

#[tokio::test]
async fn an_unknown_application_and_a_foreign_address_are_sent_nowhere() {
    let desk = Desk::quiet().await;
    for parameters in [
        &[("redirect_uri", BACK), ("client_id", "another")][..],
        &[("redirect_uri", "https://app.example.net/callback")],
        &[],
    ] {
        let answer = desk.visit(parameters).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (400, "text/html"));
        assert!(answer.headers().get("location").is_none());
    }
    desk.sim.oauth().register_redirect(BACK);
    for parameters in [&[][..], &[("redirect_uri", BACK)]] {
        assert_eq!(sent_back(&desk.visit(parameters).await)[0].0, "code");
    }
    let below = desk.visit(&[("redirect_uri", "http://127.0.0.1:49152/callback/deep?a=b")]).await;
    assert!(header(&below, "location").starts_with("http://127.0.0.1:49152/callback/deep?a=b&code="));
    let elsewhere = desk.visit(&[("redirect_uri", "http://127.0.0.1:49153/callback")]).await;
    assert_eq!(elsewhere.status().as_u16(), 400);
}

#[tokio::test]
async fn a_code_gives_tokens_once() {
    let desk = Desk::quiet().await;
    let code = desk.code(&[]).await;
    let pair = Pair::of(desk.redeem(&code, &[]).send().await.unwrap()).await;
    assert_eq!(desk.status_with(&pair.access).await, 200);
    assert_eq!(desk.refreshed(&pair.refresh).await.refresh, pair.refresh);
    assert_eq!(refused(desk.redeem(&code, &[])).await, (400, "invalid_grant".to_owned()));
    assert_eq!(refused(desk.redeem("unknown", &[])).await.1, "invalid_grant");
    assert_eq!(desk.sim.oauth().count(Grant::AuthorizationCode, Outcome::Granted), 1);
    assert!(desk.sim.oauth().secrets().contains(&code));
    let late = desk.code(&[]).await;
    desk.sim.shift_clock(TimeDelta::minutes(11));
    assert_eq!(refused(desk.redeem(&late, &[])).await.1, "invalid_grant");
}

#[tokio::test]
async fn a_code_asks_for_its_own_redirect_uri_if_one_is_given() {
    let desk = Desk::quiet().await;
    let (right, wrong) = (desk.code(&[]).await, desk.code(&[]).await);
    Pair::of(desk.redeem(&right, &[("redirect_uri", BACK)]).send().await.unwrap()).await;
    let elsewhere = desk.redeem(&wrong, &[("redirect_uri", "http://127.0.0.1:49152/")]);
    assert_eq!(refused(elsewhere).await.1, "invalid_grant");
}

#[tokio::test]
async fn a_code_of_a_challenge_needs_its_verifier() {
    let desk = Desk::quiet().await;
    let challenge = challenge();
    let sent = [("code_challenge", &*challenge), ("code_challenge_method", "S256")];
    let code = desk.code(&sent).await;
    Pair::of(desk.redeem(&code, &[("code_verifier", VERIFIER)]).send().await.unwrap()).await;
    for proof in [&[][..], &[("code_verifier", &*challenge)]] {
        let code = desk.code(&sent).await;
        assert_eq!(refused(desk.redeem(&code, proof)).await.1, "invalid_grant");
        let again = desk.redeem(&code, &[("code_verifier", VERIFIER)]);
        assert_eq!(refused(again).await.1, "invalid_grant", "it went with the first try");
    }
}

#[tokio::test]
async fn the_accounts_are_listed_without_an_account_and_forecasts_come_first() {
    let desk = Desk::quiet().await;
    let pair = desk.refreshed(&desk.sim.oauth().mint_refresh_token()).await;
    let listed = desk.accounts(&pair.access).await;
    assert_eq!(listed["user"]["email"], desk.json("/users/me").await["email"]);
    assert_ne!(listed["user"]["id"], desk.sim.token_owner().0, "a Harvest ID is not the id in the account");
    assert_eq!(
        listed["accounts"],
        json!([
            { "id": 88888, "name": "Example Works", "product": "forecast", "google_sign_in_required": false },
            { "id": 123_456, "name": "Example Works", "product": "harvest", "google_sign_in_required": false },
        ])
    );
    assert_eq!(desk.accounts(&desk.sim.token()).await, listed, "the personal token lists them, too");
}

#[tokio::test]
async fn the_accounts_can_be_others_or_none() {
    let desk = Desk::quiet().await;
    let two = [Account::harvest(123_456, "Example Works"), Account::harvest(7, "Second Works")];
    desk.sim.oauth().accounts(two);
    let token = desk.sim.token();
    assert_eq!(desk.accounts(&token).await["accounts"][1]["id"], 7);
    let carried = sent_back(&desk.visit(&[("redirect_uri", BACK)]).await);
    assert_eq!(carried[1].1, "harvest:123456 harvest:7");
    desk.sim.oauth().accounts([]);
    assert_eq!(desk.accounts(&token).await["accounts"], json!([]));
}

#[tokio::test]
async fn a_bad_token_lists_nothing_and_each_host_serves_its_own_paths() {
    let desk = Desk::quiet().await;
    let identity = desk.sim.identity_url().to_owned();
    let url = format!("{identity}/api/v2/accounts");
    let answer = desk.bare(&url).header("User-Agent", "t").bearer_auth("foo").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    assert!(header(&answer, "www-authenticate").contains(r#"error="invalid_token""#));
    let api = desk.sim.base_url().replace("/v2", "");
    for url in [
        format!("{identity}/v2/users/me"),
        format!("{api}/api/v2/accounts"),
        format!("{api}/oauth2/authorize"),
    ] {
        let answer = desk.get(&url).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (404, "text/html"), "{url}");
    }
}
