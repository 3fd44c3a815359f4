//! OAuth2 at Harvest's identity host: a user's consent, the tokens for it, their renewal, and the accounts that the
//! tokens give access to.
//!
//! <https://help.getharvest.com/api-v2/authentication-api/authentication/authentication/>: an access token is valid for
//! 14 days. Each renewal may return a new refresh token and revoke the old one. Therefore only one process may renew at
//! a time (see [`crate::daemon::token_renewal`]), and it must store the response.

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

use super::auth::AccessToken;
use super::error::{HttpError, IdentityError, not_as_expected};
use super::rate_limit::Permit;
use super::route::{Route, below};
use super::transport::{MAX_BODY_BYTES, content_type};
use crate::clock::Clock;
use crate::outbound::{BodyError, NoTls, read_body, retry_after, server_time};
use crate::roster::AccountId;
use crate::telemetry::instruments;

/// A token is renewed this long before it expires, or a quarter of its lifetime before, whichever is shorter.
const RENEW_BEFORE: TimeDelta = TimeDelta::minutes(5);

type Endpoints = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// An application registered at <https://id.getharvest.com/developers>.
pub struct OAuthApplication {
    http: reqwest::Client,
    route: Route,
    identity: Url,
    endpoints: Endpoints,
}

/// An access token and the refresh token that renews it.
#[derive(Clone, Deserialize, Serialize)]
pub struct OAuthTokens {
    access_token: String,
    refresh_token: Option<String>,
    /// When the access token expires, by rosterd's clock; `None` if Harvest did not say.
    pub expires_at: Option<DateTime<Utc>>,
    pub renew_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for OAuthTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OAuthTokens(…)")
    }
}

/// A page for the user's browser, and the values that its redirect must match.
pub struct Consent {
    pub url: Url,
    /// The redirect's `state` must be equal; any other redirect does not belong to this consent.
    pub state: String,
    verifier: PkceCodeVerifier,
    redirect: RedirectUrl,
}

/// A Harvest account that the user has access to.
#[derive(Clone, Debug, Deserialize)]
pub struct OpenAccount {
    pub id: i64,
    pub name: String,
    product: String,
}

impl OAuthTokens {
    /// A first refresh token from the settings, without an access token.
    pub fn seed(refresh_token: &SecretString) -> Self {
        Self {
            access_token: String::new(),
            refresh_token: Some(refresh_token.expose_secret().to_owned()),
            expires_at: None,
            renew_at: None,
        }
    }

    fn of(response: &BasicTokenResponse, old: Option<&str>, requested_at: DateTime<Utc>) -> Self {
        let lifetime = response.expires_in().and_then(|lifetime| TimeDelta::from_std(lifetime).ok());
        let at = |after: TimeDelta| requested_at.checked_add_signed(after);
        Self {
            access_token: response.access_token().secret().clone(),
            refresh_token: response
                .refresh_token()
                .map(|token| token.secret().as_str())
                .filter(|token| !token.is_empty())
                .or(old)
                .map(str::to_owned),
            expires_at: lifetime.and_then(at),
            renew_at: lifetime.and_then(|lifetime| at(lifetime - RENEW_BEFORE.min(lifetime / 4))),
        }
    }

    /// The access token; `None` for a seed, and for a token that a header cannot have.
    pub fn access(&self) -> Option<AccessToken> {
        if self.access_token.is_empty() {
            return None;
        }
        AccessToken::new(&SecretString::from(self.access_token.as_str())).ok()
    }

    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.renew_at.is_some_and(|at| at <= now)
    }

    /// Whether there is no access token, or it has expired.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.access_token.is_empty() || self.expires_at.is_some_and(|at| at <= now)
    }
}

