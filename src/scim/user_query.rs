//! A filter of users, as the values that their attributes must have.

use std::fmt::Write;

use serde_json::json;

use super::error::ScimError;
use super::filter::{self, Condition};
use super::path::{is_name, without_schema};
use super::schema::WORK;
use super::user::UserRow;

/// The values that attributes must have. A user must have all of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserQuery {
    /// Harvest's id.
    pub id: Option<i64>,
    /// `externalId`, compared exactly. All other texts are compared without case.
    pub external_id: Option<String>,
    /// `userName`.
    pub user_name: Option<String>,
    /// `emails.value`.
    pub email: Option<String>,
    /// `phoneNumbers.value`.
    pub telephone: Option<String>,
    /// `displayName`.
    pub display_name: Option<String>,
    /// `name.givenName`.
    pub given_name: Option<String>,
    /// `name.familyName`.
    pub family_name: Option<String>,
    /// `active`.
    pub active: Option<bool>,
    /// Whether no user can match, so that no database needs to be asked.
    pub is_impossible: bool,
}

impl UserQuery {
    /// Parses a filter.
    pub fn parse(filter: &str) -> Result<Self, ScimError> {
        let (mut query, mut selects_email, mut selects_telephone) = (Self::default(), false, false);
        for Condition { attribute, value } in filter::parse(filter)? {
            // No text of the database has a NUL character.
            let value = value.filter(|value| !value.contains('\0'));
            let name = without_schema(&attribute);
            let is_possible = match name.as_deref() {
                Some("id") => require(&mut query.id, value.and_then(|value| value.parse().ok()), i64::eq),
                Some("active") => {
                    let active = value.map(|value| truth(&value)).transpose()?;
                    require(&mut query.active, active, bool::eq)
                }
                Some("externalid") => require(&mut query.external_id, value, String::eq),
                Some("username") => require_text(&mut query.user_name, value),
                Some("emails" | "emails.value") => require_text(&mut query.email, value),
                Some("phonenumbers" | "phonenumbers.value") => require_text(&mut query.telephone, value),
                Some("displayname") => require_text(&mut query.display_name, value),
                Some("name.givenname") => require_text(&mut query.given_name, value),
                Some("name.familyname") => require_text(&mut query.family_name, value),
                Some(name @ ("emails.type" | "phonenumbers.type" | "emails.primary")) => {
                    selects_email |= name.starts_with("emails");
                    selects_telephone |= name.starts_with("phone");
                    let expected = if name == "emails.primary" { "true" } else { WORK };
                    value.is_some_and(|value| value.eq_ignore_ascii_case(expected))
                }
                _ if is_name(&attribute) => {
                    let detail = format!("the attribute {attribute} cannot be compared in filters of users");
                    return Err(ScimError::invalid_filter(detail));
                }
                _ => {
                    return Err(ScimError::invalid_filter(
                        "the filter has no attribute where one is expected",
                    ));
                }
            };
            query.is_impossible |= !is_possible;
        }
        // `emails[type eq "work"]` would match everyone.
        if selects_email && query.email.is_none() || selects_telephone && query.telephone.is_none() {
            return Err(ScimError::invalid_filter("the filter compares type or primary and no value"));
        }
        Ok(query)
    }

    /// Whether a user matches.
    pub fn matches(&self, row: &UserRow) -> bool {
        let has = |wanted: &Option<String>, value: Option<&str>| match (wanted, value) {
            (None, _) => true,
            (Some(wanted), Some(value)) => is_same(wanted, value),
            (Some(_), None) => false,
        };
        !self.is_impossible
            && self.id.is_none_or(|id| id == row.id)
            && self.active.is_none_or(|active| active == row.is_active)
            && (self.external_id.is_none() || self.external_id == row.external_id)
            && has(&self.user_name, Some(row.user_name()))
            && has(&self.email, Some(&row.email))
            && has(&self.telephone, row.telephone.as_deref())
            && has(&self.display_name, Some(&row.display_name()))
            && has(&self.given_name, Some(&row.first_name))
            && has(&self.family_name, Some(&row.last_name))
    }

    /// The same query as a filter.
    pub fn to_filter(&self) -> String {
        let mut filter = self.is_impossible.then(|| "id eq null".to_owned()).unwrap_or_default();
        let texts = [
            ("externalId", &self.external_id),
            ("userName", &self.user_name),
            ("emails.value", &self.email),
            ("phoneNumbers.value", &self.telephone),
            ("displayName", &self.display_name),
            ("name.givenName", &self.given_name),
            ("name.familyName", &self.family_name),
        ];
        let texts = texts.map(|(name, value)| (name, value.as_ref().map(|value| json!(value))));
        let others =
            [("id", self.id.map(|id| json!(id))), ("active", self.active.map(|active| json!(active)))];
        for (name, value) in texts.into_iter().chain(others) {
            if let Some(value) = value {
                let and = if filter.is_empty() { "" } else { " and " };
                // Writing to a String cannot fail.
                let _ = write!(filter, "{and}{name} eq {value}");
            }
        }
        filter
    }
}

/// Adds a condition. Returns whether a user can meet it: there is a value, and no other one is required.
fn require<T>(known: &mut Option<T>, value: Option<T>, is_same: impl Fn(&T, &T) -> bool) -> bool {
    match (known.as_ref(), value) {
        (_, None) => false,
        (Some(known), Some(value)) => is_same(known, &value),
        (None, value) => {
            *known = value;
            true
        }
    }
}

fn require_text(known: &mut Option<String>, value: Option<String>) -> bool {
    require(known, value, |known, value| is_same(known, value))
}

fn truth(value: &str) -> Result<bool, ScimError> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ScimError::invalid_filter("active can be compared with true and false only")),
    }
}

/// Equality without case, as of all texts of users but `externalId`.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}
