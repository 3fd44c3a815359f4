//! OAuth2 at Harvest's identity host: a person's consent, tokens for it, new tokens for old ones, and the accounts that
//! they open.
//!
//! <https://help.getharvest.com/api-v2/authentication-api/authentication/authentication/>: an access token lives for 14
//! days, and each renewal may bring a new refresh token, after which the old one may be dead. Whoever renews must
//! therefore be alone (see [`crate::sync::tokens`]) and keep what comes back.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicRequestTokenError, BasicTokenResponse};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken,
    TokenResponse, TokenUrl,
};
use reqwest::header::AUTHORIZATION;
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::auth::Token;
use super::pace::Permit;
use super::route::{NoTls, Route};
use super::transport::{BodyError, content_type, heard, read_body, retry_after, server_time};
use super::{HarvestError, pages};
use crate::clock::Clock;
use crate::roster::AccountId;
use crate::telemetry::meters;

/// A token is renewed so long before its end, or a quarter of its life before where that is less.
const EARLY: TimeDelta = TimeDelta::minutes(5);

type Endpoints = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// An application registered at <https://id.getharvest.com/developers>.
pub struct Application {
    http: reqwest::Client,
    route: Route,
    identity: Url,
    endpoints: Endpoints,
}

/// What opens an account for a while, and what renews it.
#[derive(Clone, Deserialize, Serialize)]
pub struct Tokens {
    access_token: String,
    refresh_token: Option<String>,
    /// When the access token ends, by our clock; `None` where nobody said.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it is time for another.
    pub renew_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

/// A page to open in a browser, and what its answer must match.
pub struct Consent {
    /// The page.
    pub url: Url,
    /// Comes back with the answer; any other answer is somebody else's.
    pub state: String,
    verifier: PkceCodeVerifier,
    redirect: RedirectUrl,
}

/// A Harvest account that a person may enter.
#[derive(Clone, Debug, Deserialize)]
pub struct OpenAccount {
    /// Its number.
    pub id: i64,
    /// The company's name.
    pub name: String,
    product: String,
}

impl Tokens {
    /// What only renews: a first refresh token from the settings.
    pub fn seed(refresh_token: &SecretString) -> Self {
        Self {
            access_token: String::new(),
            refresh_token: Some(refresh_token.expose_secret().to_owned()),
            expires_at: None,
            renew_at: None,
        }
    }

    fn of(answer: &BasicTokenResponse, old: Option<&str>, asked_at: DateTime<Utc>) -> Self {
        let life = answer.expires_in().and_then(|life| TimeDelta::from_std(life).ok());
        let at = |after: TimeDelta| asked_at.checked_add_signed(after);
        Self {
            access_token: answer.access_token().secret().clone(),
            refresh_token: answer
                .refresh_token()
                .map(|token| token.secret().as_str())
                .filter(|token| !token.is_empty())
                .or(old)
                .map(str::to_owned),
            expires_at: life.and_then(at),
            renew_at: life.and_then(|life| at(life - EARLY.min(life / 4))),
        }
    }

    /// The access token; `None` for a seed, and for what cannot stand in a header.
    pub fn access(&self) -> Option<Token> {
        if self.access_token.is_empty() {
            return None;
        }
        Token::new(&SecretString::from(self.access_token.as_str())).ok()
    }

    /// Whether it is time for another.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.renew_at.is_some_and(|at| at <= now)
    }

    /// Whether the access token opens nothing any more.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.access_token.is_empty() || self.expires_at.is_some_and(|at| at <= now)
    }
}

