//! A table of records: the visible rows in id order, and the pending versions that are not visible yet.
//!
//! The rows are in one vector, so a list of a million records is read in milliseconds.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::moment::VisibleFrom;
use crate::clock::Timestamp;

/// The key by which a table finds and orders its rows.
pub(crate) trait Keyed {
    fn key(&self) -> i64;

    /// The record's id. Override it if the rows have another order.
    fn id(&self) -> i64 {
        self.key()
    }
}

/// The fields by which lists filter.
pub(crate) trait Row: Keyed {
    fn is_active(&self) -> bool;
    fn updated_at(&self) -> Timestamp;
}

/// Ids increase and are never reused, so the reverse of the table is "newest first".
///
/// Each write copies the newest version of its row, visible or pending. A version therefore contains all
/// earlier writes. When it becomes visible, it discards the older versions of the row that are still pending.
pub(crate) struct Table<R> {
    rows: Vec<R>,
    /// In the order of writing. The versions of one row are also in the order in which they become visible.
    pending: Vec<Pending<R>>,
    next_key: i64,
}

struct Pending<R> {
    due: DateTime<Utc>,
    version: R,
}

impl<R: Keyed + Clone> Table<R> {
    pub fn starting_at(first_key: i64) -> Self {
        Self { rows: Vec::new(), pending: Vec::new(), next_key: first_key }
    }

    /// Leaves out this many ids.
    pub fn skip(&mut self, keys: i64) {
        self.next_key += keys;
    }

    /// Adds the row that `make` builds for the next id.
    pub fn add(&mut self, visible_from: VisibleFrom, make: impl FnOnce(i64) -> R) -> i64 {
        let key = self.next_key;
        self.next_key += 1;
        self.put(make(key), visible_from);
        key
    }

    /// The visible version of the row.
    pub fn get(&self, key: i64) -> Option<&R> {
        self.index_of(key).ok().map(|index| &self.rows[index])
    }

    /// The last written version of the row, visible or pending.
    pub fn newest(&self, key: i64) -> Option<&R> {
        let pending = self.pending.iter().rev().map(|pending| &pending.version);
        pending.into_iter().find(|version| version.key() == key).or_else(|| self.get(key))
    }

    /// The ids of the rows that have a version, visible or pending, for which `wanted` is true.
    pub fn keys(&self, wanted: impl Fn(&R) -> bool) -> BTreeSet<i64> {
        let pending = self.pending.iter().map(|pending| &pending.version);
        self.rows.iter().chain(pending).filter(|row| wanted(row)).map(Keyed::key).collect()
    }

    /// Writes a new version. Returns false if the row does not exist.
    pub fn edit(&mut self, key: i64, visible_from: VisibleFrom, edit: impl FnOnce(&mut R)) -> bool {
        let Some(mut version) = self.newest(key).cloned() else { return false };
        edit(&mut version);
        self.put(version, visible_from);
        true
    }

    /// Removes a row and its pending versions.
    pub fn remove(&mut self, key: i64) {
        self.pending.retain(|pending| pending.version.key() != key);
        if let Ok(index) = self.index_of(key) {
            self.rows.remove(index);
        }
    }

