//! Paths of attributes, as the part of a group that they mean.

use super::error::ScimError;
use super::filter;
use super::path::{GROUP_SCHEMA, MAX_NAME, Parts, invalid_path, without_schema};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupTarget {
    DisplayName,
    ExternalId,
    Members,
    /// One member, such as `members[value eq "7"]`, by its value
    Member(String),
    /// The whole group: the name of the schema
    Group,
    /// `id`, `meta` and `schemas`, which clients repeat
    ReadOnly,
    /// Anything else, by the name of the attribute
    Unknown(String),
}

impl GroupTarget {
    pub fn parse(path: &str) -> Result<Self, ScimError> {
        if path.trim().eq_ignore_ascii_case(GROUP_SCHEMA) {
            return Ok(Self::Group);
        }
        let Parts { name, selector, sub } = Parts::of(path)?;
        let plain = without_schema(name).and_then(|name| Self::plain(&name));
        let unknown = || Self::Unknown(name.chars().take(MAX_NAME).collect::<String>().to_ascii_lowercase());
        match (plain, selector) {
            (Some(Self::Members), Some(selector)) => {
                let member = selected(selector).map_err(|error| invalid_path(&error.detail))?;
                let is_value = sub.is_empty() || sub.eq_ignore_ascii_case(".value");
                Ok(member.filter(|_| is_value).map_or_else(unknown, Self::Member))
            }
            (Some(target), None) => Ok(target),
            _ => Ok(unknown()),
        }
    }

    fn plain(name: &str) -> Option<Self> {
        Some(match name {
            "displayname" => Self::DisplayName,
            "externalid" => Self::ExternalId,
            "members" | "members.value" => Self::Members,
            "id" | "schemas" => Self::ReadOnly,
            name if name.split('.').next() == Some("meta") => Self::ReadOnly,
            _ => return None,
        })
    }

    pub fn path(&self) -> &str {
        match self {
            Self::DisplayName => "displayName",
            Self::ExternalId => "externalId",
            Self::Members | Self::Member(_) => "members",
            Self::Group => GROUP_SCHEMA,
            Self::ReadOnly => "meta",
            Self::Unknown(name) => name,
        }
    }
}

/// The value of the only member that a filter in brackets selects. `None` if it selects by other attributes.
fn selected(selector: &str) -> Result<Option<String>, ScimError> {
    let mut found = None;
    for condition in filter::parse(selector)? {
        let value = condition.value.unwrap_or_default();
        match condition.attribute.to_ascii_lowercase().as_str() {
            "value" if found.as_ref().is_none_or(|known| *known == value) => found = Some(value),
            "type" if value.eq_ignore_ascii_case("user") => {}
            _ => return Ok(None),
        }
    }
    Ok(found)
}
