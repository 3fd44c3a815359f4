//! Writes to Harvest as values: what an asker wants, and what each kind of write sends.

use std::collections::BTreeSet;
use std::fmt;

use rust_decimal::Decimal;
use serde_json::{Map, Value as Json, json};

use super::field::{Field, Value};
use super::model::{Record, Resource};
pub use super::write_kind::WriteKind;
use super::write_kind::{FieldType, NAME};

/// Fields that a new user must have.
const REQUIRED: [&str; 3] = ["first_name", "last_name", "email"];
/// Ids in one field.
const MAX_IDS: usize = 1000;
/// Longer texts are refused.
const MAX_CHARACTERS: usize = 255;
const MAX_ACCESS_ROLES: usize = 20;

/// The fields to write, by Harvest's names. They are valid for their kind of write.
#[derive(Clone, Default, PartialEq)]
pub struct WriteFields(Map<String, Json>);

impl WriteFields {
    /// Checks the fields of a write of this kind, which may come from any program.
    ///
    /// # Errors
    /// A sentence that names the field, and no value.
    pub fn parse(kind: WriteKind, fields: Json) -> Result<Self, String> {
        let Json::Object(mut fields) = fields else {
            return Err("the fields must be a JSON object".to_owned());
        };
        for (name, value) in &mut fields {
            let known = kind.fields().iter().find(|(known, _)| known == name);
            let Some((_, field_type)) = known else {
                return Err(format!("{} does not take the field {name:?}", kind.name()));
            };
            check(*field_type, value).map_err(|problem| format!("{name} {problem}"))?;
        }
        let is_empty = |name: &str| fields.get(name).is_none_or(|value| value.as_str() == Some(""));
        let needed = REQUIRED.iter().chain(&[NAME]).find(|name| match kind {
            WriteKind::UserCreate if **name != NAME => is_empty(name),
            WriteKind::RoleCreate if **name == NAME => is_empty(name),
            // Harvest refuses an empty one.
            _ => fields.contains_key(**name) && is_empty(name),
        });
        if let Some(name) = needed {
            return Err(format!("{name} is missing or empty"));
        }
        if fields.get("email").is_some_and(|email| !email.as_str().is_some_and(is_address)) {
            return Err("email is not an e-mail address".to_owned());
        }
        let is_update =
            matches!(kind, WriteKind::UserUpdate | WriteKind::AssignmentUpdate | WriteKind::RoleUpdate);
        if fields.is_empty() && is_update {
            return Err("there is no field to change".to_owned());
        }
        Ok(Self(fields))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    #[must_use]
    pub fn only(&self, names: &[String]) -> Self {
        let kept = self.0.iter().filter(|(name, _)| names.contains(name));
        Self(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        self.0.get(name)?.as_array().map(|items| items.iter().filter_map(Json::as_str).collect())
    }

    pub fn ids(&self, name: &str) -> Option<BTreeSet<i64>> {
        self.0.get(name)?.as_array().map(|items| items.iter().filter_map(Json::as_i64).collect())
    }

    /// As the journal keeps them.
    pub fn to_json(&self) -> Json {
        Json::Object(self.0.clone())
    }

    /// The names of the fields that a record does not have as wanted.
    pub fn differing<R: Record>(&self, kind: WriteKind, record: &R) -> Vec<String> {
        let fields = record.fields();
        let mut differing: Vec<String> = self
            .0
            .iter()
            .filter(|(name, wanted)| {
                !fields.iter().any(|(field, value)| field == name && is_equal(wanted, value))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if kind.sets_active().is_some_and(|active| record.is_active() != &Field::Value(active)) {
            differing.push("is_active".to_owned());
        }
        differing
    }
}

/// Names only: the values are personal data.
impl fmt::Debug for WriteFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub kind: WriteKind,
    /// The user, or the user of the assignment; `None` for a user to create.
    pub user: Option<i64>,
    pub project: Option<i64>,
    /// The assignment, unless it is to be added.
    pub assignment: Option<i64>,
    /// The job role, unless it is to be created.
    pub role: Option<i64>,
    pub fields: WriteFields,
}

impl Write {
    pub fn of_user(kind: WriteKind, user: Option<i64>, fields: WriteFields) -> Self {
        Self { kind, user, project: None, assignment: None, role: None, fields }
    }

    pub fn of_role(kind: WriteKind, role: Option<i64>, fields: WriteFields) -> Self {
        Self { role, ..Self::of_user(kind, None, fields) }
    }

    /// The body of the request; `None` if it has none. See `role::body` for roles.
    pub fn body(&self) -> Option<Json> {
        let mut body = self.fields.0.clone();
        if let Some(active) = self.kind.sets_active() {
            body.insert("is_active".to_owned(), json!(active));
        }
        if self.kind == WriteKind::AssignmentAdd {
            body.insert("user_id".to_owned(), json!(self.user));
            // Without it, Harvest makes managers and administrators managers of the project.
            body.entry("is_project_manager").or_insert(json!(false));
        }
        (!self.kind.is_deletion()).then_some(Json::Object(body))
    }

    /// The path of the request below `/v2`. `None` if an id is missing.
    pub fn path(&self) -> Option<String> {
        Some(match self.kind {
            WriteKind::UserCreate => "users".to_owned(),
            WriteKind::AssignmentAdd => format!("projects/{}/user_assignments", self.project?),
            WriteKind::RoleCreate => "roles".to_owned(),
            WriteKind::RoleUpdate | WriteKind::RoleDelete => format!("roles/{}", self.role?),
            kind if kind.resource() == Some(Resource::Users) => format!("users/{}", self.user?),
            _ => format!("projects/{}/user_assignments/{}", self.project?, self.assignment?),
        })
    }

    /// The id of the record; `None` for a record to create.
    pub fn record(&self) -> Option<i64> {
        match self.kind.resource() {
            Some(Resource::Users) => self.user,
            Some(_) => self.assignment,
            None => self.role,
        }
    }

    /// What identifies a user who does not exist yet.
    pub fn email_key(&self) -> Option<String> {
        let email = self.fields.text("email").filter(|_| self.kind == WriteKind::UserCreate)?;
        Some(email.to_lowercase())
    }
}

/// Checks a value and trims texts.
fn check(field_type: FieldType, value: &mut Json) -> Result<(), &'static str> {
    match (field_type, &mut *value) {
        (FieldType::Text, Json::String(text)) => {
            *text = text.trim().to_owned();
            is_storable(text)
        }
        (FieldType::Flag, Json::Bool(_)) | (FieldType::Money, Json::Null) => Ok(()),
        (FieldType::Money, Json::Number(number)) => {
            let amount = number.to_string().parse::<Decimal>();
            amount.ok().filter(|amount| !amount.is_sign_negative()).map(|_| ()).ok_or("is not an amount")
        }
        (FieldType::Texts, Json::Array(items)) if items.len() <= MAX_ACCESS_ROLES => items
            .iter()
            .try_for_each(|item| item.as_str().map_or(Err("must be a list of texts"), is_storable)),
        (FieldType::Ids, Json::Array(items)) if items.len() <= MAX_IDS => {
            let is_id = |item: &Json| item.as_i64().is_some_and(|id| id > 0);
            items.iter().all(is_id).then_some(()).ok_or("must be a list of ids")
        }
        (FieldType::Ids, _) => Err("must be a list of at most 1000 ids"),
        (FieldType::Text, _) => Err("must be text"),
        (FieldType::Flag, _) => Err("must be true or false"),
        (FieldType::Money, _) => Err("must be a number or null"),
        (FieldType::Texts, _) => Err("must be a list of texts"),
    }
}

/// Whether Harvest and PostgreSQL can store a text. The error is a sentence without its subject.
pub fn is_storable(text: &str) -> Result<(), &'static str> {
    if text.chars().any(char::is_control) {
        return Err("holds control characters");
    }
    if text.chars().count() > MAX_CHARACTERS {
        return Err("is longer than 255 characters");
    }
    Ok(())
}

/// Whether a text can be an e-mail address. Harvest decides.
pub fn is_address(text: &str) -> bool {
    let parts = text.split_once('@');
    parts.is_some_and(|(name, domain)| {
        !name.is_empty() && !domain.is_empty() && !domain.contains('@') && !text.contains(char::is_whitespace)
    })
}

/// Whether Harvest has the wanted value. It stores addresses in lower case.
fn is_equal(wanted: &Json, value: &Value<'_>) -> bool {
    match (wanted, value) {
        (Json::Null, Value::Null) => true,
        (Json::String(wanted), Value::Null) => wanted.is_empty(),
        (Json::String(wanted), Value::Text(text)) => {
            wanted == text.trim() || is_address(wanted) && wanted.to_lowercase() == text.to_lowercase()
        }
        (Json::Bool(wanted), Value::Bool(flag)) => wanted == flag,
        (Json::Number(wanted), Value::Money(amount)) => {
            wanted.to_string().parse::<Decimal>().is_ok_and(|wanted| wanted == *amount)
        }
        (Json::Array(wanted), Value::Set(items)) => {
            let wanted: Vec<String> = wanted.iter().filter_map(Json::as_str).map(ToOwned::to_owned).collect();
            Value::Set(&wanted) == Value::Set(items)
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
