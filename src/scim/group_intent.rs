//! What a request wants of a group: the values that it names, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::body::{self, Object};
use super::changes::{LinkChange, difference};
use super::error::ScimError;
use super::group::GroupRow;
use super::group_path::GroupTarget;
use super::intent::{Verb, ignore};
use super::operation::Operation;
use super::value;
use crate::roster::Field;
use crate::roster::role::MemberChange;
use crate::roster::write::{Write, WriteFields, WriteKind};

const MAX_MEMBERS: usize = 1000;
/// The only type of members.
const USER: &str = "User";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupIntent {
    /// `displayName`. Never null.
    pub name: Field<String>,
    pub external_id: Field<String>,
    pub members: MemberChange,
    /// Names of attributes, in lower case, that the request has and rosterd ignores.
    pub ignored: BTreeSet<String>,
    named: usize,
}

impl GroupIntent {
    /// The body of `POST /Groups` and of `PUT /Groups/{id}`. What it does not have stays as it is.
    pub fn from_body(body: &[u8]) -> Result<Self, ScimError> {
        let mut intent = Self::default();
        intent.set_all(&body::parse(body)?, Verb::Put)?;
        Ok(intent)
    }

    /// The body of `PATCH /Groups/{id}`. The operations are read in order.
    pub fn from_patch(body: &[u8]) -> Result<Self, ScimError> {
        let mut intent = Self::default();
        for operation in Operation::list(&body::parse(body)?)? {
            intent.operate(&operation?)?;
        }
        Ok(intent)
    }

    pub fn creation(&self) -> Result<Write, ScimError> {
        let name = self.name.value().ok_or_else(|| ScimError::invalid_value("displayName is missing"))?;
        let mut fields = Map::from_iter([("name".to_owned(), json!(name))]);
        let members = self.members.wanted();
        if !members.is_empty() {
            fields.insert("user_ids".to_owned(), json!(members));
        }
        write(WriteKind::RoleCreate, None, fields)
    }

    /// The write of PUT and PATCH; `None` if the role is as wanted.
    pub fn change(&self, row: &GroupRow) -> Result<Option<Write>, ScimError> {
        let mut fields = Map::new();
        if let Some(name) = self.name.value().filter(|name| **name != row.name) {
            fields.insert("name".to_owned(), json!(name));
        }
        let members = row.user_ids.iter().copied().collect();
        if self.members.apply(&members) != members {
            self.members.to_fields(&mut fields);
        }
        (!fields.is_empty()).then(|| write(WriteKind::RoleUpdate, Some(row.id), fields)).transpose()
    }

    /// The change of the link.
    pub fn link_change(&self, row: &GroupRow) -> LinkChange {
        let external_id = difference(self.external_id.clone(), row.external_id.as_ref());
        LinkChange { external_id, ..LinkChange::default() }
    }

    fn operate(&mut self, operation: &Operation<'_>) -> Result<(), ScimError> {
        let target = operation.path()?.map(GroupTarget::parse).transpose()?;
        match (operation.verb, target, operation.value) {
            (Verb::Remove, None, _) => Err(Operation::without_path()),
            (Verb::Remove, Some(target), value) => self.remove(target, value),
            (_, _, None) => Err(ScimError::invalid_value("an operation has no value")),
            (verb, Some(target), Some(value)) => self.set(target, value, verb),
            (verb, None, Some(Json::Object(members))) => self.set_all(members, verb),
            (_, None, Some(_)) => Err(Operation::without_object()),
        }
    }

    fn set_all(&mut self, object: &Object, verb: Verb) -> Result<(), ScimError> {
        for (path, value) in object {
            match GroupTarget::parse(path) {
                Ok(target) => self.set(target, value, verb)?,
                Err(_) => ignore(&mut self.ignored, "(not a path)"),
            }
        }
        Ok(())
    }

    fn set(&mut self, target: GroupTarget, value: &Json, verb: Verb) -> Result<(), ScimError> {
        match target {
            GroupTarget::ReadOnly => {}
            GroupTarget::Unknown(name) => ignore(&mut self.ignored, &name),
            GroupTarget::Group => match value {
                Json::Object(members) => self.set_all(members, verb)?,
                _ => return Err(ScimError::invalid_value("the value of a group is not an object")),
            },
            GroupTarget::DisplayName => match value::text(target.path(), value)? {
                Some(name) if !name.is_empty() => self.name = Field::Value(name),
                _ => return Err(ScimError::invalid_value("displayName is required and empty")),
            },
            GroupTarget::ExternalId => {
                let id = value::text(target.path(), value)?.filter(|id| !id.is_empty());
                self.external_id = id.map_or(Field::Null, Field::Value);
            }
            GroupTarget::Members if verb == Verb::Add => {
                let ids = self.ids(value, true)?;
                self.members.add(&ids);
            }
            GroupTarget::Members => {
                let ids = self.ids(value, true)?;
                self.members.replace(ids);
            }
            GroupTarget::Member(_) => {
                return Err(ScimError::bad_request("noTarget", "a member has no attribute to change"));
            }
        }
        Ok(())
    }

    fn remove(&mut self, target: GroupTarget, value: Option<&Json>) -> Result<(), ScimError> {
        match (target, value) {
            (GroupTarget::ReadOnly, _) => {}
            (GroupTarget::Unknown(name), _) => ignore(&mut self.ignored, &name),
            (GroupTarget::ExternalId, _) => self.external_id = Field::Null,
            (GroupTarget::Members, None | Some(Json::Null)) => self.members.replace(BTreeSet::new()),
            // Only these.
            (GroupTarget::Members, Some(list)) => {
                let ids = self.ids(list, false)?;
                self.members.remove(&ids);
            }
            (GroupTarget::Member(id), _) => {
                let ids = self.ids(&Json::String(id), false)?;
                self.members.remove(&ids);
            }
            (target @ (GroupTarget::DisplayName | GroupTarget::Group), _) => {
                return Err(ScimError::mutability(format!("{} cannot be removed", target.path())));
            }
        }
        Ok(())
    }

    /// The ids of members: a text, an object with a `value`, or a list of those. `must_be_users`: others are refused;
    /// otherwise they are left out, because they are no members.
    fn ids(&mut self, value: &Json, must_be_users: bool) -> Result<BTreeSet<i64>, ScimError> {
        let items = value::items(value);
        self.named += items.len();
        if self.named > MAX_MEMBERS {
            return Err(ScimError::new(413, "the body has more than 1,000 members"));
        }
        let mut ids = BTreeSet::new();
        for item in items {
            match id(item) {
                Some(id) => drop(ids.insert(id)),
                None if must_be_users => {
                    return Err(ScimError::invalid_value("members has a value that is not the id of a user"));
                }
                None => {}
            }
        }
        Ok(ids)
    }
}

fn write(kind: WriteKind, role: Option<i64>, fields: Map<String, Json>) -> Result<Write, ScimError> {
    let fields = WriteFields::parse(kind, Json::Object(fields)).map_err(ScimError::invalid_value)?;
    Ok(Write::of_role(kind, role, fields))
}

fn id(item: &Json) -> Option<i64> {
    let value = match item {
        Json::Object(members) => {
            let kind = members.get("type").and_then(Json::as_str).unwrap_or(USER);
            members.get("value").filter(|_| kind.eq_ignore_ascii_case(USER))?
        }
        item => item,
    };
    match value {
        Json::String(text) => value::parse_id(text.trim()),
        Json::Number(number) => number.as_i64().filter(|id| *id > 0),
        _ => None,
    }
}

#[cfg(test)]
#[path = "group_intent_tests.rs"]
mod tests;
