//! What a request wants of a user: the values that it names, and nothing else.

use std::collections::BTreeSet;

use super::error::ScimError;
use crate::roster::Field;

/// What a request wants of a user. [`Field::Absent`] leaves a value as it is, [`Field::Null`] clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserIntent {
    /// `name.givenName`. Never null.
    pub given_name: Field<String>,
    /// `name.familyName`. Never null.
    pub family_name: Field<String>,
    /// The e-mail address of `emails`. Never null.
    pub email: Field<String>,
    /// The telephone number at work of `phoneNumbers`.
    pub telephone: Field<String>,
    /// `externalId`.
    pub external_id: Field<String>,
    /// `userName`. Never null.
    pub user_name: Field<String>,
    /// `displayName`.
    pub display_name: Field<String>,
    /// `active`. Never null.
    pub active: Field<bool>,
    /// Names of attributes, in lower case, that the request has and rosterd ignores.
    pub ignored: BTreeSet<String>,
}

impl UserIntent {
    /// The body of `POST /Users`.
    pub fn from_post(_body: &[u8]) -> Result<Self, ScimError> {
        todo!()
    }

    /// The body of `PUT /Users/{id}`. What it does not have stays as it is.
    pub fn from_put(_body: &[u8]) -> Result<Self, ScimError> {
        todo!()
    }

    /// The body of `PATCH /Users/{id}`.
    pub fn from_patch(_body: &[u8]) -> Result<Self, ScimError> {
        todo!()
    }
}
