//! Issues and checks authorization codes and tokens. This module does not depend on HTTP.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::account::Account;
use super::log::Refusal;
use crate::clock::Clock;

/// The documented lifetime of an access token: 14 days.
const LIFETIME: Duration = Duration::from_hours(14 * 24);
/// The lifetime of an authorization code: the maximum that RFC 6749 recommends.
const CODE_LIFETIME: Duration = Duration::from_mins(10);
/// The first part of all tokens, the same as in the personal token.
const TOKEN_PREFIX: &str = "2348607";

/// Harvest ID's authorization server, with one application and one user.
pub(crate) struct Issuer {
    pub application: Application,
    /// The lifetime of new access tokens.
    pub lifetime: Duration,
    /// Whether each refresh issues a new refresh token and revokes the old one.
    pub rotate: bool,
    /// Whether the user denies consent.
    pub deny_consent: bool,
    /// The accounts to which the user has access; `None` is the default list.
    pub accounts: Option<Vec<Account>>,
    codes: HashMap<String, Code>,
    refresh_tokens: HashSet<String>,
    /// With the time at which each of them expires.
    access_tokens: HashMap<String, DateTime<Utc>>,
    issued: Vec<String>,
}

/// The application as it was registered.
pub(crate) struct Application {
    pub id: String,
    pub secret: String,
}

struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    expires_at: DateTime<Utc>,
}

/// A successful response of the token endpoint, with the fields in the documented order.
#[derive(Debug, Serialize)]
pub(crate) struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    token_type: &'static str,
    expires_in: u64,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            application: Application {
                id: "harvest-sim-client".to_owned(),
                secret: "not-a-real-secret".to_owned(),
            },
            lifetime: LIFETIME,
            rotate: false,
            deny_consent: false,
            accounts: None,
            codes: HashMap::new(),
            refresh_tokens: HashSet::new(),
            access_tokens: HashMap::new(),
            issued: Vec::new(),
        }
    }
}

impl Issuer {
    /// Issues an authorization code.
    pub fn authorize(&mut self, redirect_uri: &str, challenge: Option<&str>, clock: &Clock) -> String {
        let code = self.new_secret("code");
        let kept = Code {
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.map(str::to_owned),
            expires_at: clock.ahead(CODE_LIFETIME),
        };
        self.codes.insert(code.clone(), kept);
        code
    }

    /// Exchanges a code for tokens. The code is invalid after the first attempt, also if the attempt fails.
    pub fn redeem(
        &mut self,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        clock: &Clock,
    ) -> Result<Tokens, Refusal> {
        let code = self.codes.remove(code).ok_or(Refusal::InvalidGrant)?;
        let fits = clock.instant() < code.expires_at
            && redirect_uri.is_none_or(|uri| uri == code.redirect_uri)
            && code.challenge.is_none_or(|challenge| verifier.is_some_and(|it| verifies(it, &challenge)));
        if !fits {
            return Err(Refusal::InvalidGrant);
        }
        let refresh_token = self.issue_refresh_token();
        self.refresh(&refresh_token, false, clock)
    }

    /// Exchanges a refresh token for new tokens. With rotation, the old refresh token becomes invalid.
    pub fn redeem_refresh_token(&mut self, token: &str, clock: &Clock) -> Result<Tokens, Refusal> {
        self.refresh(token, self.rotate, clock)
    }

    pub fn issue_refresh_token(&mut self) -> String {
        let token = self.new_secret("rt");
        self.refresh_tokens.insert(token.clone());
        token
    }

    /// Whether this access token is valid.
    pub fn accepts(&self, access_token: &str, clock: &Clock) -> bool {
        self.access_tokens.get(access_token).is_some_and(|expires_at| clock.instant() < *expires_at)
    }

    pub fn revoke_access_tokens(&mut self) {
        self.access_tokens.clear();
    }

    pub fn revoke_refresh_tokens(&mut self) {
        self.refresh_tokens.clear();
    }

    /// All codes and tokens ever issued, also the invalid ones.
    pub fn issued(&self) -> &[String] {
        &self.issued
    }

    fn refresh(&mut self, token: &str, rotate: bool, clock: &Clock) -> Result<Tokens, Refusal> {
        if !self.refresh_tokens.contains(token) {
            return Err(Refusal::InvalidGrant);
        }
        let refresh_token = if rotate {
            self.refresh_tokens.remove(token);
            self.issue_refresh_token()
        } else {
            token.to_owned()
        };
        let access_token = self.new_secret("at");
        self.access_tokens.insert(access_token.clone(), clock.ahead(self.lifetime));
        let expires_in = self.lifetime.as_secs();
        Ok(Tokens { access_token, refresh_token, token_type: "bearer", expires_in })
    }

    /// Secrets are random, so that the tokens of one simulator are invalid at another one.
    fn new_secret(&mut self, kind: &str) -> String {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let secret = format!("{TOKEN_PREFIX}.{kind}.{secret}");
        self.issued.push(secret.clone());
        secret
    }
}

/// Checks a PKCE verifier (`S256`).
fn verifies(verifier: &str, challenge: &str) -> bool {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == challenge
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn pkce_verifier_matches_the_challenge_of_the_rfc_example() {
        // RFC 7636, appendix B.
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(verifies("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge));
        assert!(!verifies(challenge, challenge));
    }

    #[test]
    fn access_token_keeps_the_lifetime_set_at_issue() {
        let (mut issuer, mut clock) = (Issuer::default(), Clock::default());
        clock.freeze();
        let refresh_token = issuer.issue_refresh_token();
        issuer.lifetime = Duration::from_secs(4);
        let access_token = issuer.redeem_refresh_token(&refresh_token, &clock).unwrap().access_token;
        issuer.lifetime = LIFETIME;
        clock.shift(TimeDelta::milliseconds(3_999));
        assert!(issuer.accepts(&access_token, &clock));
        clock.shift(TimeDelta::milliseconds(1));
        assert!(!issuer.accepts(&access_token, &clock));
    }

    #[test]
    fn authorization_code_expires_after_ten_minutes() {
        let (mut issuer, mut clock) = (Issuer::default(), Clock::default());
        clock.freeze();
        let codes: Vec<_> = (0..2).map(|_| issuer.authorize("http://localhost/", None, &clock)).collect();
        clock.shift(TimeDelta::seconds(599));
        assert!(issuer.redeem(&codes[0], None, None, &clock).is_ok());
        clock.shift(TimeDelta::seconds(1));
        assert_eq!(issuer.redeem(&codes[1], None, None, &clock).unwrap_err(), Refusal::InvalidGrant);
    }
}
