//! What proves to Harvest who asks.

use std::fmt;

use reqwest::header::{HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};

/// A personal access token, made at <https://id.getharvest.com/developers>. It does not expire.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Refuses a token that cannot stand in a header (a line break from a careless paste).
    pub fn new(token: &SecretString) -> Result<Self, InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the `Authorization` header, marked sensitive.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
