//! Who asked the token endpoint for what, and how many at once.

use std::fmt;
use std::time::Instant;

/// What a token request offered in exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The code a person's yes sent back.
    AuthorizationCode,
    /// A refresh token.
    RefreshToken,
    /// Nothing, or something that is not served.
    Other,
}

/// What became of a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Tokens were made, and a rotated one is dead, even if the answer was lost.
    Granted,
    /// It was refused.
    Refused(Refusal),
}

/// The words of a refusal, as OAuth2 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A parameter is missing.
    InvalidRequest,
    /// The application's id or secret is wrong.
    InvalidClient,
    /// The code or the refresh token is wrong, used up, expired or revoked.
    InvalidGrant,
    /// This kind of grant is not served.
    UnsupportedGrantType,
}

impl Refusal {
    /// The sentence that goes with it.
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

/// A request to the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// When it had been read.
    pub at: Instant,
    /// What it offered.
    pub grant: Grant,
    /// The refresh token it showed.
    pub refresh_token: Option<String>,
    /// What became of it; `None` while it waits, and when trouble came before it was looked at.
    pub outcome: Option<Outcome>,
    number: u64,
}

/// Every token request, and how many are under way.
#[derive(Default)]
pub(crate) struct TokenLog {
    requests: Vec<TokenRequest>,
    arrivals: u64,
    in_flight: usize,
    most_in_flight: usize,
}

impl TokenLog {
    pub fn arrive(&mut self, at: Instant, grant: Grant, refresh_token: Option<String>) -> u64 {
        self.arrivals += 1;
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        let number = self.arrivals;
        self.requests.push(TokenRequest { at, grant, refresh_token, outcome: None, number });
        number
    }

    pub fn decided(&mut self, number: u64, outcome: Option<Outcome>) {
        // Looked up by number: the log may have been cleared since.
        if let Ok(index) = self.requests.binary_search_by_key(&number, |request| request.number) {
            self.requests[index].outcome = outcome;
        }
    }

    pub fn left(&mut self) {
        self.in_flight -= 1;
    }

    pub fn requests(&self) -> &[TokenRequest] {
        &self.requests
    }

    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight
    }

    pub fn clear(&mut self) {
        self.requests.clear();
        self.most_in_flight = self.in_flight;
    }
}
