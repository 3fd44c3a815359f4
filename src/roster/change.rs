//! A change of one record: the value that a dry run prints, an event emits and the store applies.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::field::{Field, Value};
use super::model::Record;

/// What happened to a record. If `is_active` changes, the kind names that change even if other fields change too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Seen for the first time, or restored after a deletion.
    Created,
    /// Changed, with the same `is_active`.
    Updated,
    Deactivated,
    Reactivated,
    Deleted,
}

impl ChangeKind {
    pub const ALL: [Self; 5] =
        [Self::Created, Self::Updated, Self::Deactivated, Self::Reactivated, Self::Deleted];

    /// The last part of an event's type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deactivated => "deactivated",
            Self::Reactivated => "reactivated",
            Self::Deleted => "deleted",
        }
    }
}

/// One record's change from one version to the next.
#[derive(Clone)]
pub struct Change<R> {
    pub kind: ChangeKind,
    pub version: i64,
    /// Before it; `None` for a creation, also after a deletion.
    pub before: Option<Arc<R>>,
    /// After it, with the old values of absent fields; `None` for a deletion.
    pub after: Option<Arc<R>>,
}

impl<R> Change<R> {
    /// Raises the version above this one.
    pub fn continue_after(&mut self, last: i64) {
        self.version = self.version.max(last + 1);
    }
}

impl<R: Record> Change<R> {
    pub fn creation(record: Arc<R>, version: i64) -> Self {
        Self { kind: ChangeKind::Created, version, before: None, after: Some(record) }
    }

    /// The change of a record that differs from its row.
    pub fn edit(before: Arc<R>, after: Arc<R>, version: i64) -> Self {
        let kind = match (before.is_active(), after.is_active()) {
            (Field::Value(true), Field::Value(false)) => ChangeKind::Deactivated,
            (Field::Value(false), Field::Value(true)) => ChangeKind::Reactivated,
            _ => ChangeKind::Updated,
        };
        Self { kind, version, before: Some(before), after: Some(after) }
    }

    pub fn deletion(before: R, version: i64) -> Self {
        Self { kind: ChangeKind::Deleted, version, before: Some(Arc::new(before)), after: None }
    }

    pub fn id(&self) -> i64 {
        self.after.as_deref().or(self.before.as_deref()).map_or(0, Record::id)
    }

    /// The type of its event, such as `user.deactivated`.
    pub fn event_type(&self) -> String {
        [R::RESOURCE.aggregate(), ".", self.kind.name()].concat()
    }

    /// The record's `updated_at`; for a deletion or without `updated_at`, the time at which it is stored.
    pub fn occurred_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.after.as_deref().and_then(Record::updated_at).unwrap_or(now)
    }

    /// The fields that differ: name, old value, new value. Empty for a creation or a deletion.
    pub fn changed(&self) -> Vec<(&'static str, Value<'_>, Value<'_>)> {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return Vec::new() };
        before
            .fields()
            .into_iter()
            .zip(after.fields())
            .filter(|((_, from), (_, to))| from != to)
            .map(|((name, from), (_, to))| (name, from, to))
            .collect()
    }

    /// The line of `--dry-run --values`: ids and fields with old → new values; for a creation, the non-null values.
    pub fn with_values(&self) -> String {
        let fields: Vec<String> = match (&self.before, &self.after) {
            (None, Some(after)) => after
                .fields()
                .into_iter()
                .filter(|(_, value)| *value != Value::Null)
                .map(|(name, value)| format!("{name} {value}"))
                .collect(),
            _ => self.changed().iter().map(|(name, from, to)| format!("{name} {from} → {to}")).collect(),
        };
        self.line(&fields)
    }

    fn line(&self, fields: &[String]) -> String {
        let what = format!("{} {} {}", R::RESOURCE.aggregate(), self.id(), self.kind.name());
        if fields.is_empty() { what } else { format!("{what}: {}", fields.join(", ")) }
    }
}

/// The line of `--dry-run`: ids and names of fields, never values.
impl<R: Record> fmt::Display for Change<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.changed().iter().map(|(name, ..)| (*name).to_owned()).collect();
        f.write_str(&self.line(&fields))
    }
}
