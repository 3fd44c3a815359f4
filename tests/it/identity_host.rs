//! Answers of an identity host that are cut, damaged or hostile: no error and no debug output repeats a secret.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use rosterd::clock::SystemClock;
use rosterd::harvest::oauth::{OAuthApplication, OAuthTokens};
use rosterd::harvest::rate_limit::{Priority, RateLimiter, RateLimits};
use rosterd::roster::AccountId;
use rosterd::telemetry::chain;
use secrecy::SecretString;

/// Status and body of the answer to every request.
type SharedAnswer = Arc<Mutex<(StatusCode, Vec<u8>)>>;
type Response = (StatusCode, [(HeaderName, &'static str); 1], Vec<u8>);

const VALID_ANSWER: &str =
    r#"{"access_token":"zxq.a","refresh_token":"zxq.r","token_type":"bearer","expires_in":1209600}"#;

/// `zxq` stands for a secret in each of them.
fn answer_bodies() -> Vec<Vec<u8>> {
    let cut = (0..=VALID_ANSWER.len()).map(|end| VALID_ANSWER.as_bytes()[..end].to_vec());
    let damaged = (0..VALID_ANSWER.len()).flat_map(|at| {
        [b'"', b'\\', b'9', 0xff].map(|byte| {
            let mut body = VALID_ANSWER.as_bytes().to_vec();
            body[at] = byte;
            body
        })
    });
    let others = [
        r#"{"error":"zxq","error_description":"zxq"}"#,
        r#"{"error":"invalid_grant","error_description":"zxq","error_uri":"https://zxq.example.com"}"#,
        r#"{"error":"invalid_client","error_description":"zxq"}"#,
        r#"{"access_token":"zxq\n.a","token_type":"bearer","expires_in":0}"#,
        r#"{"access_token":"zxq","token_type":"zxq","expires_in":18446744073709551615}"#,
        r#"{"access_token":"","refresh_token":"zxq","token_type":"bearer"}"#,
        r#"{"accounts":[{"id":1,"name":"zxq","product":"harvest"},{"id":"zxq"}]}"#,
        "<p>zxq",
    ];
    cut.chain(damaged).chain(others.map(|body| body.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn malformed_identity_host_answers_leak_no_secret() {
    let answer = SharedAnswer::default();
    let app = Router::new()
        .fallback(async |State(answer): State<SharedAnswer>| -> Response {
            let (status, body) = answer.lock().unwrap().clone();
            (status, [(CONTENT_TYPE, "application/json")], body)
        })
        .with_state(answer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let identity = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let secret = SecretString::from("zxq.secret");
    let application =
        OAuthApplication::new(&identity, "app", &secret, "tests", Duration::from_secs(5)).unwrap();
    let second = Duration::from_secs(1);
    let limiter =
        RateLimiter::local(RateLimits { requests: 1_000_000, window: second, reserve: 0, grace: second });
    let expect_no_secret = |output: String| assert!(!output.contains("zxq"), "{output}");
    let (mut accepted, mut refused) = (0, 0);
    for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::TEMPORARY_REDIRECT] {
        for body in answer_bodies() {
            *answer.lock().unwrap() = (status, body);
            let (old, permit) = (OAuthTokens::seed(&secret), limiter.permit(Priority::Poll).await);
            match application.renew(AccountId(1), &old, permit, &SystemClock).await {
                Ok(tokens) => {
                    accepted += 1;
                    assert_eq!(status, StatusCode::OK);
                    expect_no_secret(format!("{tokens:?} {:?}", tokens.access()));
                    assert!(tokens.renew_at <= tokens.expires_at);
                    if let Err(error) = application.accounts(&tokens).await {
                        expect_no_secret(format!("{error:?} {}", chain(&error)));
                    }
                }
                Err(error) => {
                    refused += 1;
                    let error = error.of(AccountId(1));
                    expect_no_secret(format!("{error:?} {}", chain(&error)));
                }
            }
        }
    }
    assert!(accepted > 20 && refused > 500, "{accepted} accepted, {refused} refused");
}
