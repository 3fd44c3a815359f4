//! A user as SCIM shows them.

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use super::projection::Projection;

/// A user of the mirror with the attributes that only directories know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserRow {
    /// Harvest's id.
    pub id: i64,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// E-mail address.
    pub email: String,
    /// Telephone number.
    pub telephone: Option<String>,
    /// Whether the user is active at Harvest.
    pub is_active: bool,
    /// When Harvest created the user.
    pub created_at: Option<DateTime<Utc>>,
    /// When Harvest changed the user.
    pub updated_at: Option<DateTime<Utc>>,
    /// The version of the row in `roster.users`.
    pub version: i64,
    /// `externalId`.
    pub external_id: Option<String>,
    /// `userName`, if it differs from the e-mail address.
    pub user_name: Option<String>,
    /// `displayName`, if it differs from first and last name.
    pub display_name: Option<String>,
    /// The version of the link; 0 if there is none.
    pub link_version: i64,
    /// When the link changed.
    pub link_updated_at: Option<DateTime<Utc>>,
    /// Whether a directory deleted the user, who is still inactive.
    pub is_hidden: bool,
}

impl UserRow {
    /// The resource. `base` is the URL of the account's endpoint, without a slash at its end.
    pub fn render(&self, _base: &str, _projection: &Projection) -> Json {
        todo!()
    }

    /// The entity tag, which is also `meta.version`.
    pub fn etag(&self) -> String {
        format!("W/\"{}-{}\"", self.version, self.link_version)
    }

    /// The URL of the resource.
    pub fn location(&self, base: &str) -> String {
        format!("{base}/Users/{}", self.id)
    }

    /// `userName`.
    pub fn user_name(&self) -> &str {
        self.user_name.as_deref().unwrap_or(&self.email)
    }
}
