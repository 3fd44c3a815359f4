//! Compares what Harvest sent with what the mirror holds: the rows to write and the changes to emit.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;

use super::change::Change;
use super::field::Field;
use super::model::{Project, Record};
use super::order::{Seq, SourceRequest};

/// Whether a fetched record replaces a row with a newer `updated_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Read from a list filtered by `updated_since`. A record with an older `updated_at` than the row is ignored.
    Incremental {
        /// Harvest's clock when the list was requested. If the row's `updated_at` is later than this, Harvest's clock was
        /// set back since, and the row's `updated_at` is ignored.
        now: DateTime<Utc>,
    },
    /// Read from an unfiltered list or by id: it always replaces the row. Otherwise a row would stay wrong for ever if the
    /// clocks of Harvest's hosts differ.
    Full,
}

/// Tolerance of [`Authority::Incremental`]: Harvest's `Date` header has whole seconds, and a record may change after the
/// request.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(5);

impl Authority {
    /// Whether a record with an older `updated_at` than this row is ignored.
    fn respects<R: Record>(self, row: &R) -> bool {
        match self {
            Self::Full => false,
            Self::Incremental { now } => row.updated_at().is_none_or(|at| at - now <= CLOCK_TOLERANCE),
        }
    }
}

#[derive(Clone)]
pub struct MirrorRow<R> {
    pub record: R,
    /// How many events the record has had.
    pub version: i64,
    /// See [`Fetched::hash`].
    pub hash: i64,
    pub deleted: bool,
}

/// A record that Harvest sent: the only record type between the decoder and [`plan`].
#[derive(Clone)]
pub struct Fetched<R> {
    pub record: Arc<R>,
    /// The JSON object as received, with its unknown fields.
    pub raw: Box<RawValue>,
    /// Hash of the object without the parts that belong to other records, such as an assignment's names of user and project.
    /// If the row's hash is equal, the row is up to date.
    pub hash: i64,
    /// The project that an assignment names.
    pub project: Option<Project>,
    /// Whether it replaces a newer row.
    pub authority: Authority,
    /// The request that it answers; `None` if that is no longer known.
    pub request: Option<SourceRequest>,
}

impl<R: Record> Fetched<R> {
    pub fn id(&self) -> i64 {
        self.record.id()
    }

    /// The place of its request in the order of requests.
    pub fn seq(&self) -> Seq {
        Seq::of(self.request.as_ref())
    }
}

pub struct RowWrite<'a, R> {
    /// The columns. Fields that Harvest did not send have the row's values.
    pub record: Arc<R>,
    /// Where the record comes from; its `raw` and `hash` are stored unchanged.
    pub fetched: &'a Fetched<R>,
    pub version: i64,
    /// The change to emit; `None` updates the row without an event.
    pub change: Option<Change<R>>,
}

impl<R> RowWrite<'_, R> {
    /// Raises the version above `last`, the last version of the record's events and history. It is above the row's version
    /// if the row was deleted, or its version lowered, manually.
    pub fn continue_after(&mut self, last: i64) {
        if let Some(change) = &mut self.change {
            change.continue_after(last);
            self.version = change.version;
        }
    }
}

/// Compares fetched records with their rows and returns the rows to write, ordered by id. `stored` holds at least the rows of
/// the fetched ids.
///
/// Order and repetition of the fetched records do not matter. Of several states of one record the newest `updated_at` counts,
/// and the last of equal ones. [`unstorable`] records are ignored.
pub fn plan<'a, R: Record>(
    stored: &HashMap<i64, MirrorRow<R>>,
    fetched: impl IntoIterator<Item = &'a Fetched<R>>,
) -> Vec<RowWrite<'a, R>> {
    newest(fetched)
        .into_iter()
        .filter_map(|fetched| match stored.get(&fetched.id()) {
            Some(row) if !row.deleted => update(row, fetched),
            Some(tombstone) => recreate(tombstone, fetched),
            None if unstorable(&*fetched.record).is_some() => None,
            None => {
                let record = Arc::clone(&fetched.record);
                let change = Some(Change::creation(Arc::clone(&record), 1));
                Some(RowWrite { record, fetched, version: 1, change })
            }
        })
        .collect()
}

/// Deletions of the live rows among these, ordered by id. Harvest has confirmed each.
pub fn tombstones<R: Record>(stored: HashMap<i64, MirrorRow<R>>) -> Vec<Change<R>> {
    let mut changes: Vec<Change<R>> = stored
        .into_values()
        .filter(|row| !row.deleted)
        .map(|row| Change::deletion(row.record, row.version + 1))
        .collect();
    changes.sort_by_key(Change::id);
    changes
}

/// Why a record without a live row cannot be stored. rosterd never guesses whether a user is active. If a live row exists, an
/// absent `is_active` keeps the row's value.
pub fn unstorable<R: Record>(first_seen: &R) -> Option<&'static str> {
    (first_seen.is_active() == &Field::Absent).then_some("first seen without is_active")
}

fn update<'a, R: Record>(row: &MirrorRow<R>, fetched: &'a Fetched<R>) -> Option<RowWrite<'a, R>> {
    if fetched.authority.respects(&row.record) && is_older(&*fetched.record, &row.record) {
        return None;
    }
    let record = R::clone(&fetched.record).or_known(&row.record);
    if record.fields() != row.record.fields() {
        let version = row.version + 1;
        let record = Arc::new(record);
        let change = Change::edit(Arc::new(row.record.clone()), Arc::clone(&record), version);
        return Some(RowWrite { record, fetched, version, change: Some(change) });
    }
    // Only columns without events differ: `updated_at`, `avatar_url`, or fields that rosterd does not know.
    let differs = fetched.hash != row.hash || record.quiet() != row.record.quiet();
    differs.then(|| RowWrite {
        record: Arc::new(record.with_emitted_fields_of(&row.record)),
        fetched,
        version: row.version,
        change: None,
    })
}

/// A filtered list recreates a deleted record only if its `updated_at` has changed, since a delayed replica of Harvest may
/// still list it. A record that Harvest restored with its old `updated_at` is found by the count check.
fn recreate<'a, R: Record>(tombstone: &MirrorRow<R>, fetched: &'a Fetched<R>) -> Option<RowWrite<'a, R>> {
    let (old, new) = (tombstone.record.updated_at(), fetched.record.updated_at());
    let is_newer = new > old || new.is_none();
    if unstorable(&*fetched.record).is_some() || fetched.authority.respects(&tombstone.record) && !is_newer {
        return None;
    }
    let record = Arc::new(R::clone(&fetched.record).or_known(&tombstone.record));
    let version = tombstone.version + 1;
    let change = Some(Change::creation(Arc::clone(&record), version));
    Some(RowWrite { record, fetched, version, change })
}

/// Whether `a` has an earlier `updated_at` than `b`. A record without one is never older: better to apply it than to lose it.
fn is_older<R: Record>(a: &R, b: &R) -> bool {
    matches!((a.updated_at(), b.updated_at()), (Some(a), Some(b)) if a < b)
}

/// One state of each record, ordered by id.
fn newest<'a, R: Record>(fetched: impl IntoIterator<Item = &'a Fetched<R>>) -> Vec<&'a Fetched<R>> {
    let mut by_id: HashMap<i64, &Fetched<R>> = HashMap::new();
    for record in fetched {
        match by_id.get(&record.id()) {
            Some(best) if is_older(&*record.record, &*best.record) => {}
            _ => _ = by_id.insert(record.id(), record),
        }
    }
    let mut newest: Vec<_> = by_id.into_values().collect();
    newest.sort_unstable_by_key(|fetched| fetched.id());
    newest
}
