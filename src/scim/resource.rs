//! What users and groups have in common.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value as Json, json};

use super::path::{GROUP_SCHEMA, USER_SCHEMA};
use super::projection::Projection;

/// The type of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// A user.
    User,
    /// A job role.
    Group,
}

impl ResourceType {
    /// The types that SCIM has.
    pub(super) fn all(with_groups: bool) -> impl Iterator<Item = Self> {
        [Self::User, Self::Group].into_iter().take(if with_groups { 2 } else { 1 })
    }

    /// As in `meta.resourceType` and in `roster.scim_links`.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
        }
    }

    /// The URN of the schema.
    pub(super) fn schema(self) -> &'static str {
        match self {
            Self::User => USER_SCHEMA,
            Self::Group => GROUP_SCHEMA,
        }
    }

    /// The URL of a resource. `base` is the URL of the account's endpoint, without a slash at its end.
    pub(super) fn location(self, base: &str, id: i64) -> String {
        format!("{base}/{}s/{id}", self.name())
    }
}

/// A row as a resource, without the attributes of its type.
pub(super) struct Resource<'r> {
    pub kind: ResourceType,
    pub id: i64,
    pub external_id: Option<&'r str>,
    pub created: Option<DateTime<Utc>>,
    pub last_modified: Option<DateTime<Utc>>,
    pub etag: String,
}

impl Resource<'_> {
    /// The resource with these attributes. Those that are null are left out.
    pub fn render(&self, base: &str, mut attributes: Json, projection: &Projection) -> Json {
        let (name, location) = (self.kind.name(), self.kind.location(base, self.id));
        let mut meta = json!({"resourceType": name, "location": location, "version": self.etag});
        for (name, time) in [("created", self.created), ("lastModified", self.last_modified)] {
            if let Some(time) = time {
                meta[name] = json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            }
        }
        attributes["schemas"] = json!([self.kind.schema()]);
        attributes["id"] = json!(self.id.to_string());
        attributes["externalId"] = json!(self.external_id);
        attributes["meta"] = meta;
        if let Json::Object(attributes) = &mut attributes {
            attributes.retain(|_, value| !value.is_null());
        }
        projection.apply(&mut attributes);
        attributes
    }
}