impl Application {
    /// `identity`: such as `https://id.getharvest.com`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built (no TLS roots on the machine).
    pub fn new(
        identity: &Url,
        client_id: &str,
        client_secret: &SecretString,
        user_agent: &str,
        timeout: Duration,
    ) -> Result<Self, NoTls> {
        let route = Route::to(identity);
        let http = route.client(timeout, |http| http.user_agent(user_agent))?;
        let endpoints = BasicClient::new(ClientId::new(client_id.to_owned()))
            .set_client_secret(ClientSecret::new(client_secret.expose_secret().to_owned()))
            // In the body, as Harvest's documents show it.
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::from_url(at(identity, "oauth2/authorize")))
            .set_token_uri(TokenUrl::from_url(at(identity, "api/v2/oauth2/token")));
        Ok(Self { http, route, identity: identity.clone(), endpoints })
    }

    /// A page on which a person says yes or no, and which then leads to `redirect`.
    pub fn consent(&self, redirect: &Url) -> Consent {
        let redirect = RedirectUrl::from_url(redirect.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        // A server that does not know PKCE takes no notice of it.
        let (url, state) = self
            .endpoints
            .authorize_url(CsrfToken::new_random)
            .set_redirect_uri(std::borrow::Cow::Borrowed(&redirect))
            .set_pkce_challenge(challenge)
            .url();
        Consent { url, state: state.into_secret(), verifier, redirect }
    }

    /// Tokens for a consent.
    pub async fn exchange(
        &self,
        consent: Consent,
        code: String,
        clock: &dyn Clock,
    ) -> Result<Tokens, IdentityError> {
        let asked_at = clock.now();
        let answer = self
            .endpoints
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(consent.verifier)
            .set_redirect_uri(std::borrow::Cow::Owned(consent.redirect))
            .request_async(self)
            .await
            .map_err(IdentityError::from)?;
        Ok(Tokens::of(&answer, None, asked_at))
    }

    /// New tokens for old ones. Whether Harvest counts these requests too is not known: they are paced as if it did.
    pub async fn renew(
        &self,
        account: AccountId,
        old: &Tokens,
        permit: Permit,
        clock: &dyn Clock,
    ) -> Result<Tokens, IdentityError> {
        let Some(refresh) = old.refresh_token.clone().map(RefreshToken::new) else {
            permit.answered();
            return Err(IdentityError::NothingToRenewWith);
        };
        let asked_at = clock.now();
        let answer = self.endpoints.exchange_refresh_token(&refresh).request_async(self).await;
        let answer =
            answer.map_err(IdentityError::from).and_then(|answer| match answer.access_token().secret() {
                token if token.is_empty() => Err(IdentityError::Unreadable("it holds no token".to_owned())),
                _ => Ok(answer),
            });
        let (status, silence) = match &answer {
            Ok(_) => (Some(StatusCode::OK), None),
            Err(IdentityError::Http(HttpError::Network { .. })) => (None, None),
            Err(IdentityError::Http(HttpError::Status { status, silence })) => (Some(*status), *silence),
            Err(IdentityError::Http(HttpError::NotHarvest { status, .. })) => (Some(*status), None),
            Err(error) => (error.is_credentials().then_some(StatusCode::BAD_REQUEST), None),
        };
        match &answer {
            // It may be under way yet.
            Err(error) if !error.is_answer() => drop(permit),
            _ => heard(permit, status.unwrap_or_default(), silence),
        }
        meters::request(account.0, "oauth2/token", status.map(|status| status.as_u16()));
        Ok(Tokens::of(&answer?, Some(refresh.secret()), asked_at))
    }

    /// The Harvest accounts that a person may enter. Forecast's stand in the same list.
    pub async fn accounts(&self, tokens: &Tokens) -> Result<Vec<OpenAccount>, IdentityError> {
        #[derive(Deserialize)]
        struct Accounts {
            accounts: Vec<OpenAccount>,
        }
        let token = tokens.access().ok_or(IdentityError::NothingToRenewWith)?;
        let request =
            self.http.get(at(&self.identity, "api/v2/accounts")).header(AUTHORIZATION, token.header());
        let answer = self.read(request.send().await).await.map_err(IdentityError::Http)?;
        if answer.status() != StatusCode::OK {
            let (status, silence) = (answer.status(), None);
            return Err(IdentityError::Http(HttpError::Status { status, silence }));
        }
        let accounts: Accounts = serde_json::from_slice(answer.body())
            .map_err(|error| IdentityError::Unreadable(pages::not_as_expected(&error)))?;
        Ok(accounts.accounts.into_iter().filter(|account| account.product == "harvest").collect())
    }
}

impl<'c> AsyncHttpClient<'c> for Application {
    type Error = HttpError;
    type Future = BoxFuture<'c, Result<HttpResponse, HttpError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        async move {
            let request = reqwest::Request::try_from(request).map_err(|error| self.no_answer(error))?;
            self.read(self.http.execute(request).await).await
        }
        .boxed()
    }
}

