//! Access tokens, personal or from OAuth2.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::header::{HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::error::HarvestError;

/// A token in the form of the `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(HeaderValue);

impl AccessToken {
    /// # Errors
    /// If the token has a character that a header cannot have, such as a pasted line break.
    pub fn new(token: &SecretString) -> Result<Self, InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

#[derive(Clone)]
pub enum Auth {
    /// A personal access token from <https://id.getharvest.com/developers>. It does not expire.
    Personal(AccessToken),
    /// OAuth2: tokens that expire and are renewed.
    OAuth(Arc<dyn Renew>),
}

/// Keeps and renews tokens that expire. `daemon` implements it, because the tokens are in the database.
pub trait Renew: Send + Sync {
    /// A valid token. If Harvest refused the token `refused`, this is another one, unless that one had just been
    /// issued. Dropping the future loses no token.
    fn token(
        self: Arc<Self>,
        refused: Option<AccessToken>,
    ) -> BoxFuture<'static, Result<AccessToken, HarvestError>>;
}

impl Auth {
    pub(super) async fn token(&self, refused: Option<AccessToken>) -> Result<AccessToken, HarvestError> {
        match self {
            Self::Personal(token) => Ok(token.clone()),
            Self::OAuth(tokens) => tokens.clone().token(refused).await,
        }
    }

    /// Whether another token may exist if Harvest refuses one.
    pub(super) fn renews(&self) -> bool {
        matches!(self, Self::OAuth(_))
    }
}
