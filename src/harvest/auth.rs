//! What proves to Harvest who asks.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::header::{HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::HarvestError;

/// A token as the header carries it.
#[derive(Clone, PartialEq, Eq)]
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

/// Where the tokens of an account come from.
#[derive(Clone)]
pub enum Auth {
    /// A personal access token, made at <https://id.getharvest.com/developers>. It does not expire.
    Personal(Token),
    /// OAuth2: tokens that expire and are renewed.
    OAuth(Arc<dyn Renew>),
}

/// Keeps tokens that expire. Above this room, because they are kept in the database.
pub trait Renew: Send + Sync {
    /// A token that is good; another than the one that Harvest has just refused, unless that was new. Safe to drop.
    fn token(self: Arc<Self>, refused: Option<Token>) -> BoxFuture<'static, Result<Token, HarvestError>>;
}

impl Auth {
    pub(super) async fn token(&self, refused: Option<Token>) -> Result<Token, HarvestError> {
        match self {
            Self::Personal(token) => Ok(token.clone()),
            Self::OAuth(tokens) => tokens.clone().token(refused).await,
        }
    }

    /// Whether there may be another token than the one that was refused.
    pub(super) fn renews(&self) -> bool {
        matches!(self, Self::OAuth(_))
    }
}
