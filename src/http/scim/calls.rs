//! One request of a valid token, and what it reads from the mirror.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::{Map, Value as Json};
use tokio::time::Instant;
use uuid::Uuid;

use super::service::Service;
use super::tokens::{Access, Token};
use crate::roster::AccountId;
use crate::roster::write_policy::WriteMode;
use crate::scim::{Projection, ResourceType, ScimError, UserRow};
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

    /// Before the first full read, and the first list of roles, an empty mirror would make a directory create everything
    /// again.
    pub async fn require_first_read(&self, kind: ResourceType) -> Result<(), ScimError> {
        let account = self.service.store.scim_account(self.account()).await.map_err(unavailable)?;
        let unread = if !account.is_read {
            "rosterd has not read this Harvest account completely yet; try again later"
        } else if kind == ResourceType::Group && !account.are_roles_read {
            "rosterd has not read the job roles of this Harvest account yet; try again later"
        } else {
            return Ok(());
        };
        Err(ScimError::unavailable(RETRY_SECONDS, unread))
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

    /// Stores what Harvest has no field for.
    pub async fn set_link(
        &self,
        kind: ResourceType,
        id: i64,
        changes: Map<String, Json>,
    ) -> Result<(), ScimError> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.service.options.mode == WriteMode::Dry {
            let names = changes.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(ScimError::new(403, format!("write.mode is \"dry\": rosterd would store {names}")));
        }
        let is_set = self.service.store.scim_link_set(self.account(), kind, id, &changes.into()).await;
        if is_set.map_err(unavailable)? {
            return Ok(());
        }
        Err(ScimError::uniqueness(match kind {
            ResourceType::User => "another user has this userName or externalId",
            ResourceType::Group => "another group has this externalId",
        }))
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
        users.into_iter().find(|user| !user.is_hidden).ok_or_else(|| not_found(ResourceType::User))
    }
}

/// The id in a path, if it is written as rosterd writes it.
pub(super) fn id_of(id: &str) -> Option<i64> {
    id.parse().ok().filter(|number: &i64| number.to_string() == id)
}

pub(super) fn not_found(kind: ResourceType) -> ScimError {
    ScimError::new(404, format!("there is no such {}", kind.name().to_lowercase()))
}

#[expect(clippy::needless_pass_by_value, reason = "the argument of `map_err`")]
pub(super) fn unavailable(error: StoreError) -> ScimError {
    tracing::warn!(event = "scim.database_failed", error = %chain(&error), "a SCIM request failed");
    ScimError::unavailable(RETRY_SECONDS, "rosterd's database is not available; try again later")
}
