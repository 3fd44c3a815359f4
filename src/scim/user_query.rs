//! A filter of users, as the values that its attributes must have.

use super::error::ScimError;
use super::user::UserRow;

/// The values that attributes must have. A user must match all of them.
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
    pub fn parse(_filter: &str) -> Result<Self, ScimError> {
        todo!()
    }

    /// Whether a user matches.
    pub fn matches(&self, _row: &UserRow) -> bool {
        todo!()
    }
}
