//! Responses, with the five formats of Harvest's errors.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response as HttpResponse;
use serde::Serialize;
use serde_json::{Value, json};

use super::truncate::truncated;
use crate::clock::Timestamp;
use crate::faults::{Edit, EditBytes, RetryAfter};
use crate::oauth::Refusal;

/// Harvest repeats the message of a 403 or 422 in this header.
const HINT: HeaderName = HeaderName::from_static("hint");

const JSON: &str = "application/json; charset=utf-8";
/// The recorded 401 and 422 responses have no charset.
const JSON_WITHOUT_CHARSET: &str = "application/json";
const HTML: &str = "text/html";

/// A response before its conversion to axum's type.
pub(super) struct Response {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn ok(body: &impl Serialize) -> Self {
        Self::new(StatusCode::OK, JSON, encode(body))
    }

    /// A new record, with its address in `Location`.
    pub fn created(body: &impl Serialize, location: &str) -> Self {
        Self::new(StatusCode::CREATED, JSON, encode(body)).with(LOCATION, location)
    }

    /// The response to a wrong or missing token. Harvest sends the same response if the account id is missing.
    pub fn invalid_token() -> Self {
        const DESCRIPTION: &str =
            "The access token provided is expired, revoked, malformed or invalid for other reasons.";
        let body = format!(r#"{{"error":"invalid_token","error_description":"{DESCRIPTION}"}}"#);
        let challenge = format!(
            r#"Bearer realm="Rack::OAuth2 Protected Resources", error="invalid_token", error_description="{DESCRIPTION}""#
        );
        Self::new(StatusCode::UNAUTHORIZED, JSON_WITHOUT_CHARSET, body).with(WWW_AUTHENTICATE, &challenge)
    }

    /// An OAuth2 error of the token endpoint. The statuses and descriptions are guesses.
    pub fn token_refused(refusal: Refusal) -> Self {
        let body =
            encode(&json!({ "error": refusal.to_string(), "error_description": refusal.description() }));
        match refusal {
            Refusal::InvalidClient => Self::new(StatusCode::UNAUTHORIZED, JSON_WITHOUT_CHARSET, body)
                .with(WWW_AUTHENTICATE, r#"Basic realm="Harvest ID""#),
            _ => Self::new(StatusCode::BAD_REQUEST, JSON_WITHOUT_CHARSET, body),
        }
    }

    pub fn redirect(location: &str) -> Self {
        Self::new(StatusCode::FOUND, HTML, page("Found", "You are being redirected."))
            .with(LOCATION, location)
    }

    /// The token's owner lacks the permission.
    pub fn not_authorized() -> Self {
        let message = "Not authorized!";
        let body = encode(&json!({ "message": message }));
        Self::new(StatusCode::FORBIDDEN, JSON, body).with(HINT, message)
    }

    /// An unknown record or account.
    pub fn no_record() -> Self {
        let body = r#"{"status":404,"error":"Not Found"}"#;
        Self::new(StatusCode::NOT_FOUND, "application/json; charset=UTF-8", body)
    }

    /// An unknown path. Harvest sends an HTML page.
    pub fn no_route() -> Self {
        let body =
            page("HARVEST: Can\u{2bc}t find page", "We can\u{2bc}t find the page you\u{2bc}re looking for.");
        Self::new(StatusCode::NOT_FOUND, HTML, body)
    }

    /// A well-formed value that is not allowed.
    pub fn unprocessable(message: &str) -> Self {
        let body = encode(&json!({ "message": message }));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, JSON_WITHOUT_CHARSET, body).with(HINT, message)
    }

    /// A malformed value. The body is a guess, modelled on the body of the 404.
    pub fn bad_request() -> Self {
        Self::json_error(StatusCode::BAD_REQUEST)
    }

    /// A malformed request that Harvest refuses before it checks the token.
    pub fn bad_request_text(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "text/plain", text)
    }

    /// Too many requests. `lifted_in` is the time until the limit admits requests again.
    pub fn throttled(lifted_in: Duration) -> Self {
        // The window includes its last instant, so the next full second after `lifted_in` is needed.
        let seconds = lifted_in.as_secs() + 1;
        Self::html_error(429, Some(RetryAfter::Seconds(seconds)), Timestamp::from_unix(0))
    }

    /// Harvest's JSON error for this status. If no response with the status was recorded, the body has the format
    /// of the 404.
    pub fn refusal(status: u16) -> Self {
        match StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
            StatusCode::UNAUTHORIZED => Self::invalid_token(),
            StatusCode::FORBIDDEN => Self::not_authorized(),
            StatusCode::NOT_FOUND => Self::no_record(),
            other => Self::json_error(other),
        }
    }

    /// An HTML page, as proxies and Harvest's rate limit send it.
    pub fn html_error(status: u16, retry_after: Option<RetryAfter>, now: Timestamp) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Error");
        let response = Self::new(status, HTML, page(title, "We\u{2bc}re sorry, but something went wrong."));
        match retry_after {
            None => response,
            Some(RetryAfter::Seconds(seconds)) => response.with(RETRY_AFTER, &seconds.to_string()),
            Some(RetryAfter::Date(ahead)) => response.with(RETRY_AFTER, &now.http_date(ahead)),
        }
    }

    /// Applies `edits` to a JSON body.
    pub fn edit(&mut self, edits: &[Edit]) {
        if let Ok(mut body) = serde_json::from_slice::<Value>(&self.body) {
            for edit in edits {
                edit(&mut body);
            }
            self.body = encode(&body);
        }
    }

    pub fn edit_bytes(&mut self, edits: &[EditBytes]) {
        for edit in edits {
            edit(&mut self.body);
        }
    }

    /// With `truncate_body`, the connection closes in the middle of the body.
    pub fn into_http(self, truncate_body: bool) -> HttpResponse {
        let length = self.body.len();
        let body = if truncate_body { truncated(self.body) } else { Body::from(self.body) };
        let mut response = HttpResponse::new(body);
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        fields.extend(self.headers);
        response
    }

    fn json_error(status: StatusCode) -> Self {
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

#[expect(
    clippy::expect_used,
    reason = "the bodies have string keys and only values that serialize without errors"
)]
fn encode(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("the body serializes to JSON")
}

fn page(title: &str, text: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>{title}</title>\n\
         </head>\n<body>\n  <h2>{text}</h2>\n</body>\n</html>\n"
    )
}
