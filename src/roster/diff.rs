//! The heart: what the mirror has and what Harvest says → what to write and what to tell.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;

use super::change::Change;
use super::field::Field;
use super::model::Record;

/// How far a fetched image is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// From a list filtered by `updated_since`: an older stamp than the mirror's is ignored.
    Incremental {
        /// Harvest's clock when the list was asked for. A stamp of the mirror's that lies after it is of a clock that
        /// has been put back since, and stands in nobody's way.
        now: DateTime<Utc>,
    },
    /// From an unfiltered list or a `GET` by id: authoritative. Without this exception a mirror stays wrong
    /// for ever where Harvest's hosts disagree by seconds about the time.
    Full,
}

/// `Date` has whole seconds, and the stamp may be younger than the question.
const ABOUT_NOW: TimeDelta = TimeDelta::seconds(5);

impl Reading {
    /// Whether the stamp of the mirror's record counts against an older one.
    fn heeds<R: Record>(self, known: &R) -> bool {
        match self {
            Self::Full => false,
            Self::Incremental { now } => known.updated_at().is_none_or(|stamp| stamp - now <= ABOUT_NOW),
        }
    }
}

/// A record as the mirror has it.
#[derive(Clone)]
pub struct Mirrored<R> {
    /// Its columns.
    pub record: R,
    /// How many events it has had.
    pub version: i64,
    /// See [`Fetched::hash`].
    pub hash: i64,
    /// Whether it is kept as a tombstone.
    pub deleted: bool,
}

/// A record as Harvest sent it.
#[derive(Clone)]
pub struct Fetched<R> {
    /// Its fields.
    pub record: R,
    /// The object as received, unknown fields included.
    pub raw: Box<RawValue>,
    /// Hash of the object without what is not the record's own (the names embedded in an assignment).
    /// Equal hashes: nothing to do.
    pub hash: i64,
}

/// A row to write.
#[derive(Clone)]
pub struct Write<R> {
    /// The columns, merged with what the payload did not say.
    pub record: R,
    /// The object as received, never merged.
    pub raw: Box<RawValue>,
    /// See [`Fetched::hash`].
    pub hash: i64,
    /// The version to store.
    pub version: i64,
    /// What to tell; `None` refreshes the row without an event.
    pub change: Option<Change<R>>,
}

/// Compares what was fetched with what is mirrored (the rows of at least the fetched ids): the rows to write, by
/// id. A plan is a value: a dry run prints it, the store applies it.
///
/// Order and repetition of the fetched records do not matter: of one id's images the newest stamp counts, of
/// equal stamps the last. Records that are [`unstorable`] are passed over.
pub fn plan<R: Record>(
    stored: &HashMap<i64, Mirrored<R>>,
    fetched: Vec<Fetched<R>>,
    reading: Reading,
) -> Vec<Write<R>> {
    let mut writes: Vec<Write<R>> = newest(fetched)
        .filter_map(|fetched| match stored.get(&fetched.record.id()) {
            Some(known) if !known.deleted => against(known, fetched, reading),
            Some(known) => again(known, fetched, reading),
            None if unstorable(&fetched.record).is_some() => None,
            None => {
                let Fetched { record, raw, hash } = fetched;
                let change = Some(Change::creation(record.clone(), 1));
                Some(Write { record, raw, hash, version: 1, change })
            }
        })
        .collect();
    writes.sort_by_key(|write| write.record.id());
    writes
}

impl<R> Write<R> {
    /// Raises the version above the last one of the record's events and history, which is more than its row says where the
    /// row was deleted, or its version lowered, by hand.
    pub fn continue_after(&mut self, last: i64) {
        if let Some(change) = &mut self.change {
            change.continue_after(last);
            self.version = change.version;
        }
    }
}

/// Those of the rows that are there, each as a deletion, by id. Harvest has confirmed that they are gone.
pub fn bury<R: Record>(stored: HashMap<i64, Mirrored<R>>) -> Vec<Change<R>> {
    let mut changes: Vec<Change<R>> = stored
        .into_values()
        .filter(|known| !known.deleted)
        .map(|known| Change::deletion(known.record, known.version + 1))
        .collect();
    changes.sort_by_key(Change::id);
    changes
}

/// Why a record that the mirror does not have, or not any more, cannot be taken in: whether somebody is active is never
/// guessed. Later a missing `is_active` keeps what is known.
pub fn unstorable<R: Record>(first_seen: &R) -> Option<&'static str> {
    (first_seen.is_active() == &Field::Absent).then_some("first seen without is_active")
}

/// One record against its row.
fn against<R: Record>(known: &Mirrored<R>, fetched: Fetched<R>, reading: Reading) -> Option<Write<R>> {
    let Fetched { record, raw, hash } = fetched;
    if reading.heeds(&known.record) && older(&record, &known.record) {
        return None;
    }
    let record = record.or_known(&known.record);
    if record.fields() != known.record.fields() {
        let version = known.version + 1;
        let change = Change::edit(known.record.clone(), record.clone(), version);
        return Some(Write { record, raw, hash, version, change: Some(change) });
    }
    // Only what makes no event differs: the stamp, the picture, a field that we do not know.
    (hash != known.hash || record.quiet() != known.record.quiet()).then(|| Write {
        record: record.worded_as(&known.record),
        raw,
        hash,
        version: known.version,
        change: None,
    })
}

/// One record against its tombstone. A list of what changed is believed only where the stamp moved since: a replica
/// that lags may still show what was deleted a moment ago. A record restored with its old stamp is found by its count.
fn again<R: Record>(known: &Mirrored<R>, fetched: Fetched<R>, reading: Reading) -> Option<Write<R>> {
    let Fetched { record, raw, hash } = fetched;
    let moved = record.updated_at() > known.record.updated_at() || record.updated_at().is_none();
    if unstorable(&record).is_some() || reading.heeds(&known.record) && !moved {
        return None;
    }
    let record = record.or_known(&known.record);
    let version = known.version + 1;
    let change = Some(Change::creation(record.clone(), version));
    Some(Write { record, raw, hash, version, change })
}

/// Whether `a` is stamped before `b`. A missing stamp is never older: better to apply than to lose.
fn older<R: Record>(a: &R, b: &R) -> bool {
    matches!((a.updated_at(), b.updated_at()), (Some(a), Some(b)) if a < b)
}

/// One image an id.
fn newest<R: Record>(fetched: Vec<Fetched<R>>) -> impl Iterator<Item = Fetched<R>> {
    let mut by_id: HashMap<i64, Fetched<R>> = HashMap::with_capacity(fetched.len());
    for image in fetched {
        match by_id.get(&image.record.id()) {
            Some(best) if older(&image.record, &best.record) => {}
            _ => {
                by_id.insert(image.record.id(), image);
            }
        }
    }
    by_id.into_values()
}
