//! What Harvest ID has handed out, and what of it is still good. Nothing here has heard of HTTP.

use std::collections::HashMap;
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
/// How long a code waits to be redeemed: the most that OAuth2 recommends.
const CODE_LIFETIME: Duration = Duration::from_mins(10);
/// What tokens begin with, as the personal one does.
const DIGITS: &str = "2348607";

/// Harvest ID's side of OAuth2: one application, one person who is asked.
pub(crate) struct Issuer {
    pub application: Application,
    /// How long access tokens live.
    pub lifetime: Duration,
    /// Each refresh makes a new refresh token and ends the old one.
    pub rotate: bool,
    /// Each refresh ends the access tokens that the same yes gave before.
    pub refresh_ends_access: bool,
    /// The person who is asked says no.
    pub person_refuses: bool,
    /// What the person may enter; `None` is the usual list.
    pub accounts: Option<Vec<Account>>,
    codes: HashMap<String, Code>,
    refresh_tokens: HashMap<String, Consent>,
    access_tokens: HashMap<String, Access>,
    consents: u64,
    handed_out: Vec<String>,
}

/// The application as it was registered.
pub(crate) struct Application {
    pub id: String,
    pub secret: String,
    /// What a `redirect_uri` must start with; `None` is any address of this machine's own.
    pub redirect_url: Option<String>,
}

/// A person's yes. All tokens that come of it belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Consent(u64);

struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    expires_at: DateTime<Utc>,
}

struct Access {
    consent: Consent,
    expires_at: DateTime<Utc>,
}

/// A good answer of the token endpoint, in the documents' order.
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
                redirect_url: None,
            },
            lifetime: LIFETIME,
            rotate: false,
            refresh_ends_access: false,
            person_refuses: false,
            accounts: None,
            codes: HashMap::new(),
            refresh_tokens: HashMap::new(),
            access_tokens: HashMap::new(),
            consents: 0,
            handed_out: Vec::new(),
        }
    }
}

impl Issuer {
    /// The code of a person's yes.
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

    /// Tokens for a code. It is gone with the first who shows it, whatever comes of that.
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
            && code.challenge.is_none_or(|challenge| verifier.is_some_and(|it| answers(it, &challenge)));
        if !fits {
            return Err(Refusal::InvalidGrant);
        }
        let refresh_token = self.mint_refresh_token();
        self.refresh(&refresh_token, false, clock)
    }

    /// New tokens for a refresh token, which goes if it rotates.
    pub fn redeem_refresh_token(&mut self, token: &str, clock: &Clock) -> Result<Tokens, Refusal> {
        self.refresh(token, self.rotate, clock)
    }

    /// The first refresh token of a new yes.
    pub fn mint_refresh_token(&mut self) -> String {
        self.consents += 1;
        self.new_refresh_token(Consent(self.consents))
    }

    /// Whether this access token is good.
    pub fn opens(&self, access_token: &str, clock: &Clock) -> bool {
        self.access_tokens.get(access_token).is_some_and(|access| clock.instant() < access.expires_at)
    }

    pub fn revoke_access_tokens(&mut self) {
        self.access_tokens.clear();
    }

    pub fn revoke_refresh_tokens(&mut self) {
        self.refresh_tokens.clear();
    }

    /// Every code and token there has been.
    pub fn handed_out(&self) -> &[String] {
        &self.handed_out
    }

    fn refresh(&mut self, token: &str, rotate: bool, clock: &Clock) -> Result<Tokens, Refusal> {
        let consent = *self.refresh_tokens.get(token).ok_or(Refusal::InvalidGrant)?;
        if self.refresh_ends_access {
            self.access_tokens.retain(|_, access| access.consent != consent);
        }
        let refresh_token = if rotate {
            self.refresh_tokens.remove(token);
            self.new_refresh_token(consent)
        } else {
            token.to_owned()
        };
        let access_token = self.new_secret("at");
        let access = Access { consent, expires_at: clock.ahead(self.lifetime) };
        self.access_tokens.insert(access_token.clone(), access);
        let expires_in = self.lifetime.as_secs();
        Ok(Tokens { access_token, refresh_token, token_type: "bearer", expires_in })
    }

    fn new_refresh_token(&mut self, consent: Consent) -> String {
        let token = self.new_secret("rt");
        self.refresh_tokens.insert(token.clone(), consent);
        token
    }

    /// Random, so that one simulator's tokens are no good at the next.
    fn new_secret(&mut self, kind: &str) -> String {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let secret = format!("{DIGITS}.{kind}.{secret}");
        self.handed_out.push(secret.clone());
        secret
    }
}

/// PKCE with `S256`.
fn answers(verifier: &str, challenge: &str) -> bool {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == challenge
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_verifier_answers_its_challenge_as_in_the_standard() {
        // RFC 7636, appendix B.
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(answers("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge));
        assert!(!answers(challenge, challenge));
    }

    #[test]
    fn a_token_lives_as_long_as_it_was_told_when_it_was_made() {
        let (mut issuer, mut clock) = (Issuer::default(), Clock::default());
        clock.freeze();
        let refresh_token = issuer.mint_refresh_token();
        issuer.lifetime = Duration::from_secs(4);
        let access_token = issuer.redeem_refresh_token(&refresh_token, &clock).unwrap().access_token;
        issuer.lifetime = LIFETIME;
        clock.shift(TimeDelta::milliseconds(3_999));
        assert!(issuer.opens(&access_token, &clock));
        clock.shift(TimeDelta::milliseconds(1));
        assert!(!issuer.opens(&access_token, &clock));
    }

    #[test]
    fn a_refresh_ends_the_access_tokens_of_the_same_yes_only() {
        let (mut issuer, clock) = (Issuer::default(), Clock::default());
        issuer.refresh_ends_access = true;
        let (ours, theirs) = (issuer.mint_refresh_token(), issuer.mint_refresh_token());
        let mut refresh = |token| issuer.redeem_refresh_token(token, &clock).unwrap().access_token;
        let (old, foreign, new) = (refresh(&ours), refresh(&theirs), refresh(&ours));
        assert_eq!([old, foreign, new].map(|token| issuer.opens(&token, &clock)), [false, true, true]);
    }

    #[test]
    fn a_code_waits_ten_minutes() {
        let (mut issuer, mut clock) = (Issuer::default(), Clock::default());
        clock.freeze();
        let codes: Vec<_> = (0..2).map(|_| issuer.authorize("http://localhost/", None, &clock)).collect();
        clock.shift(TimeDelta::seconds(599));
        assert!(issuer.redeem(&codes[0], None, None, &clock).is_ok());
        clock.shift(TimeDelta::seconds(1));
        assert_eq!(issuer.redeem(&codes[1], None, None, &clock).unwrap_err(), Refusal::InvalidGrant);
    }
}
