//! A change of one record: the value that a dry run prints, an event tells and the store applies.

use std::fmt;

use super::field::{Field, Value};
use super::model::Record;

/// What happened to a record. A flip of `is_active` names the change, whatever else changed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Seen for the first time, or again after a deletion.
    Created,
    /// Changed, its `is_active` as before.
    Updated,
    /// Archived.
    Deactivated,
    /// Brought back from the archive.
    Reactivated,
    /// Gone from Harvest.
    Deleted,
}

impl Kind {
    /// All of them.
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
    /// What happened.
    pub kind: Kind,
    /// The record's version after it.
    pub version: i64,
    /// Before it; `None` for a creation, also after a deletion.
    pub before: Option<R>,
    /// After it, merged with what the payload did not say; `None` for a deletion.
    pub after: Option<R>,
}

impl<R> Change<R> {
    /// Raises the version above this one.
    pub fn continue_after(&mut self, last: i64) {
        self.version = self.version.max(last + 1);
    }
}

impl<R: Record> Change<R> {
    /// A record that was not there.
    pub fn creation(record: R, version: i64) -> Self {
        Self { kind: Kind::Created, version, before: None, after: Some(record) }
    }

    /// A record that was there and differs.
    pub fn edit(before: R, after: R, version: i64) -> Self {
        let kind = match (before.is_active(), after.is_active()) {
            (Field::Value(true), Field::Value(false)) => Kind::Deactivated,
            (Field::Value(false), Field::Value(true)) => Kind::Reactivated,
            _ => Kind::Updated,
        };
        Self { kind, version, before: Some(before), after: Some(after) }
    }

    /// A record that is gone.
    pub fn deletion(before: R, version: i64) -> Self {
        Self { kind: Kind::Deleted, version, before: Some(before), after: None }
    }

    /// Id of the record.
    pub fn id(&self) -> i64 {
        self.after.as_ref().or(self.before.as_ref()).map_or(0, Record::id)
    }

    /// The fields that differ between the two images: name, from, to. None for a creation or a deletion,
    /// whose one image says it all.
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

    /// The line for a person who may see values: ids, fields, from → to; of a creation, what there is.
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

/// The line that `--dry-run` prints: ids and names of fields, never values.
impl<R: Record> fmt::Display for Change<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.changed().iter().map(|(name, ..)| (*name).to_owned()).collect();
        f.write_str(&self.line(&fields))
    }
}
