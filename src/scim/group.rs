//! A group as SCIM shows it: a job role of Harvest.

use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::xxh3_64;

use super::projection::Projection;
use super::resource::{Resource, ResourceType};

/// A job role of the mirror with the attributes that only directories know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRow {
    pub id: i64,
    pub name: String,
    /// The users who have the role, also those whom SCIM does not show.
    pub user_ids: Vec<i64>,
    /// Those of them whom SCIM shows, in order.
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
        let user = ResourceType::User;
        let member = |id: &i64| json!({"value": id.to_string(), "$ref": user.location(base, *id), "type": user.name()});
        let members: Vec<Json> = self.members.iter().map(member).collect();
        let attributes = json!({
            "displayName": self.name,
            "members": (!members.is_empty()).then_some(members),
        });
        let resource = Resource {
            kind: ResourceType::Group,
            id: self.id,
            external_id: self.external_id.as_deref(),
            created: self.created_at,
            last_modified: self.updated_at.max(self.link_updated_at),
            etag: self.etag(),
        };
        resource.render(base, attributes, projection)
    }

    /// The entity tag, which is also `meta.version`. Users whom SCIM does not show are part of it, because a directory can
    /// delete a user without a change of the role.
    pub fn etag(&self) -> String {
        let mut hidden = self.user_ids.iter().filter(|id| self.members.binary_search(id).is_err()).peekable();
        let Self { version, link_version, .. } = self;
        if hidden.peek().is_none() {
            return format!("W/\"{version}-{link_version}\"");
        }
        let hidden: Vec<u8> = hidden.flat_map(|id| id.to_be_bytes()).collect();
        format!("W/\"{version}-{link_version}-{:x}\"", xxh3_64(&hidden))
    }

    pub fn location(&self, base: &str) -> String {
        ResourceType::Group.location(base, self.id)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserGroup {
    pub id: i64,
    pub name: String,
}

impl UserGroup {
    pub(super) fn render(&self, base: &str) -> Json {
        json!({"value": self.id.to_string(), "$ref": ResourceType::Group.location(base, self.id), "display": self.name})
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn group_is_rendered_with_all_attributes() {
        let group = GroupRow {
            id: 7,
            name: "Design".to_owned(),
            user_ids: vec![1001],
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

    #[test]
    fn entity_tag_changes_with_the_users_whom_scim_does_not_show() {
        let tag = |members: &[i64]| {
            GroupRow { user_ids: vec![1, 2, 3], members: members.to_vec(), version: 3, ..GroupRow::default() }
                .etag()
        };
        assert_eq!(tag(&[1, 2, 3]), "W/\"3-0\"");
        let tags = [tag(&[1, 2, 3]), tag(&[2, 3]), tag(&[1, 3]), tag(&[])];
        assert_eq!(BTreeSet::from(tags).len(), 4);
    }
}
