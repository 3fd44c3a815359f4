//! The log of token requests.

use std::fmt;
use std::time::Instant;

/// The grant of a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// An authorization code.
    AuthorizationCode,
    /// A refresh token.
    RefreshToken,
    /// No grant or an unsupported one.
    Other,
}

/// The outcome of a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Tokens were issued. With rotation, the old refresh token is invalid, even if the response was lost.
    Granted,
    /// The request was refused.
    Refused(Refusal),
}

/// The OAuth2 error code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A parameter is missing.
    InvalidRequest,
    /// The application's id or secret is wrong.
    InvalidClient,
    /// The code or the refresh token is unknown, used, expired or revoked.
    InvalidGrant,
    /// The simulator does not support this grant type.
    UnsupportedGrantType,
}

impl Refusal {
    /// The value of `error_description`.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest => "A required parameter is missing.",
            Self::InvalidClient => "The client id or the client secret is wrong.",
            Self::InvalidGrant => "The code or refresh token is invalid, expired, used or revoked.",
            Self::UnsupportedGrantType => "This grant type is not supported.",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
        })
    }
}

/// A logged request to the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// When the server had read the request.
    pub at: Instant,
    /// The grant of the request.
    pub grant: Grant,
    /// The refresh token in the request.
    pub refresh_token: Option<String>,
    /// The outcome; `None` until the request is processed, and if a fault prevented that.
    pub outcome: Option<Outcome>,
    number: u64,
}

/// All token requests, and the number of requests in flight.
#[derive(Default)]
pub(crate) struct TokenLog {
    requests: Vec<TokenRequest>,
    arrivals: u64,
    in_flight: usize,
    max_in_flight: usize,
}

impl TokenLog {
    pub fn arrive(&mut self, at: Instant, grant: Grant, refresh_token: Option<String>) -> u64 {
        self.arrivals += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        let number = self.arrivals;
        self.requests.push(TokenRequest { at, grant, refresh_token, outcome: None, number });
        number
    }

    pub fn set_outcome(&mut self, number: u64, outcome: Option<Outcome>) {
        // Searches by number because the log may have been cleared since the request arrived.
        if let Ok(index) = self.requests.binary_search_by_key(&number, |request| request.number) {
            self.requests[index].outcome = outcome;
        }
    }

    pub fn finish(&mut self) {
        self.in_flight -= 1;
    }

    pub fn requests(&self) -> &[TokenRequest] {
        &self.requests
    }

    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    pub fn clear(&mut self) {
        self.requests.clear();
        self.max_in_flight = self.in_flight;
    }
}
