//! A filter of users, as the values that their attributes must have.

use std::str::FromStr;

use super::error::ScimError;
use super::filter::{self, Condition};
use super::path::{MAX_NAME, is_name, without_schema};
use super::schema::WORK;
use super::user::UserRow;
use super::value::parse_id;

/// The values that attributes must have. A user must have all of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserQuery {
    pub id: Option<i64>,
    /// `externalId`, compared exactly. All other texts are compared without case.
    pub external_id: Option<String>,
    pub user_name: Option<String>,
    pub email: Option<String>,
    pub telephone: Option<String>,
    pub display_name: Option<String>,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub active: Option<bool>,
    /// The id of a group. [`UserQuery::matches`] does not compare it.
    pub group: Option<i64>,
    /// Whether no user can match, so that no database needs to be asked.
    pub is_impossible: bool,
}

impl FromStr for UserQuery {
    type Err = ScimError;

    fn from_str(filter: &str) -> Result<Self, ScimError> {
        let (mut query, mut selects_email, mut selects_telephone) = (Self::default(), false, false);
        for Condition { attribute, value } in filter::parse(filter)? {
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
                Some("groups" | "groups.value") => {
                    require(&mut query.group, value.and_then(|value| parse_id(&value)), i64::eq)
                }
                Some(name @ ("emails.type" | "phonenumbers.type" | "emails.primary")) => {
                    selects_email |= name.starts_with("emails");
                    selects_telephone |= name.starts_with("phone");
                    let expected = if name == "emails.primary" { "true" } else { WORK };
                    value.is_some_and(|value| value.eq_ignore_ascii_case(expected))
                }
                _ => return Err(not_comparable(&attribute, "users")),
            };
            query.is_impossible |= !is_possible;
        }
        // `emails[type eq "work"]` would match everyone.
        if selects_email && query.email.is_none() || selects_telephone && query.telephone.is_none() {
            return Err(ScimError::invalid_filter("the filter compares type or primary and no value"));
        }
        Ok(query)
    }
}

impl UserQuery {
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
}

/// The error for an attribute that filters cannot compare. It names the attribute, if it is one.
pub(super) fn not_comparable(attribute: &str, resources: &str) -> ScimError {
    if is_name(attribute) && attribute.len() <= MAX_NAME {
        let detail = format!("the attribute {attribute} cannot be compared in filters of {resources}");
        return ScimError::invalid_filter(detail);
    }
    ScimError::invalid_filter("the filter has no attribute where one is expected")
}

/// Adds a condition. Returns whether a user can meet it: there is a value, and no other one is required.
pub(super) fn require<T>(known: &mut Option<T>, value: Option<T>, is_same: impl Fn(&T, &T) -> bool) -> bool {
    match (known.as_ref(), value) {
        (_, None) => false,
        (Some(known), Some(value)) => is_same(known, &value),
        (None, value) => {
            *known = value;
            true
        }
    }
}

pub(super) fn require_text(known: &mut Option<String>, value: Option<String>) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> UserRow {
        UserRow {
            id: 7,
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
            email: "ada@x.test".to_owned(),
            telephone: Some("123".to_owned()),
            is_active: true,
            external_id: Some("X1".to_owned()),
            ..UserRow::default()
        }
    }

    #[track_caller]
    fn matches(filter: &str) -> bool {
        UserQuery::from_str(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&ada())
    }

    #[test]
    fn supported_attributes_match_without_case_except_external_id() {
        for filter in [
            "id eq \"7\"",
            "externalId eq X1",
            "USERNAME eq \"ADA@X.TEST\"",
            "emails eq \"Ada@x.test\"",
            "emails.value eq ada@x.test",
            "emails[type eq \"work\"].value eq \"ada@x.test\"",
            "emails[primary eq true and value eq \"ada@x.test\"]",
            "phoneNumbers.value eq \"123\"",
            "displayName eq \"ada lovelace\"",
            "name.givenName eq \"ada\" and name.familyName eq \"LOVELACE\"",
            "active eq \"True\"",
            "urn:ietf:params:scim:schemas:core:2.0:User:userName eq \"ada@x.test\"",
            "userName eq ada@x.test and userName eq Ada@X.test",
        ] {
            assert!(matches(filter), "{filter}");
        }
        for filter in [
            "id eq \"ada\"",
            "externalId eq x1",
            "userName eq \"4e0f7b1c-0b6e-4b62-9d5c-3f4f0a4c6f11\"",
            "emails[type eq \"home\"].value eq \"ada@x.test\"",
            "phoneNumbers.value eq null",
            "active eq false",
            "userName eq a and userName eq b",
            "userName eq \"\\u0000\"",
        ] {
            assert!(!matches(filter), "{filter}");
        }
    }

    #[test]
    fn filters_that_no_user_can_meet_need_no_database() {
        let is_impossible = |filter: &str| UserQuery::from_str(filter).expect(filter).is_impossible;
        assert!(is_impossible("id eq x") && is_impossible("id eq 1 and id eq 2"));
        assert!(is_impossible("userName eq \"a\\u0000\"") && is_impossible("externalId eq null"));
        assert!(!is_impossible("id eq 1 and userName eq a"));
    }

    #[test]
    fn other_attributes_are_refused_and_named_and_types_alone_are_refused() {
        for filter in ["title eq a", "groups.display eq 1", "meta.created eq x", "emails.display eq a"] {
            let error = UserQuery::from_str(filter).err().expect(filter);
            assert_eq!(error.scim_type, Some("invalidFilter"));
            assert!(error.detail.contains(filter.split(' ').next().expect("a name")), "{error}");
        }
        let error = UserQuery::from_str("ada@x.test eq a").err().expect("an error");
        assert!(!error.detail.contains("ada"), "{error}");
        for filter in ["emails[type eq \"work\"]", "phoneNumbers[type eq \"work\"] and active eq true"] {
            assert!(UserQuery::from_str(filter).is_err(), "{filter}");
        }
        assert!(UserQuery::from_str("active eq maybe").is_err());
    }
}
