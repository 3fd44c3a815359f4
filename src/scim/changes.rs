//! From what a request wants and what the mirror has to writes and changes of links.

use super::error::ScimError;
use super::intent::UserIntent;
use super::user::UserRow;
use crate::roster::Field;
use crate::roster::write::{Write, WriteFields};

/// Changes of the attributes that only directories know: [`Field::Absent`] leaves one as it is, [`Field::Null`] clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkChange {
    /// `externalId`.
    pub external_id: Field<String>,
    /// `userName`; null if it is the e-mail address.
    pub user_name: Field<String>,
    /// `displayName`; null if it is first and last name.
    pub display_name: Field<String>,
}

impl LinkChange {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What creates a user.
#[derive(Clone, Debug, PartialEq)]
pub struct Creation {
    /// The fields of a `user_create`.
    pub fields: WriteFields,
    /// The link of the new user.
    pub link: LinkChange,
    /// Whether the user must be deactivated after the creation.
    pub then_deactivate: bool,
}

/// What changes a user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The writes, in this order. Each is sent only if the one before succeeded.
    pub writes: Vec<Write>,
    /// The change of the link, after the writes.
    pub link: LinkChange,
    /// Harvest's names of fields that are not written, because Harvest refuses them for an archived user.
    pub left_out: Vec<&'static str>,
}

impl UserIntent {
    /// The writes of `POST /Users`, if no user has the address.
    pub fn creation(&self) -> Result<Creation, ScimError> {
        todo!()
    }

    /// The writes of PUT and PATCH.
    pub fn changes(&self, _row: &UserRow) -> Result<Changes, ScimError> {
        todo!()
    }

    /// The writes of `POST /Users`, if a directory deleted this user earlier and the user is still archived.
    pub fn rehire(&self, _row: &UserRow) -> Result<Changes, ScimError> {
        todo!()
    }
}
