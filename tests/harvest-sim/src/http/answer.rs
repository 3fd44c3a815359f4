//! The answers that are not records, in Harvest's five shapes of error.

use std::time::Duration;

use axum::http::header::{HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Stamp;
use crate::faults::{Edit, EditBytes, RetryAfter};
use crate::oauth::Refusal;

/// Harvest repeats the message of a 403 and a 422 in this header.
const HINT: HeaderName = HeaderName::from_static("hint");

const JSON: &str = "application/json; charset=utf-8";
/// 401 and 422 were recorded without a charset.
const BARE_JSON: &str = "application/json";
const HTML: &str = "text/html";

/// An answer before it becomes HTTP.
pub(super) struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A record or a list.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::new(StatusCode::OK, JSON, encode(body))
    }

    /// A new record, and the address at which it is.
    pub fn created(body: &impl Serialize, location: &str) -> Self {
        Self::new(StatusCode::CREATED, JSON, encode(body)).with(LOCATION, location)
    }

    /// A token that is wrong or missing, and, in the very same words, a missing account id.
    pub fn invalid_token() -> Self {
        const DESCRIPTION: &str =
            "The access token provided is expired, revoked, malformed or invalid for other reasons.";
        let body = format!(r#"{{"error":"invalid_token","error_description":"{DESCRIPTION}"}}"#);
        let challenge = format!(
            r#"Bearer realm="Rack::OAuth2 Protected Resources", error="invalid_token", error_description="{DESCRIPTION}""#
        );
        Self::new(StatusCode::UNAUTHORIZED, BARE_JSON, body).with(WWW_AUTHENTICATE, &challenge)
    }

    /// A token request that fails, in the words of OAuth2. Neither status nor sentences were recorded.
    pub fn token_refused(refusal: Refusal) -> Self {
        let body =
            encode(&json!({ "error": refusal.to_string(), "error_description": refusal.description() }));
        match refusal {
            Refusal::InvalidClient => Self::new(StatusCode::UNAUTHORIZED, BARE_JSON, body)
                .with(WWW_AUTHENTICATE, r#"Basic realm="Harvest ID""#),
            _ => Self::new(StatusCode::BAD_REQUEST, BARE_JSON, body),
        }
    }

    /// A browser is sent elsewhere.
    pub fn redirect(location: &str) -> Self {
        Self::new(StatusCode::FOUND, HTML, page("Found", "You are being redirected."))
            .with(LOCATION, location)
    }

    /// The token's owner may not.
    pub fn not_authorized() -> Self {
        let message = "Not authorized!";
        let body = encode(&json!({ "message": message }));
        Self::new(StatusCode::FORBIDDEN, JSON, body).with(HINT, message)
    }

    /// No such record, or no such account.
    pub fn no_record() -> Self {
        let body = r#"{"status":404,"error":"Not Found"}"#;
        Self::new(StatusCode::NOT_FOUND, "application/json; charset=UTF-8", body)
    }

    /// No such path: a page for people.
    pub fn no_route() -> Self {
        let body =
            page("HARVEST: Can\u{2bc}t find page", "We can\u{2bc}t find the page you\u{2bc}re looking for.");
        Self::new(StatusCode::NOT_FOUND, HTML, body)
    }

    /// A value that is well-formed but not allowed.
    pub fn unprocessable(message: &str) -> Self {
        let body = encode(&json!({ "message": message }));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, BARE_JSON, body).with(HINT, message)
    }

    /// A value that cannot be read. The body is a guess, made after that of the 404.
    pub fn bad_request() -> Self {
        Self::stated(StatusCode::BAD_REQUEST)
    }

    /// Refused before anything was looked at, in plain text.
    pub fn bad_request_text(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "text/plain", text)
    }

    /// Too many requests, and how long that will last.
    pub fn throttled(lifted_in: Duration) -> Self {
        // Rounded up to a whole second, and past it: at its very end the window is still full.
        let seconds = lifted_in.as_secs() + 1;
        Self::trouble(429, Some(RetryAfter::Seconds(seconds)), Stamp::from_unix(0))
    }

    /// The JSON that Harvest refuses with; where none was recorded, of the shape of the 404.
    pub fn refusal(status: u16) -> Self {
        match StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
            StatusCode::UNAUTHORIZED => Self::invalid_token(),
            StatusCode::FORBIDDEN => Self::not_authorized(),
            StatusCode::NOT_FOUND => Self::no_record(),
            other => Self::stated(other),
        }
    }

    /// A page of HTML where a program hoped for JSON.
    pub fn trouble(status: u16, retry_after: Option<RetryAfter>, now: Stamp) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Error");
        let answer = Self::new(status, HTML, page(title, "We\u{2bc}re sorry, but something went wrong."));
        match retry_after {
            None => answer,
            Some(RetryAfter::Seconds(seconds)) => answer.with(RETRY_AFTER, &seconds.to_string()),
            Some(RetryAfter::Date(ahead)) => answer.with(RETRY_AFTER, &now.http_date(ahead)),
        }
    }

    /// Passes a JSON body through `edits`.
    pub fn edit(&mut self, edits: &[Edit]) {
        if let Ok(mut body) = serde_json::from_slice::<Value>(&self.body) {
            for edit in edits {
                edit(&mut body);
            }
            self.body = encode(&body);
        }
    }

    /// Passes the bytes of a body through `edits`.
    pub fn edit_bytes(&mut self, edits: &[EditBytes]) {
        for edit in edits {
            edit(&mut self.body);
        }
    }

    fn stated(status: StatusCode) -> Self {
        let error = status.canonical_reason().unwrap_or("Error");
        let body = format!(r#"{{"status":{},"error":"{error}"}}"#, status.as_u16());
        Self::new(status, JSON, body)
    }

    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

#[expect(clippy::expect_used, reason = "the bodies have string keys and nothing that can fail to be written")]
fn encode(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("a body of plain data can be written as JSON")
}

fn page(title: &str, text: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>{title}</title>\n\
         </head>\n<body>\n  <h2>{text}</h2>\n</body>\n</html>\n"
    )
}
