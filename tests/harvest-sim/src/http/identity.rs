//! Responses of Harvest ID: consent, the token endpoint and the list of accounts.

use axum::http::{Method, Uri};
use serde::Serialize;

use super::World;
use super::call::{Call, admit_form, admit_token};
use super::form::Form;
use super::query::Query;
use super::response::Response;
use crate::clock::Clock;
use crate::oauth::{Account, Grant, Issuer, Outcome, Refusal, Tokens};
use crate::state::Company;

/// The Harvest ID of the token's owner, which differs from the user's id in the account.
const HARVEST_ID: i64 = 1_107_402;

/// Whether this is a token request. Other requests to Harvest ID have no body.
pub(super) fn asks_for_tokens(call: &Call) -> bool {
    call.method == Method::POST && call.path == "/api/v2/oauth2/token"
}

/// The response to a request other than a token request.
pub(super) fn respond(world: &mut World, call: &Call) -> Response {
    if call.method != Method::GET {
        return Response::no_route();
    }
    match call.path.as_str() {
        "/oauth2/authorize" => authorize(world, &call.query),
        "/api/v2/accounts" => accounts(world, call).unwrap_or_else(|refusal| refusal),
        _ => Response::no_route(),
    }
}

/// The response to a token request, and the outcome if the request was well-formed.
pub(super) fn token(world: &mut World, call: &Call, form: &Form) -> (Response, Option<Outcome>) {
    if let Err(refusal) = admit_form(call) {
        return (refusal, None);
    }
    match exchange(world, form) {
        Ok(tokens) => (Response::ok(&tokens), Some(Outcome::Granted)),
        Err(refusal) => (Response::token_refused(refusal), Some(Outcome::Refused(refusal))),
    }
}

/// The response of a refusal fault at the token endpoint.
pub(super) fn token_refusal(status: u16) -> Response {
    match status {
        400 => Response::token_refused(Refusal::InvalidGrant),
        401 => Response::token_refused(Refusal::InvalidClient),
        _ => Response::refusal(status),
    }
}

/// Checks the grant type, the application and the grant, in this order.
fn exchange(world: &mut World, form: &Form) -> Result<Tokens, Refusal> {
    let World { issuer, clock, .. } = world;
    let known = form.client() == Some((&issuer.application.id, &issuer.application.secret));
    let given = |name| form.get(name).ok_or(Refusal::InvalidRequest);
    match form.grant() {
        Grant::Other => given("grant_type").and(Err(Refusal::UnsupportedGrantType)),
        _ if !known => Err(Refusal::InvalidClient),
        Grant::RefreshToken => issuer.redeem_refresh_token(given("refresh_token")?, clock),
        Grant::AuthorizationCode => {
            issuer.redeem(given("code")?, form.get("redirect_uri"), form.get("code_verifier"), clock)
        }
    }
}

/// Asks for consent; the user consents at once. If the application or the redirect address is unknown, the user
/// gets an error page and there is no redirect.
fn authorize(world: &mut World, query: &Query) -> Response {
    let World { company, clock, issuer, .. } = world;
    let known = query.get("client_id") == Some(&issuer.application.id);
    let Some(redirect_uri) = query.get("redirect_uri").filter(|uri| known && is_allowed(uri)) else {
        return Response::html_error(400, None, clock.now());
    };
    let mut parameters = match consent(issuer, redirect_uri, query, clock) {
        Ok(code) => vec![("code", code), ("scope", scope(&accessible_accounts(issuer, company)))],
        Err(error) => vec![("error", error.to_owned())],
    };
    parameters.extend(query.get("state").map(|state| ("state", state.to_owned())));
    let parameters = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    Response::redirect(&format!("{redirect_uri}{separator}{parameters}"))
}

/// Returns an authorization code, or the `error` parameter of the redirect.
fn consent(
    issuer: &mut Issuer,
    redirect_uri: &str,
    query: &Query,
    clock: &Clock,
) -> Result<String, &'static str> {
    if query.get("response_type") != Some("code") {
        return Err("unsupported_response_type");
    }
    let challenge = match (query.get("code_challenge"), query.get("code_challenge_method")) {
        (None, _) => None,
        (Some(challenge), Some("S256")) => Some(challenge),
        _ => return Err("invalid_request"),
    };
    if issuer.deny_consent {
        return Err("access_denied");
    }
    Ok(issuer.authorize(redirect_uri, challenge, clock))
}

/// The accounts to which the user has access.
fn accessible_accounts(issuer: &Issuer, company: &Company) -> Vec<Account> {
    issuer.accounts.clone().unwrap_or_else(|| Account::defaults(company))
}

fn scope(accounts: &[Account]) -> String {
    accounts.iter().map(Account::scope).collect::<Vec<_>>().join(" ")
}

/// Whether the redirect address is one of this machine, without a fragment.
fn is_allowed(redirect_uri: &str) -> bool {
    let parsed = redirect_uri.parse::<Uri>();
    let is_local = |uri: Uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(is_loopback);
    parsed.is_ok_and(is_local) && !redirect_uri.contains('#')
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[derive(Serialize)]
struct AccountsView<'a> {
    user: OwnerView<'a>,
    accounts: &'a [Account],
}

#[derive(Serialize)]
struct OwnerView<'a> {
    id: i64,
    first_name: &'a str,
    last_name: &'a str,
    email: &'a str,
}

/// The token's owner and the accounts. This endpoint needs no account id.
fn accounts(world: &World, call: &Call) -> Result<Response, Response> {
    admit_form(call)?;
    admit_token(world, call)?;
    let World { company, issuer, .. } = world;
    let owner = company.user(company.token_owner()).ok_or_else(Response::invalid_token)?;
    Ok(Response::ok(&AccountsView {
        user: OwnerView {
            id: HARVEST_ID,
            first_name: &owner.first_name,
            last_name: &owner.last_name,
            email: &owner.email,
        },
        accounts: &accessible_accounts(issuer, company),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uri_must_be_loopback() {
        for uri in ["http://127.0.0.1:49152/callback", "http://localhost/", "http://[::1]:8/?a=b"] {
            assert!(is_allowed(uri), "{uri}");
        }
        for uri in [
            "http://127.0.0.1.example.net/",
            "http://localhost@example.net/",
            "https://127.0.0.1/",
            "/callback",
            "http://127.0.0.1/#a",
            "",
        ] {
            assert!(!is_allowed(uri), "{uri}");
        }
    }
}
