//! Names and paths of attributes (RFC 7644, section 3.5.2), as the part of a user that they mean.

use super::error::ScimError;
use super::filter;

/// The schema of users.
pub const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

const MAX_CHARACTERS: usize = 2000;
/// Longer names of attributes are in no log and no message.
pub const MAX_NAME: usize = 100;

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `userName`
    UserName,
    /// `externalId`
    ExternalId,
    /// `displayName`
    DisplayName,
    /// `active`
    Active,
    /// `name`
    Name,
    /// `name.givenName`
    GivenName,
    /// `name.familyName`
    FamilyName,
    /// `emails`, the list
    Emails,
    /// The address at work, such as `emails[type eq "work"].value`
    Email,
    /// `phoneNumbers`, the list
    Phones,
    /// The telephone number at work, such as `phoneNumbers[type eq "work"].value`
    Phone,
    /// The whole user: the name of the schema
    User,
    /// `id`, `meta`, `schemas` and `groups`, which clients repeat
    ReadOnly,
    /// Anything else, by the name of the attribute. Without filter, which may contain personal data.
    Unknown(String),
}

/// The name without the schema of users, in lower case. `None` if it has another schema.
pub fn without_schema(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix(&USER_SCHEMA.to_ascii_lowercase()) {
        Some(rest) => rest.strip_prefix(':').map(ToOwned::to_owned),
        None => (!name.starts_with("urn:")).then_some(name),
    }
}

/// Whether a text is a name of an attribute, with or without schema and sub-attribute.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_$.:".contains(c))
        && !text.ends_with(['.', ':'])
        && !text.contains("..")
}

impl Target {
    /// Parses a path.
    pub fn parse(path: &str) -> Result<Self, ScimError> {
        let invalid = |detail: &str| Err(ScimError::bad_request("invalidPath", detail));
        let path = path.trim();
        if path.chars().count() > MAX_CHARACTERS {
            return invalid("the path is longer than 2,000 characters");
        }
        if path.eq_ignore_ascii_case(USER_SCHEMA) {
            return Ok(Self::User);
        }
        let (name, selected) = match path.split_once('[') {
            Some((name, rest)) => {
                (name, filter::closing_bracket(rest).map(|end| (&rest[..end], &rest[end + 1..])))
            }
            None => (path, Some(("", ""))),
        };
        let Some((selector, sub)) = selected.filter(|(_, sub)| is_name(name) && is_sub_attribute(sub)) else {
            return invalid("the path is not attribute, attribute.sub or attribute[filter].sub");
        };
        let unknown = Self::Unknown(name.chars().take(MAX_NAME).collect::<String>().to_ascii_lowercase());
        let plain = without_schema(name).and_then(|name| Self::plain(&name));
        if name.len() == path.len() {
            return Ok(plain.unwrap_or(unknown));
        }
        let element = match plain {
            Some(Self::Emails) => Self::Email,
            Some(Self::Phones) => Self::Phone,
            _ => return Ok(unknown),
        };
        match filter::selects_work(selector) {
            Ok(true) if sub.is_empty() || sub.eq_ignore_ascii_case(".value") => Ok(element),
            Ok(_) => Ok(unknown),
            Err(error) => invalid(&error.detail),
        }
    }

    fn plain(name: &str) -> Option<Self> {
        Some(match name {
            "username" => Self::UserName,
            "externalid" => Self::ExternalId,
            "displayname" => Self::DisplayName,
            "active" => Self::Active,
            "name" => Self::Name,
            "emails" => Self::Emails,
            "phonenumbers" => Self::Phones,
            "name.givenname" => Self::GivenName,
            "name.familyname" => Self::FamilyName,
            "emails.value" => Self::Email,
            "phonenumbers.value" => Self::Phone,
            "id" | "schemas" => Self::ReadOnly,
            name if ["meta", "groups"].contains(&name.split('.').next().unwrap_or_default()) => {
                Self::ReadOnly
            }
            _ => return None,
        })
    }

    /// The path, for messages.
    pub fn path(&self) -> &str {
        match self {
            Self::UserName => "userName",
            Self::ExternalId => "externalId",
            Self::DisplayName => "displayName",
            Self::Active => "active",
            Self::Name => "name",
            Self::GivenName => "name.givenName",
            Self::FamilyName => "name.familyName",
            Self::Emails => "emails",
            Self::Email => "emails.value",
            Self::Phones => "phoneNumbers",
            Self::Phone => "phoneNumbers.value",
            Self::User => USER_SCHEMA,
            Self::ReadOnly => "meta",
            Self::Unknown(name) => name,
        }
    }
}

/// Whether a text is nothing, or a dot and a name without schema.
fn is_sub_attribute(text: &str) -> bool {
    text.is_empty() || text.strip_prefix('.').is_some_and(|sub| is_name(sub) && !sub.contains(['.', ':']))
}