    /// Removes the visible rows and the pending versions for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&R) -> bool) {
        self.rows.retain(&keep);
        self.pending.retain(|pending| keep(&pending.version));
    }

    /// The visible rows, oldest first.
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Makes the versions visible that are due at `now`.
    pub fn apply_pending(&mut self, now: DateTime<Utc>) {
        let due: Vec<_> = self.pending.extract_if(.., |pending| pending.due <= now).collect();
        for Pending { version, .. } in due {
            self.make_visible(version);
        }
    }

    /// Writes a version of a new or an existing row.
    pub fn put(&mut self, version: R, visible_from: VisibleFrom) {
        let key = version.key();
        let versions = || self.pending.iter().filter(|pending| pending.version.key() == key);
        let visible_from = match versions().next() {
            // A write to a new row does not make the row visible before its creation is due.
            Some(first) if self.index_of(key).is_err() => visible_from.max(VisibleFrom::Time(first.due)),
            _ => visible_from,
        };
        self.pending
            .retain(|pending| pending.version.key() != key || VisibleFrom::Time(pending.due) < visible_from);
        match visible_from {
            VisibleFrom::Now => self.make_visible(version),
            VisibleFrom::Time(due) => self.pending.push(Pending { due, version }),
        }
    }

    fn make_visible(&mut self, version: R) {
        match self.index_of(version.key()) {
            Ok(index) => self.rows[index] = version,
            Err(index) => self.rows.insert(index, version),
        }
    }

    fn index_of(&self, key: i64) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&key, Keyed::key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and all values written to it.
    #[derive(Clone, Debug, PartialEq)]
    struct Note(i64, Vec<u8>);

    impl Keyed for Note {
        fn key(&self) -> i64 {
            self.0
        }
    }

    fn second(seconds: i64) -> DateTime<Utc> {
        Timestamp::from_unix(seconds).datetime()
    }

    fn at(seconds: i64) -> VisibleFrom {
        VisibleFrom::Time(second(seconds))
    }

    fn shown_at(table: &mut Table<Note>, seconds: i64) -> Vec<Note> {
        table.apply_pending(second(seconds));
        table.rows().to_vec()
    }

    #[test]
    fn delayed_row_appears_in_key_order() {
        let mut table = Table::starting_at(1);
        let late = table.add(at(5), |key| Note(key, vec![]));
        let early = table.add(VisibleFrom::Now, |key| Note(key, vec![]));
        assert_eq!(shown_at(&mut table, 4), [Note(early, vec![])]);
        assert_eq!((table.get(late), table.newest(late)), (None, Some(&Note(late, vec![]))));
        assert_eq!(shown_at(&mut table, 5), [Note(late, vec![]), Note(early, vec![])]);
    }

    #[test]
    fn later_of_two_pending_versions_wins() {
        for (first, second, halfway) in [(3, 6, vec![1]), (6, 3, vec![1, 2]), (6, 6, vec![])] {
            let mut table = Table::starting_at(1);
            let key = table.add(VisibleFrom::Now, |key| Note(key, vec![]));
            table.edit(key, at(first), |note| note.1.push(1));
            table.edit(key, at(second), |note| note.1.push(2));
            assert_eq!(shown_at(&mut table, 3), [Note(key, halfway)]);
            assert_eq!(shown_at(&mut table, 6), [Note(key, vec![1, 2])]);
            assert!(table.pending.is_empty());
        }
    }

    #[test]
    fn immediate_write_makes_earlier_writes_visible() {
        let mut table = Table::starting_at(1);
        let key = table.add(VisibleFrom::Now, |key| Note(key, vec![]));
        table.edit(key, at(9), |note| note.1.push(1));
        table.edit(key, VisibleFrom::Now, |note| note.1.push(2));
        assert_eq!(table.rows(), [Note(key, vec![1, 2])]);
        assert_eq!(shown_at(&mut table, 9), [Note(key, vec![1, 2])]);
    }

    #[test]
    fn pending_row_stays_invisible_until_its_creation_is_due() {
        let mut table = Table::starting_at(1);
        let key = table.add(at(5), |key| Note(key, vec![]));
        table.edit(key, at(2), |note| note.1.push(1));
        table.edit(key, at(8), |note| note.1.push(2));
        assert_eq!(shown_at(&mut table, 4), []);
        assert_eq!(shown_at(&mut table, 5), [Note(key, vec![1])]);
        table.edit(key, VisibleFrom::Now, |note| note.1.push(3));
        assert_eq!(table.rows(), [Note(key, vec![1, 2, 3])]);
    }

    #[test]
    fn removed_row_does_not_reappear() {
        let mut table = Table::starting_at(1);
        let shown = table.add(VisibleFrom::Now, |key| Note(key, vec![]));
        let hidden = table.add(at(5), |key| Note(key, vec![]));
        let other = table.add(at(5), |key| Note(key, vec![7]));
        table.edit(shown, at(5), |note| note.1.push(1));
        table.remove(shown);
        table.remove(hidden);
        table.retain(|note| note.1.is_empty());
        assert_eq!(shown_at(&mut table, 9), []);
        assert_eq!(table.newest(other), None);
        assert!(!table.edit(shown, VisibleFrom::Now, |_| ()));
    }
}
