//! A user as SCIM shows them.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};

use super::group::UserGroup;
use super::projection::Projection;
use super::resource::{Resource, ResourceType};
use super::schema::WORK;

/// A user of the mirror with the attributes that only directories know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserRow {
    pub id: i64,
    pub first_name: String,
    pub last_name: String,
    pub email: String,
    pub telephone: Option<String>,
    pub is_active: bool,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    pub version: i64,
    pub external_id: Option<String>,
    /// `userName`, if it differs from the e-mail address.
    pub user_name: Option<String>,
    /// `displayName`, if it differs from first and last name. Empty if a directory removed it.
    pub display_name: Option<String>,
    /// The version of the link; 0 if there is none.
    pub link_version: i64,
    pub link_updated_at: Option<DateTime<Utc>>,
    /// Whether a directory deleted the user, who is still inactive.
    pub is_hidden: bool,
}

/// The id only: the values are personal data.
impl fmt::Debug for UserRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRow").field("id", &self.id).finish_non_exhaustive()
    }
}

impl UserRow {
    /// The resource. `groups`: empty without SCIM groups. `base` is the URL of the account's endpoint, without a slash at its end.
    pub fn render(&self, groups: &[UserGroup], base: &str, projection: &Projection) -> Json {
        let display_name = self.display_name();
        let telephone = self.telephone.as_ref().filter(|telephone| !telephone.is_empty());
        let groups: Vec<Json> = groups.iter().map(|group| group.render(base)).collect();
        let attributes = json!({
            "userName": self.user_name(),
            "name": {"givenName": self.first_name, "familyName": self.last_name},
            "displayName": (!display_name.is_empty()).then_some(display_name),
            "emails": [{"value": self.email, "type": WORK, "primary": true}],
            "phoneNumbers": telephone.map(|telephone| json!([{"value": telephone, "type": WORK}])),
            "groups": (!groups.is_empty()).then_some(groups),
            "active": self.is_active,
        });
        let resource = Resource {
            kind: ResourceType::User,
            id: self.id,
            external_id: self.external_id.as_deref(),
            created: self.created_at,
            last_modified: self.updated_at.max(self.link_updated_at),
            etag: self.etag(),
        };
        resource.render(base, attributes, projection)
    }

    /// The entity tag, which is also `meta.version`.
    pub fn etag(&self) -> String {
        format!("W/\"{}-{}\"", self.version, self.link_version)
    }

    pub fn location(&self, base: &str) -> String {
        ResourceType::User.location(base, self.id)
    }

    /// `displayName`. Empty if there is none.
    pub fn display_name(&self) -> Cow<'_, str> {
        match &self.display_name {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(full_name(&self.first_name, &self.last_name)),
        }
    }

    pub fn user_name(&self) -> &str {
        self.user_name.as_deref().unwrap_or(&self.email)
    }
}

/// The `displayName` of users for whom no directory has set one.
pub(super) fn full_name(first_name: &str, last_name: &str) -> String {
    format!("{first_name} {last_name}").trim().to_owned()
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
