//! A filter of groups, as the values that their attributes must have.

use std::str::FromStr;

use super::error::ScimError;
use super::filter::{self, Condition};
use super::group::GroupRow;
use super::path::without_schema;
use super::user_query::{is_same, not_comparable, require, require_text};
use super::value::parse_id;

/// The values that attributes must have. A group must have all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupQuery {
    pub id: Option<i64>,
    /// `displayName`, compared without case.
    pub display_name: Option<String>,
    /// `externalId`, compared exactly.
    pub external_id: Option<String>,
    pub member: Option<i64>,
    pub is_impossible: bool,
}

impl FromStr for GroupQuery {
    type Err = ScimError;

    fn from_str(filter: &str) -> Result<Self, ScimError> {
        let (mut query, mut selects_member) = (Self::default(), false);
        for Condition { attribute, value } in filter::parse(filter)? {
            let id = |value: Option<String>| value.and_then(|value| parse_id(&value));
            let is_possible = match without_schema(&attribute).as_deref() {
                Some("id") => require(&mut query.id, id(value), i64::eq),
                Some("displayname") => require_text(&mut query.display_name, value),
                Some("externalid") => require(&mut query.external_id, value, String::eq),
                Some("members" | "members.value") => require(&mut query.member, id(value), i64::eq),
                Some("members.type") => {
                    selects_member = true;
                    value.is_some_and(|value| value.eq_ignore_ascii_case("user"))
                }
                _ => return Err(not_comparable(&attribute, "groups")),
            };
            query.is_impossible |= !is_possible;
        }
        if selects_member && query.member.is_none() && !query.is_impossible {
            return Err(ScimError::invalid_filter("the filter compares type and no value"));
        }
        Ok(query)
    }
}

impl GroupQuery {
    pub fn matches(&self, row: &GroupRow) -> bool {
        !self.is_impossible
            && self.id.is_none_or(|id| id == row.id)
            && self.display_name.as_ref().is_none_or(|name| is_same(name, &row.name))
            && (self.external_id.is_none() || self.external_id == row.external_id)
            && self.member.is_none_or(|member| row.members.contains(&member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supported_attributes_match_and_others_are_refused_and_named() {
        let row = GroupRow {
            id: 7,
            name: "Design".to_owned(),
            members: vec![1001],
            external_id: Some("G1".to_owned()),
            ..GroupRow::default()
        };
        let matches = |filter: &str| filter.parse::<GroupQuery>().expect(filter).matches(&row);
        for filter in [
            "displayName eq \"design\"",
            "id eq 7 and externalId eq \"G1\"",
            "urn:ietf:params:scim:schemas:core:2.0:Group:displayName eq Design",
            "members eq 1001",
            "members.value eq \"1001\"",
            "members[value eq \"1001\"]",
            "members[type eq \"user\" and value eq \"1001\"]",
        ] {
            assert!(matches(filter), "{filter}");
        }
        for filter in [
            "displayName eq null",
            "externalId eq g1",
            "members eq 1002",
            "members eq fake-member-id",
            "members[type eq \"Group\"]",
            "id eq 7 and id eq 8",
        ] {
            assert!(!matches(filter), "{filter}");
        }
        for filter in
            ["displayName co \"a\"", "members[type eq \"User\"]", "meta.created eq x", "userName eq a", ""]
        {
            let error = filter.parse::<GroupQuery>().expect_err(filter);
            assert_eq!(error.scim_type, Some("invalidFilter"), "{filter}");
        }
        let error = "title eq a".parse::<GroupQuery>().expect_err("an error");
        assert!(error.detail.contains("title") && error.detail.contains("groups"), "{error}");
    }
}
