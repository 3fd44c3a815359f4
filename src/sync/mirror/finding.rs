//! A finding of a dry run or of `verify` about one record, as a line and as data.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::harvest::UnreadableRecord;
use crate::roster::field::Value;
use crate::roster::{Change, Record};

#[derive(Debug, Serialize)]
pub struct Finding {
    #[serde(skip)]
    pub line: String,
    /// `user`, `user_assignment`, `billable_rate`, `cost_rate` or `project`.
    pub record: &'static str,
    pub id: Option<i64>,
    /// Such as `differs`.
    #[serde(rename = "finding")]
    pub kind: &'static str,
    /// The reason, with names of fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Difference>,
}

#[derive(Debug, Serialize)]
pub struct Difference {
    pub field: &'static str,
    /// The mirror's value, if values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Box<RawValue>>,
    /// Harvest's value, if values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harvest: Option<Box<RawValue>>,
}

impl Difference {
    /// A difference; `values`: whether to include both values.
    pub(super) fn new(field: &'static str, mirror: Value<'_>, harvest: Value<'_>, values: bool) -> Self {
        let text = |value: Value<'_>| values.then(|| to_raw_value(&value).ok()).flatten();
        Self { field, mirror: text(mirror), harvest: text(harvest) }
    }
}

impl Finding {
    pub(super) fn new(
        record: &'static str,
        id: impl Into<Option<i64>>,
        kind: &'static str,
        line: String,
    ) -> Self {
        Self { line, record, id: id.into(), kind, reason: None, fields: Vec::new() }
    }

    pub(super) fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    pub(super) fn unreadable(record: &'static str, rejected: &UnreadableRecord) -> Self {
        let id = rejected.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        let line = format!("{record} {id} cannot be read: {}", rejected.reason);
        Self::new(record, rejected.id, "unreadable", line).because(&*rejected.reason)
    }

    pub(crate) fn change<R: Record>(change: &Change<R>, values: bool) -> Self {
        let line = if values { change.with_values() } else { change.to_string() };
        let changed = change.changed().into_iter();
        let mut fields: Vec<_> =
            changed.map(|(name, from, to)| Difference::new(name, from, to, values)).collect();
        if let (None, Some(after), true) = (&change.before, &change.after, values) {
            let present = after.fields().into_iter().filter(|(_, value)| *value != Value::Null);
            fields.extend(present.map(|(name, value)| Difference {
                mirror: None,
                ..Difference::new(name, Value::Null, value, values)
            }));
        }
        let finding = Self::new(R::RESOURCE.aggregate(), change.id(), change.kind.name(), line);
        Self { fields, ..finding }
    }
}
