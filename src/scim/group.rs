//! A group as SCIM shows it: a job role of Harvest.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value as Json, json};

use super::meta::{Meta, etag};
use super::path::GROUP_SCHEMA;
use super::projection::Projection;

/// The only type of members.
pub const USER_TYPE: &str = "User";

/// A job role of the mirror with the attributes that only directories know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRow {
    pub id: i64,
    pub name: String,
    /// The users who have the role, also those whom SCIM does not show. Empty if they were not read.
    pub user_ids: BTreeSet<i64>,
    /// The users whom SCIM shows. Empty if they were not read.
    pub members: Vec<i64>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    pub version: i64,
    pub external_id: Option<String>,
    /// The version of the link; 0 if there is none.
    pub link_version: i64,
    pub link_updated_at: Option<DateTime<Utc>>,
}

impl GroupRow {
    /// The resource. `base` is the URL of the account's endpoint, without a slash at its end.
    pub fn render(&self, base: &str, projection: &Projection) -> Json {
        let mut group = Map::new();
        let mut put =
            |name: &str, value: Option<Json>| value.map(|value| group.insert(name.to_owned(), value));
        put("schemas", Some(json!([GROUP_SCHEMA])));
        put("id", Some(json!(self.id.to_string())));
        put("externalId", self.external_id.as_ref().map(|id| json!(id)));
        put("displayName", Some(json!(self.name)));
        let member = |id: &i64| json!({"value": id.to_string(), "$ref": format!("{base}/Users/{id}"), "type": USER_TYPE});
        let members = (!self.members.is_empty()).then(|| self.members.iter().map(member).collect());
        put("members", members);
        put("meta", Some(self.meta().render("Group", &self.location(base))));
        let mut group = Json::Object(group);
        projection.apply(&mut group);
        group
    }

    fn meta(&self) -> Meta {
        Meta {
            created: self.created_at,
            last_modified: self.updated_at.max(self.link_updated_at),
            version: self.etag(),
        }
    }

    /// The entity tag, which is also `meta.version`.
    pub fn etag(&self) -> String {
        etag(self.version, self.link_version)
    }

    pub fn location(&self, base: &str) -> String {
        format!("{base}/Groups/{}", self.id)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserGroup {
    pub id: i64,
    pub name: String,
}

impl UserGroup {
    pub(super) fn render(&self, base: &str) -> Json {
        json!({"value": self.id.to_string(), "$ref": format!("{base}/Groups/{}", self.id), "display": self.name})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_rendered_with_all_attributes() {
        let group = GroupRow {
            id: 7,
            name: "Design".to_owned(),
            user_ids: [1001, 1002].into(),
            members: vec![1001],
            created_at: DateTime::from_timestamp(1_772_000_000, 0),
            updated_at: DateTime::from_timestamp(1_772_000_060, 0),
            version: 3,
            external_id: Some("g1".to_owned()),
            link_version: 1,
            link_updated_at: DateTime::from_timestamp(1_772_000_070, 0),
        };
        insta::assert_json_snapshot!(
            group.render("https://scim.example.com/scim/v2/7", &Projection::default())
        );
        let empty = GroupRow { members: Vec::new(), ..group };
        assert!(empty.render("", &Projection::default()).get("members").is_none());
    }
}
