//! From what a request wants and what the mirror has to writes and changes of links.

use serde_json::{Value as Json, json};

use super::body::Object;
use super::error::ScimError;
use super::intent::UserIntent;
use super::user::{UserRow, full_name};
use super::user_query::is_same;
use crate::roster::Field;
use crate::roster::write::{Write, WriteFields, WriteKind, is_address};

const EMAIL: &str = "email";
const TELEPHONE: &str = "telephone";

/// Changes of the attributes that only directories know: [`Field::Absent`] leaves one as it is, [`Field::Null`] clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkChange {
    pub external_id: Field<String>,
    /// `userName`; null if it is the e-mail address.
    pub user_name: Field<String>,
    /// `displayName`; null if it is first and last name, empty if a directory removed it.
    pub display_name: Field<String>,
}

impl LinkChange {
    /// The values to store in `roster.scim_links`, by column. Empty if nothing changes.
    pub fn columns(&self) -> Object {
        let fields = [
            ("external_id", &self.external_id),
            ("user_name", &self.user_name),
            ("display_name", &self.display_name),
        ];
        let changed = fields.into_iter().filter(|(_, field)| **field != Field::Absent);
        changed.map(|(name, field)| (name.to_owned(), json!(field.value()))).collect()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Creation {
    pub fields: WriteFields,
    pub link: LinkChange,
    /// Whether the user must be deactivated after the creation.
    pub then_deactivate: bool,
}

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
        let missing = |name: &str| ScimError::invalid_value(format!("{name} is missing"));
        let user_name = self.user_name.value().ok_or_else(|| missing("userName"))?;
        let first_name = self.given_name.value().ok_or_else(|| missing("name.givenName"))?;
        let last_name = self.family_name.value().ok_or_else(|| missing("name.familyName"))?;
        let email = self.email.value().or(Some(user_name).filter(|name| is_address(name)));
        let email = email.ok_or_else(|| missing("emails (userName is not an e-mail address)"))?;
        let mut fields = json!({"first_name": first_name, "last_name": last_name, "email": email});
        if let Some(telephone) = self.telephone.value() {
            fields["telephone"] = json!(telephone);
        }
        let new = UserRow {
            first_name: first_name.clone(),
            last_name: last_name.clone(),
            email: email.clone(),
            ..UserRow::default()
        };
        Ok(Creation {
            fields: WriteFields::parse(WriteKind::UserCreate, fields).map_err(ScimError::invalid_value)?,
            link: self.link_change(&new, &new),
            then_deactivate: self.active == Field::Value(false),
        })
    }

    /// The writes of PUT and PATCH.
    pub fn changes(&self, row: &UserRow) -> Result<Changes, ScimError> {
        let mut changed = row.clone();
        let differing = self.apply(&mut changed);
        let write = |kind, fields| Write::of_user(kind, Some(row.id), fields);
        let is_reactivation = match self.active {
            Field::Value(false) => {
                // Alone and always: nothing else may make it fail, and the mirror may be older than a reactivation.
                return Ok(Changes {
                    writes: vec![write(WriteKind::UserDeactivate, WriteFields::default())],
                    link: self.link_change(row, row),
                    left_out: differing.into_iter().map(|(name, _)| name).collect(),
                });
            }
            Field::Value(true) => !row.is_active,
            Field::Absent | Field::Null => false,
        };
        let is_locked = !row.is_active && !is_reactivation;
        if let Some((name, _)) = differing.iter().find(|(name, _)| is_locked && *name != TELEPHONE) {
            return Err(ScimError::mutability(format!(
                "the user is archived in Harvest, which changes {name} of active users only: set active to true"
            )));
        }
        let mut writes = Vec::new();
        if is_reactivation {
            writes.push(write(WriteKind::UserReactivate, WriteFields::default()));
        }
        if !differing.is_empty() {
            let fields = differing.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let fields = WriteFields::parse(WriteKind::UserUpdate, Json::Object(fields));
            writes.push(write(WriteKind::UserUpdate, fields.map_err(ScimError::invalid_value)?));
        }
        Ok(Changes { writes, link: self.link_change(row, &changed), left_out: Vec::new() })
    }

    /// The writes of `POST /Users`, if a directory deleted this user earlier and the user is still archived. The
    /// whole link is replaced.
    pub fn rehire(&self, row: &UserRow) -> Result<Changes, ScimError> {
        self.creation()?;
        let complete = Self { active: self.active.or_known(&Field::Value(true)), ..self.clone() };
        let unlinked = UserRow { external_id: None, user_name: None, display_name: None, ..row.clone() };
        let Changes { writes, link, left_out } = complete.changes(&unlinked)?;
        let link = LinkChange {
            external_id: link.external_id.or_known(&Field::Null),
            user_name: link.user_name.or_known(&Field::Null),
            display_name: link.display_name.or_known(&Field::Null),
        };
        Ok(Changes { writes, link, left_out })
    }

    /// Sets Harvest's fields of a row. Returns those that change, by Harvest's names.
    fn apply(&self, row: &mut UserRow) -> Vec<(&'static str, Json)> {
        let mut differing = Vec::new();
        let mut set = |name, wanted: &Field<String>, known: &mut String| {
            let Some(wanted) = wanted.value() else { return };
            let is_equal = if name == EMAIL { is_same(wanted, known) } else { wanted == known.trim() };
            if !is_equal {
                differing.push((name, json!(wanted)));
                known.clone_from(wanted);
            }
        };
        set("first_name", &self.given_name, &mut row.first_name);
        set("last_name", &self.family_name, &mut row.last_name);
        set(EMAIL, &self.email, &mut row.email);
        let telephone = match &self.telephone {
            Field::Absent => return differing,
            Field::Null => "",
            Field::Value(telephone) => telephone,
        };
        if telephone != row.telephone.as_deref().unwrap_or_default().trim() {
            differing.push((TELEPHONE, json!(telephone)));
            row.telephone = Some(telephone.to_owned()).filter(|telephone| !telephone.is_empty());
        }
        differing
    }

    /// The change of the link, if a row becomes `changed` by the writes.
    fn link_change(&self, row: &UserRow, changed: &UserRow) -> LinkChange {
        // A new address is no new userName, by which the directory finds the user.
        let kept = Some(&row.email).filter(|email| row.user_name.is_none() && !email.is_empty());
        let user_name = match self.user_name.value().or(kept) {
            None => Field::Absent,
            Some(name) if is_same(name, &changed.email) => Field::Null,
            Some(name) => Field::Value(name.clone()),
        };
        let full_name = full_name(&changed.first_name, &changed.last_name);
        let display_name = match &self.display_name {
            Field::Absent => Field::Absent,
            Field::Null => Field::Value(String::new()),
            Field::Value(name) if *name == full_name => Field::Null,
            Field::Value(name) => Field::Value(name.clone()),
        };
        LinkChange {
            external_id: difference(self.external_id.clone(), row.external_id.as_ref()),
            user_name: difference(user_name, row.user_name.as_ref()),
            display_name: difference(display_name, row.display_name.as_ref()),
        }
    }
}

/// The wanted value; absent if it is the known one.
pub(super) fn difference(wanted: Field<String>, known: Option<&String>) -> Field<String> {
    if wanted.value() == known { Field::Absent } else { wanted }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
