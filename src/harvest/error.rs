//! Errors of requests to Harvest. Callers decide by the variant.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;

use crate::roster::AccountId;

/// Why a request failed or its response cannot be used. `what` is the requested resource. No variant holds a body, because
/// bodies hold personal data.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// 401: the token is invalid, or the account header is missing (Harvest's responses are the same).
    #[error(
        "Harvest refused the token of account {account} (401) when asked for {what}; create a new personal access \
         token at https://id.getharvest.com/developers (tokens created before SAML sign-in was enforced \
         do not work any more), or with OAuth2 run `rosterd auth login`"
    )]
    Refused { account: AccountId, what: String },
    /// 403: the token's owner may not read the resource.
    #[error(
        "Harvest does not let the token of account {account} read {what} (403); its owner must be an administrator"
    )]
    Forbidden { account: AccountId, what: String },
    /// 404 for a resource that every account has.
    #[error(
        "Harvest does not know account {account} for this token (404) when asked for {what}; look up the account's \
         id at https://id.getharvest.com/developers and set HARVEST_ACCOUNT_ID, or check harvest.base_url"
    )]
    UnknownAccount { account: AccountId, what: String },
    /// A 200, a redirect, a 403 or a 404 that is not in Harvest's format.
    #[error("{message}")]
    NotHarvest {
        what: String,
        status: StatusCode,
        /// The host, its response, the probable cause and the fix.
        message: String,
    },
    /// OAuth2: no refresh token works, or none was ever stored.
    #[error(
        "account {account} has no working OAuth2 authorization; run `rosterd auth login`, or set a new first refresh \
         token (HARVEST_OAUTH_REFRESH_TOKEN)"
    )]
    Unauthorized { account: AccountId, source: IdentityError },
    /// OAuth2: the identity host did not renew the tokens; a later attempt may succeed.
    #[error(
        "the OAuth2 tokens of account {account} could not be renewed; try again later, or check harvest.identity_url"
    )]
    Identity { account: AccountId, source: IdentityError },
    /// OAuth2: the storage of the tokens failed.
    #[error("cannot read or write the OAuth2 tokens of account {account}, which are kept in the database")]
    TokenStorage { account: AccountId, source: Box<dyn Error + Send + Sync> },
    /// 429 to the request and to all its repetitions.
    #[error("Harvest limited the rate of requests (429) when asked for {what}; try again later")]
    Throttled { what: String },
    /// No permit before the deadline of a write.
    #[error("the request budget had no permit in time for {what}; trying again")]
    NotSent { what: String },
    #[error("Harvest answered {status} when asked for {what}; try again later")]
    Status { what: String, status: StatusCode },
    #[error("no answer from Harvest {details}")]
    Unreachable {
        /// The host, the requested resource and the fix.
        details: String,
        source: reqwest::Error,
    },
    /// A response in a format that Harvest's documentation excludes.
    #[error("cannot read Harvest's answer for {what}: {problem}")]
    Protocol {
        what: String,
        /// What is wrong; no part of the body.
        problem: String,
    },
    /// A list changed during pagination: records may be absent from the pages that were read.
    #[error("the list of {what} changed while it was read page by page ({problem}); try again later")]
    Drifted {
        what: String,
        /// The contradiction between the pages.
        problem: String,
    },
}

impl HarvestError {
    /// A [`HarvestError::Protocol`] of this resource, with what is wrong.
    pub(super) fn protocol(what: &str) -> impl Fn(String) -> Self {
        move |problem| Self::Protocol { what: what.to_owned(), problem }
    }

    /// Whether the same cycle should repeat the request: connection errors, timeouts, 429 and 5xx.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Unreachable { .. } | Self::Identity { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Refused { .. }
            | Self::Forbidden { .. }
            | Self::UnknownAccount { .. }
            | Self::NotHarvest { .. }
            | Self::Unauthorized { .. }
            | Self::TokenStorage { .. }
            | Self::Protocol { .. }
            | Self::NotSent { .. }
            | Self::Drifted { .. } => false,
        }
    }

    /// The error to report if the request was for a later page of a list. Harvest has served the first page to this
    /// token, so account and role are right. A 404 (such as for an expired cursor) means that the list changed.
    pub(super) fn of_later_page(self) -> Self {
        let not_found = |what, status| Self::Drifted {
            what,
            problem: format!("a later page was answered with {status}"),
        };
        match self {
            Self::UnknownAccount { what, .. } => not_found(what, StatusCode::NOT_FOUND),
            Self::NotHarvest { what, status: status @ StatusCode::NOT_FOUND, .. } => not_found(what, status),
            Self::Forbidden { what, .. } => Self::Status { what, status: StatusCode::FORBIDDEN },
            other => other,
        }
    }

    /// Whether there is no token to send, so that every other request would fail too.
    pub(crate) fn is_without_token(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Identity { .. } | Self::TokenStorage { .. })
    }

    /// Whether the token or the account is wrong, so that an administrator must act.
    pub(crate) fn is_credentials(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Forbidden { .. }
                | Self::UnknownAccount { .. }
                | Self::Unauthorized { .. }
        )
    }
}

/// Why a request to the identity host brought no response that concerns the tokens.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("no answer; {advice}")]
    Network { advice: String, source: reqwest::Error },
    /// A redirect, a 429, a 5xx, or a status that the endpoint does not document.
    #[error("it answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// A response that is not JSON, which RFC 6749 requires.
    #[error("it answered {status} with {details}")]
    NotHarvest {
        status: StatusCode,
        /// The content type and the fix.
        details: String,
    },
    #[error("its answer is too long")]
    TooLong,
}

/// Why the identity host issued no tokens. Of a response only the error code of RFC 6749 is kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authorization code or the refresh token is invalid, expired or revoked.
    #[error("Harvest does not accept the authorization ({0})")]
    Refused(String),
    #[error("Harvest does not know the OAuth2 application ({0}); check its client id and client secret")]
    UnknownApplication(String),
    #[error("there is no authorization yet")]
    NothingToRenewWith,
    #[error("the stored authorization was sealed with another client secret")]
    Sealed,
    /// The rate limiter granted no permit in time, for example because the process ends.
    #[error("the rate limiter granted no request in time")]
    NoPermit,
    #[error("the request to Harvest's identity host (harvest.identity_url) failed")]
    Http(#[source] HttpError),
    #[error("cannot read the answer of Harvest's identity host: {0}")]
    Unreadable(String),
}

impl IdentityError {
    /// Whether the host responded, so that it cannot process the request later.
    pub(crate) fn is_response(&self) -> bool {
        !matches!(self, Self::Http(HttpError::Network { .. }))
    }

    pub(crate) fn is_credentials(&self) -> bool {
        match self {
            Self::Refused(_) | Self::UnknownApplication(_) | Self::NothingToRenewWith | Self::Sealed => true,
            Self::NoPermit | Self::Http(_) | Self::Unreadable(_) => false,
        }
    }

    pub fn of(self, account: AccountId) -> HarvestError {
        if self.is_credentials() {
            HarvestError::Unauthorized { account, source: self }
        } else {
            HarvestError::Identity { account, source: self }
        }
    }
}

/// The position of a syntax error. The text at that position stays out, because bodies hold personal data.
pub(super) fn not_as_expected(error: &serde_json::Error) -> String {
    format!("not JSON as expected, at line {} column {}", error.line(), error.column())
}