impl OAuthApplication {
    /// `identity`: such as `https://id.getharvest.com`.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, because the machine has no certificate authorities.
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
            // In the body, as in Harvest's documentation.
            .set_auth_type(AuthType::RequestBody)
            .set_auth_uri(AuthUrl::from_url(below(identity, "oauth2/authorize")))
            .set_token_uri(TokenUrl::from_url(below(identity, "api/v2/oauth2/token")));
        Ok(Self { http, route, identity: identity.clone(), endpoints })
    }

    /// A page on which the user accepts or refuses, and which then redirects to `redirect`.
    pub fn consent(&self, redirect: &Url) -> Consent {
        let redirect = RedirectUrl::from_url(redirect.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        // A server without PKCE ignores the challenge.
        let (url, state) = self
            .endpoints
            .authorize_url(CsrfToken::new_random)
            .set_redirect_uri(std::borrow::Cow::Borrowed(&redirect))
            .set_pkce_challenge(challenge)
            .url();
        Consent { url, state: state.into_secret(), verifier, redirect }
    }

    pub async fn exchange(
        &self,
        consent: Consent,
        code: String,
        clock: &dyn Clock,
    ) -> Result<OAuthTokens, IdentityError> {
        let requested_at = clock.now();
        let response = self
            .endpoints
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(consent.verifier)
            .set_redirect_uri(std::borrow::Cow::Owned(consent.redirect))
            .request_async(self)
            .await
            .map_err(IdentityError::from)?;
        Ok(OAuthTokens::of(&response, None, requested_at))
    }

    /// Renews tokens. Harvest does not document whether these requests count for the rate limit, so each takes a
    /// permit.
    pub async fn renew(
        &self,
        account: AccountId,
        old: &OAuthTokens,
        permit: Permit,
        clock: &dyn Clock,
    ) -> Result<OAuthTokens, IdentityError> {
        let Some(refresh) = old.refresh_token.clone().map(RefreshToken::new) else {
            permit.answered(StatusCode::OK, None);
            return Err(IdentityError::NothingToRenewWith);
        };
        let requested_at = clock.now();
        let response = self.endpoints.exchange_refresh_token(&refresh).request_async(self).await;
        let response = match response {
            Ok(response) if response.access_token().secret().is_empty() => {
                Err(IdentityError::Unreadable("it holds no token".to_owned()))
            }
            response => response.map_err(IdentityError::from),
        };
        let (status, retry_after) = status(response.as_ref().err());
        match &response {
            // The host may still process the request.
            Err(error) if !error.is_response() => drop(permit),
            _ => permit.answered(status.unwrap_or_default(), retry_after),
        }
        instruments::request(account.0, "oauth2/token", status.map(|status| status.as_u16()));
        Ok(OAuthTokens::of(&response?, Some(refresh.secret()), requested_at))
    }

    /// The Harvest accounts that the user has access to. The response also has accounts of Forecast.
    pub async fn accounts(&self, tokens: &OAuthTokens) -> Result<Vec<OpenAccount>, IdentityError> {
        #[derive(Deserialize)]
        struct Accounts {
            accounts: Vec<OpenAccount>,
        }
        let token = tokens.access().ok_or(IdentityError::NothingToRenewWith)?;
        let request =
            self.http.get(below(&self.identity, "api/v2/accounts")).header(AUTHORIZATION, token.header());
        let response = self.read(request.send().await).await.map_err(IdentityError::Http)?;
        if response.status() != StatusCode::OK {
            let (status, retry_after) = (response.status(), None);
            return Err(IdentityError::Http(HttpError::Status { status, retry_after }));
        }
        let accounts: Accounts = serde_json::from_slice(response.body())
            .map_err(|error| IdentityError::Unreadable(not_as_expected(&error)))?;
        Ok(accounts.accounts.into_iter().filter(|account| account.product == "harvest").collect())
    }
}

impl<'c> AsyncHttpClient<'c> for OAuthApplication {
    type Error = HttpError;
    type Future = BoxFuture<'c, Result<HttpResponse, HttpError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        async move {
            let request = reqwest::Request::try_from(request).map_err(|error| self.network_error(error))?;
            self.read(self.http.execute(request).await).await
        }
        .boxed()
    }
}

impl OAuthApplication {
    /// Reads a response, if it can concern tokens.
    async fn read(&self, response: reqwest::Result<reqwest::Response>) -> Result<HttpResponse, HttpError> {
        let response = response.map_err(|error| self.network_error(error))?;
        let status = response.status();
        if status.is_server_error() || status.is_redirection() || status == StatusCode::TOO_MANY_REQUESTS {
            let now = server_time(response.headers(), Duration::ZERO).unwrap_or_default();
            return Err(HttpError::Status { status, retry_after: retry_after(response.headers(), now) });
        }
        let content_type = content_type(response.headers());
        if !content_type.contains("json") {
            let details = format!(
                "{content_type:?} instead of JSON; this answer is not Harvest's own; check harvest.identity_url and \
                 what is between rosterd and Harvest{}",
                self.route.proxy_note()
            );
            return Err(HttpError::NotHarvest { status, details });
        }
        let body = read_body(response, MAX_BODY_BYTES).await.map_err(|error| match error {
            BodyError::Network(error) => self.network_error(error),
            BodyError::TooLong => HttpError::TooLong,
        })?;
        let mut response = HttpResponse::new(body);
        *response.status_mut() = status;
        Ok(response)
    }

    fn network_error(&self, error: reqwest::Error) -> HttpError {
        let advice = self.route.advice(&error, "harvest.identity_url");
        HttpError::Network { advice, source: error.without_url() }
    }
}

/// A renewal's status and `Retry-After`, for the rate limiter and the metrics. `oauth2` does not pass on every status:
/// its error for a refusal means 400.
fn status(error: Option<&IdentityError>) -> (Option<StatusCode>, Option<Duration>) {
    match error {
        None => (Some(StatusCode::OK), None),
        Some(IdentityError::Http(HttpError::Status { status, retry_after })) => (Some(*status), *retry_after),
        Some(IdentityError::Http(HttpError::NotHarvest { status, .. })) => (Some(*status), None),
        Some(IdentityError::Http(HttpError::Network { .. } | HttpError::TooLong)) => (None, None),
        Some(error) => (error.is_credentials().then_some(StatusCode::BAD_REQUEST), None),
    }
}

impl From<BasicRequestTokenError<HttpError>> for IdentityError {
    fn from(error: BasicRequestTokenError<HttpError>) -> Self {
        match error {
            oauth2::RequestTokenError::ServerResponse(response) => match response.error() {
                code @ (BasicErrorResponseType::InvalidClient
                | BasicErrorResponseType::UnauthorizedClient) => {
                    Self::UnknownApplication(code.as_ref().to_owned())
                }
                // The code may be any text.
                BasicErrorResponseType::Extension(_) => {
                    Self::Refused("an error code outside RFC 6749".to_owned())
                }
                code => Self::Refused(code.as_ref().to_owned()),
            },
            oauth2::RequestTokenError::Request(error) => Self::Http(error),
            // The error holds the body, which may contain tokens.
            oauth2::RequestTokenError::Parse(..) | oauth2::RequestTokenError::Other(_) => {
                Self::Unreadable("it is not what RFC 6749 describes".to_owned())
            }
        }
    }
}
