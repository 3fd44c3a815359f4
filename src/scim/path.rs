//! Names and paths of attributes (RFC 7644, section 3.5.2), as the part of a user that they mean.

use super::error::ScimError;
use super::filter;

pub const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
pub const GROUP_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

const MAX_CHARACTERS: usize = 2000;
/// Longer names of attributes are in no log and no message.
pub const MAX_NAME: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    UserName,
    ExternalId,
    DisplayName,
    Active,
    Name,
    GivenName,
    FamilyName,
    Emails,
    /// The address at work, such as `emails[type eq "work"].value`
    Email,
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

/// The name without the schema of users or groups, in lower case. `None` if it has another schema.
pub fn without_schema(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let rest = |schema: &str| name.strip_prefix(&schema.to_ascii_lowercase());
    match rest(USER_SCHEMA).or_else(|| rest(GROUP_SCHEMA)) {
        Some(rest) => rest.strip_prefix(':').map(ToOwned::to_owned),
        None => (!name.starts_with("urn:")).then_some(name),
    }
}

pub(super) fn invalid_path(detail: &str) -> ScimError {
    ScimError::bad_request("invalidPath", detail)
}

pub(super) struct Parts<'p> {
    /// The attribute, with or without schema and sub-attribute.
    pub name: &'p str,
    pub selector: Option<&'p str>,
    /// The sub-attribute after the brackets, with its dot. May be empty.
    pub sub: &'p str,
}

impl<'p> Parts<'p> {
    pub fn of(path: &'p str) -> Result<Self, ScimError> {
        let path = path.trim();
        if path.chars().count() > MAX_CHARACTERS {
            return Err(invalid_path("the path is longer than 2,000 characters"));
        }
        let parts = match path.split_once('[') {
            None => Some(Self { name: path, selector: None, sub: "" }),
            Some((name, rest)) => filter::closing_bracket(rest).map(|end| {
                let (selector, sub) = (Some(&rest[..end]), &rest[end + 1..]);
                Self { name, selector, sub }
            }),
        };
        parts
            .filter(|parts| is_name(parts.name) && is_sub_attribute(parts.sub))
            .ok_or_else(|| invalid_path("the path is not attribute, attribute.sub or attribute[filter].sub"))
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
    pub fn parse(path: &str) -> Result<Self, ScimError> {
        if path.trim().eq_ignore_ascii_case(USER_SCHEMA) {
            return Ok(Self::User);
        }
        let Parts { name, selector, sub } = Parts::of(path)?;
        let unknown = Self::Unknown(name.chars().take(MAX_NAME).collect::<String>().to_ascii_lowercase());
        let plain = without_schema(name).and_then(|name| Self::plain(&name));
        let Some(selector) = selector else { return Ok(plain.unwrap_or(unknown)) };
        let element = match plain {
            Some(Self::Emails) => Self::Email,
            Some(Self::Phones) => Self::Phone,
            _ => return Ok(unknown),
        };
        match filter::selects_work(selector) {
            Ok(true) if sub.is_empty() || sub.eq_ignore_ascii_case(".value") => Ok(element),
            Ok(_) => Ok(unknown),
            Err(error) => Err(invalid_path(&error.detail)),
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

    /// Whether it is `active`, or a part of it, which does not exist.
    pub fn concerns_active(&self) -> bool {
        match self {
            Self::Active => true,
            Self::Unknown(name) => {
                without_schema(name).is_some_and(|name| name.split('.').next() == Some("active"))
            }
            _ => false,
        }
    }

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
