//! Harvest ID, the other host: a person's yes or no, the token endpoint, the list of accounts.

use axum::http::{Method, Uri};
use serde::Serialize;

use super::World;
use super::answer::Answer;
use super::call::{Call, admit_form, admit_token};
use super::form::Form;
use super::query::Query;
use crate::clock::Clock;
use crate::oauth::{Account, Grant, Issuer, Outcome, Refusal, Tokens};
use crate::state::Company;

/// The Harvest ID of the token's owner: not their id in the account.
const HARVEST_ID: i64 = 1_107_402;

/// Whether this is a request to the token endpoint, the only one whose body is read.
pub(super) fn asks_for_tokens(call: &Call) -> bool {
    call.method == Method::POST && call.path == "/api/v2/oauth2/token"
}

/// What Harvest ID answers to anything else.
pub(super) fn respond(world: &mut World, call: &Call) -> Answer {
    if call.method != Method::GET {
        return Answer::no_route();
    }
    match call.path.as_str() {
        "/oauth2/authorize" => authorize(world, &call.query),
        "/api/v2/accounts" => accounts(world, call).unwrap_or_else(|refusal| refusal),
        _ => Answer::no_route(),
    }
}

/// What the token endpoint answers, and what came of the request if it was looked at.
pub(super) fn token(world: &mut World, call: &Call, form: &Form) -> (Answer, Option<Outcome>) {
    if let Err(refusal) = admit_form(call) {
        return (refusal, None);
    }
    match exchange(world, form) {
        Ok(tokens) => (Answer::ok(&tokens), Some(Outcome::Granted)),
        Err(refusal) => (Answer::token_refused(refusal), Some(Outcome::Refused(refusal))),
    }
}

/// The refusal of a fault at the token endpoint.
pub(super) fn token_refusal(status: u16) -> Answer {
    match status {
        400 => Answer::token_refused(Refusal::InvalidGrant),
        401 => Answer::token_refused(Refusal::InvalidClient),
        _ => Answer::refusal(status),
    }
}

/// The kind of grant, the application, then what it offers.
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

/// The person is asked, and says yes at once. An application that is not known, or an address that is not
/// its own, is told to nobody but the person.
fn authorize(world: &mut World, query: &Query) -> Answer {
    let World { company, clock, issuer, .. } = world;
    let known = query.get("client_id") == Some(&issuer.application.id);
    let registered = issuer.application.redirect_url.as_deref();
    let Some(redirect_uri) = redirect_uri(query.get("redirect_uri"), registered).filter(|_| known) else {
        return Answer::trouble(400, None, clock.now());
    };
    let mut parameters = match consent(issuer, &redirect_uri, query, clock) {
        Ok(code) => vec![("code", code), ("scope", scope(&enterable(issuer, company)))],
        Err(error) => vec![("error", error.to_owned())],
    };
    parameters.extend(query.get("state").map(|state| ("state", state.to_owned())));
    let parameters = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let joint = if redirect_uri.contains('?') { '&' } else { '?' };
    Answer::redirect(&format!("{redirect_uri}{joint}{parameters}"))
}

/// The code of the person's yes.
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
    if issuer.person_refuses {
        return Err("access_denied");
    }
    Ok(issuer.authorize(redirect_uri, challenge, clock))
}

/// What the person may enter.
fn enterable(issuer: &Issuer, company: &Company) -> Vec<Account> {
    issuer.accounts.clone().unwrap_or_else(|| Account::usual(company))
}

fn scope(accounts: &[Account]) -> String {
    accounts.iter().map(Account::scope).collect::<Vec<_>>().join(" ")
}

/// Where the person is sent back to, if the application may have them sent there.
fn redirect_uri(asked: Option<&str>, registered: Option<&str>) -> Option<String> {
    let uri = asked.or(registered)?;
    let parsed: Uri = uri.parse().ok()?;
    let fits = match registered {
        Some(registered) => uri.starts_with(registered),
        None => parsed.scheme_str() == Some("http") && parsed.host().is_some_and(is_loopback),
    };
    (fits && !uri.contains('#')).then(|| uri.to_owned())
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

/// Who the token's owner is, and what they may enter. No account is asked for.
fn accounts(world: &World, call: &Call) -> Result<Answer, Answer> {
    admit_form(call)?;
    admit_token(world, call)?;
    let World { company, issuer, .. } = world;
    let owner = company.user(company.token_owner()).ok_or_else(Answer::invalid_token)?;
    Ok(Answer::ok(&AccountsView {
        user: OwnerView {
            id: HARVEST_ID,
            first_name: &owner.first_name,
            last_name: &owner.last_name,
            email: &owner.email,
        },
        accounts: &enterable(issuer, company),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_sent_back_to_this_machine_or_to_what_was_registered() {
        let free = |uri| redirect_uri(Some(uri), None).is_some();
        for uri in ["http://127.0.0.1:49152/callback", "http://localhost/", "http://[::1]:8/?a=b"] {
            assert!(free(uri), "{uri}");
        }
        for uri in [
            "http://127.0.0.1.example.net/",
            "http://localhost@example.net/",
            "https://127.0.0.1/",
            "/callback",
            "http://127.0.0.1/#a",
            "",
        ] {
            assert!(!free(uri), "{uri}");
        }
        let registered = Some("https://app.example.com/harvest");
        assert!(redirect_uri(Some("https://app.example.com/harvest/back"), registered).is_some());
        assert!(redirect_uri(Some("http://127.0.0.1/"), registered).is_none());
        assert_eq!(redirect_uri(None, registered).as_deref(), registered);
        assert_eq!(redirect_uri(None, None), None);
    }
}
