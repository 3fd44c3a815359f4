//! What a dry run or `verify` has to say of one record: a line for people, and the same as data.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::harvest::Rejected;
use crate::roster::field::Value;
use crate::roster::{Change, Record};

/// What was found about one record.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The line for people.
    #[serde(skip)]
    pub line: String,
    /// `user`, `user_assignment`, `billable_rate`, `cost_rate` or `project`.
    pub record: &'static str,
    /// Its id, where that can be read.
    pub id: Option<i64>,
    /// What was found, in a word.
    pub finding: &'static str,
    /// The reason, by names of fields, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fields that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Difference>,
}

/// A field that differs.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// Its name.
    pub field: &'static str,
    /// Its value in the mirror, where values are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Box<RawValue>>,
    /// Its value at Harvest, where values are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harvest: Option<Box<RawValue>>,
}

impl Difference {
    /// By name, and by both values where they are wanted.
    pub(super) fn new(field: &'static str, mirror: Value<'_>, harvest: Value<'_>, values: bool) -> Self {
        let text = |value: Value<'_>| values.then(|| to_raw_value(&value).ok()).flatten();
        Self { field, mirror: text(mirror), harvest: text(harvest) }
    }
}

impl Finding {
    /// About a record; `line` names it too.
    pub(super) fn new(
        record: &'static str,
        id: impl Into<Option<i64>>,
        finding: &'static str,
        line: String,
    ) -> Self {
        Self { line, record, id: id.into(), finding, reason: None, fields: Vec::new() }
    }

    /// With a reason.
    pub(super) fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    /// A record that cannot be read.
    pub(super) fn unreadable(record: &'static str, rejected: &Rejected) -> Self {
        let id = rejected.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        let line = format!("{record} {id} cannot be read: {}", rejected.reason);
        Self::new(record, rejected.id, "unreadable", line).because(&*rejected.reason)
    }

    /// A change that would be written.
    pub(crate) fn change<R: Record>(change: &Change<R>, values: bool) -> Self {
        let line = if values { change.with_values() } else { change.to_string() };
        let changed = change.changed().into_iter();
        let mut fields: Vec<_> =
            changed.map(|(name, from, to)| Difference::new(name, from, to, values)).collect();
        if let (None, Some(after), true) = (&change.before, &change.after, values) {
            let told = after.fields().into_iter().filter(|(_, value)| *value != Value::Null);
            fields.extend(told.map(|(name, value)| Difference {
                mirror: None,
                ..Difference::new(name, Value::Null, value, values)
            }));
        }
        let finding = Self::new(R::RESOURCE.aggregate(), change.id(), change.kind.name(), line);
        Self { fields, ..finding }
    }
}