impl Application {
    /// The answer, where it says anything of tokens.
    async fn read(&self, response: reqwest::Result<reqwest::Response>) -> Result<HttpResponse, HttpError> {
        let response = response.map_err(|error| self.no_answer(error))?;
        let status = response.status();
        if status.is_server_error() || status.is_redirection() || status == StatusCode::TOO_MANY_REQUESTS {
            let now = server_time(response.headers(), Duration::ZERO).unwrap_or_default();
            return Err(HttpError::Status { status, silence: retry_after(response.headers(), now) });
        }
        let content_type = content_type(response.headers());
        if !content_type.contains("json") {
            let sentence = format!(
                "{content_type:?} instead of JSON; this answer is not Harvest's own; check harvest.identity_url and what is \
                 between rosterd and Harvest{}",
                self.route.proxy_note()
            );
            return Err(HttpError::NotHarvest { status, sentence });
        }
        let body = read_body(response).await.map_err(|error| match error {
            BodyError::Network(error) => self.no_answer(error),
            BodyError::TooLong => HttpError::TooLong,
        })?;
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = status;
        Ok(answer)
    }

    fn no_answer(&self, error: reqwest::Error) -> HttpError {
        let advice = self.route.advice(&error, "harvest.identity_url");
        HttpError::Network { advice, source: error.without_url() }
    }
}

fn at(identity: &Url, path: &str) -> Url {
    let mut url = identity.clone();
    url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    url
}

/// No answer, or none that says anything.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection.
    #[error("no answer; {advice}")]
    Network {
        /// What to do.
        advice: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// A status that says nothing of the tokens.
    #[error("it answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// For how long it wants to hear nothing.
        silence: Option<Duration>,
    },
    /// An answer that is not in the format of OAuth2 (RFC 6749 wants JSON).
    #[error("it answered {status} with {sentence}")]
    NotHarvest {
        /// The status.
        status: StatusCode,
        /// The content type and what to do.
        sentence: String,
    },
    /// No end of it.
    #[error("its answer is too long")]
    TooLong,
}

/// Why the identity host gave no tokens. Holds no part of an answer but its error code.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The consent or the refresh token is not taken (any more).
    #[error("Harvest does not take the authorization any more ({0})")]
    Refused(String),
    /// The application is not known, or proved itself wrongly.
    #[error("Harvest does not know the OAuth2 application ({0}); check its client id and client secret")]
    Application(String),
    /// There are no tokens yet.
    #[error("there is no authorization yet")]
    NothingToRenewWith,
    /// What is kept cannot be opened.
    #[error("the authorization that is kept was sealed with another client secret")]
    Sealed,
    /// The budget of requests gives no leave, as when the process ends.
    #[error("there is no leave to ask")]
    NoLeave,
    /// No answer.
    #[error("Harvest's identity host (harvest.identity_url) did not answer as it should")]
    Http(#[source] HttpError),
    /// An answer that is none.
    #[error("cannot read the answer of Harvest's identity host: {0}")]
    Unreadable(String),
}

impl From<BasicRequestTokenError<HttpError>> for IdentityError {
    fn from(error: BasicRequestTokenError<HttpError>) -> Self {
        match error {
            oauth2::RequestTokenError::ServerResponse(answer) => match answer.error() {
                code @ (BasicErrorResponseType::InvalidClient
                | BasicErrorResponseType::UnauthorizedClient) => Self::Application(code.as_ref().to_owned()),
                // Any text may stand there.
                BasicErrorResponseType::Extension(_) => Self::Refused("an error of its own".to_owned()),
                code => Self::Refused(code.as_ref().to_owned()),
            },
            oauth2::RequestTokenError::Request(error) => Self::Http(error),
            // What could not be read may hold tokens.
            oauth2::RequestTokenError::Parse(..) | oauth2::RequestTokenError::Other(_) => {
                Self::Unreadable("it is not what RFC 6749 describes".to_owned())
            }
        }
    }
}

impl IdentityError {
    /// Whether anything came back, so that nothing can be under way any more.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Self::Http(HttpError::Network { .. }))
    }

    /// Only a person can help.
    pub fn is_credentials(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Application(_) | Self::NothingToRenewWith | Self::Sealed => true,
            Self::NoLeave | Self::Http(_) | Self::Unreadable(_) => false,
        }
    }

    /// As a request of this account's reports it.
    pub fn of(self, account: AccountId) -> HarvestError {
        if self.is_credentials() {
            HarvestError::Unauthorized { account, source: self }
        } else {
            HarvestError::Identity { account, source: self }
        }
    }
}
