//! The parts of a request that determine the response, and the checks that precede the routing.

use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::World;
use super::query::Query;
use super::response::Response;
use crate::state::Visibility;

/// The parts of a request that determine the response.
pub(super) struct Call {
    pub method: Method,
    pub path: String,
    pub query: Query,
    has_body: bool,
    has_user_agent: bool,
    token: Option<String>,
    pub account_id: Option<String>,
}

impl Call {
    pub fn of(head: &Parts) -> Self {
        let (headers, query) = (&head.headers, Query::of(head.uri.query().unwrap_or_default()));
        let bearer = text(headers, AUTHORIZATION.as_str());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        Self {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            has_body: headers.contains_key(TRANSFER_ENCODING)
                || text(headers, CONTENT_LENGTH.as_str()).is_some_and(|length| length != "0"),
            has_user_agent: text(headers, USER_AGENT.as_str()).is_some_and(|agent| !agent.is_empty()),
            token: token.or_else(|| query.get("access_token")).map(str::to_owned),
            account_id: text(headers, "harvest-account-id")
                .or_else(|| query.get("account_id"))
                .map(str::to_owned),
            query,
        }
    }

    /// Path and query without credentials.
    pub fn logged_path(&self) -> String {
        let query = self.query.without_credentials();
        if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) }
    }
}

pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Checks the form, the token and the account, in this order. Returns the records that the caller sees.
pub(super) fn admit(world: &World, call: &Call) -> Result<Visibility, Response> {
    admit_form(call)?;
    let visibility = admit_token(world, call)?;
    let account_id = call.account_id.as_deref().ok_or_else(Response::invalid_token)?;
    if account_id != world.company.account_id().to_string() {
        return Err(Response::no_record());
    }
    Ok(visibility)
}

/// Checks the form of the request. Both hosts have the same checks.
pub(super) fn admit_form(call: &Call) -> Result<(), Response> {
    if !call.has_user_agent {
        return Err(Response::bad_request_text("User-Agent header is required."));
    }
    if call.method == Method::GET && call.has_body {
        return Err(Response::bad_request_text("HTTP GET requests with a body are not accepted."));
    }
    Ok(())
}

/// Accepts the personal token and valid OAuth2 access tokens. Both have the permissions of the owner.
pub(super) fn admit_token(world: &World, call: &Call) -> Result<Visibility, Response> {
    let World { company, issuer, clock, .. } = world;
    let is_valid = |token: &str| token == company.token() || issuer.accepts(token, clock);
    if !call.token.as_deref().is_some_and(is_valid) {
        return Err(Response::invalid_token());
    }
    Visibility::of_token(company).ok_or_else(Response::invalid_token)
}
