//! An identity host that is not what it should be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use rosterd::clock::SystemClock;
use rosterd::harvest::oauth::{Application, Tokens};
use rosterd::harvest::pace::{Lane, Limits, Pace};
use rosterd::roster::AccountId;
use rosterd::telemetry::chain;
use secrecy::SecretString;

/// What it says to everything.
type Said = Arc<Mutex<(StatusCode, Vec<u8>)>>;
type Answer = (StatusCode, [(HeaderName, &'static str); 1], Vec<u8>);

const GOOD: &str =
    r#"{"access_token":"zxq.a","refresh_token":"zxq.r","token_type":"bearer","expires_in":1209600}"#;

fn answers() -> Vec<Vec<u8>> {
    let cut = (0..=GOOD.len()).map(|end| GOOD.as_bytes()[..end].to_vec());
    let spoiled = (0..GOOD.len()).flat_map(|at| {
        [b'"', b'\\', b'9', 0xff].map(|byte| {
            let mut body = GOOD.as_bytes().to_vec();
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
    cut.chain(spoiled).chain(others.map(|body| body.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn whatever_it_answers_no_secret_is_repeated() {
    let answer = Said::default();
    let app = Router::new()
        .fallback(async |State(answer): State<Said>| -> Answer {
            let (status, body) = answer.lock().unwrap().clone();
            (status, [(CONTENT_TYPE, "application/json")], body)
        })
        .with_state(answer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let identity = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let secret = SecretString::from("zxq.secret");
    let application = Application::new(&identity, "app", &secret, "tests", Duration::from_secs(5)).unwrap();
    let second = Duration::from_secs(1);
    let pace = Pace::local(Limits { requests: 1_000_000, window: second, reserve: 0, grace: second });
    let hush = |said: String| assert!(!said.contains("zxq"), "{said}");
    let (mut good, mut bad) = (0, 0);
    for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::TEMPORARY_REDIRECT] {
        for body in answers() {
            *answer.lock().unwrap() = (status, body);
            let (old, permit) = (Tokens::seed(&secret), pace.permit(Lane::Poll).await);
            match application.renew(AccountId(1), &old, permit, &SystemClock).await {
                Ok(tokens) => {
                    good += 1;
                    assert_eq!(status, StatusCode::OK);
                    hush(format!("{tokens:?} {:?}", tokens.access()));
                    assert!(tokens.renew_at <= tokens.expires_at);
                    if let Err(error) = application.accounts(&tokens).await {
                        hush(format!("{error:?} {}", chain(&error)));
                    }
                }
                Err(error) => {
                    bad += 1;
                    let error = error.of(AccountId(1));
                    hush(format!("{error:?} {}", chain(&error)));
                }
            }
        }
    }
    assert!(good > 20 && bad > 500, "{good} {bad}");
}
