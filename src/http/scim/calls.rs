//! One request of a valid token, and what it reads from the mirror.

use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::time::Instant;
use uuid::Uuid;

use super::service::Service;
use super::tokens::{Access, Token};
use crate::roster::AccountId;
use crate::roster::write_policy::WriteMode;
use crate::scim::{Projection, ScimError, UserRow};
use crate::store::StoreError;
use crate::store::scim::ScimKey;
use crate::telemetry::chain;

/// For most answers with 503.
pub(super) const RETRY_SECONDS: u32 = 30;

pub(super) struct Call {
    pub service: Arc<Service>,
    pub token: Token,
    pub base: String,
    pub headers: HeaderMap,
    pub projection: Projection,
    /// When a waiting write is given up.
    pub deadline: Instant,
    pub writes: Vec<Uuid>,
    /// The write whose result the response has.
    pub answered: Option<Uuid>,
}

impl Call {
    pub fn account(&self) -> AccountId {
        self.token.account
    }

    /// Before the first full read, an empty mirror would make a directory create every user again.
    pub async fn require_first_read(&self) -> Result<(), ScimError> {
        let account = self.service.store.scim_account(self.account()).await.map_err(unavailable)?;
        if account.is_read {
            return Ok(());
        }
        Err(ScimError::unavailable(
            RETRY_SECONDS,
            "rosterd has not read this Harvest account completely yet; try again later",
        ))
    }

    pub fn require_write(&self) -> Result<(), ScimError> {
        if self.token.access == Access::Read {
            return Err(ScimError::new(403, "this token may only read"));
        }
        if self.service.options.mode == WriteMode::Off {
            return Err(ScimError::new(403, "rosterd does not write to Harvest: write.mode is \"off\""));
        }
        Ok(())
    }

    /// The users with this key, also hidden ones.
    pub async fn users(&self, key: ScimKey<'_>) -> Result<Vec<UserRow>, ScimError> {
        self.service.store.scim_users(self.account(), key).await.map_err(unavailable)
    }

    pub async fn user(&self, id: &str) -> Result<UserRow, ScimError> {
        let users = match id_of(id) {
            Some(id) => self.users(ScimKey::Id(id)).await?,
            None => Vec::new(),
        };
        users.into_iter().find(|user| !user.is_hidden).ok_or_else(not_found)
    }
}

/// The id in a path, if it is written as rosterd writes it.
pub(super) fn id_of(id: &str) -> Option<i64> {
    id.parse().ok().filter(|number: &i64| number.to_string() == id)
}

pub(super) fn not_found() -> ScimError {
    ScimError::new(404, "there is no such user")
}

#[expect(clippy::needless_pass_by_value, reason = "the argument of `map_err`")]
pub(super) fn unavailable(error: StoreError) -> ScimError {
    tracing::warn!(event = "scim.database_failed", error = %chain(&error), "a SCIM request failed");
    ScimError::unavailable(RETRY_SECONDS, "rosterd's database is not available; try again later")
}
