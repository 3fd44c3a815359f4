//! Rows in the order of their ids, close together: a million of them are read in milliseconds. And, apart
//! from them, what was written but does not show yet.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::moment::Shows;
use crate::clock::Stamp;

/// What rows are found and ordered by.
pub(crate) trait Keyed {
    fn key(&self) -> i64;

    /// The id of the record, where the order is another one.
    fn id(&self) -> i64 {
        self.key()
    }
}

/// What lists are filtered by.
pub(crate) trait Row: Keyed {
    fn is_active(&self) -> bool;
    fn updated_at(&self) -> Stamp;
}

/// A table. Ids grow with time and are never used twice, so "newest first" is the table backwards.
///
/// Each write makes a whole new version of its row out of the newest one, shown or not. So a version that
/// shows holds everything written before it, and an older one that would show after it never does.
pub(crate) struct Table<R> {
    rows: Vec<R>,
    /// In the order of writing; of one row, also in the order of showing.
    waiting: Vec<Waiting<R>>,
    next_key: i64,
}

struct Waiting<R> {
    from: DateTime<Utc>,
    version: R,
}

impl<R: Keyed + Clone> Table<R> {
    pub fn starting_at(first_key: i64) -> Self {
        Self { rows: Vec::new(), waiting: Vec::new(), next_key: first_key }
    }

    /// The next row gets an id that is so much higher.
    pub fn skip(&mut self, keys: i64) {
        self.next_key += keys;
    }

    /// Adds the row that `make` makes of the next id.
    pub fn add(&mut self, shows: Shows, make: impl FnOnce(i64) -> R) -> i64 {
        let key = self.next_key;
        self.next_key += 1;
        self.put(make(key), shows);
        key
    }

    /// The row as it shows.
    pub fn get(&self, key: i64) -> Option<&R> {
        self.place(key).ok().map(|index| &self.rows[index])
    }

    /// The row as it was last written, whether that shows or not.
    pub fn newest(&self, key: i64) -> Option<&R> {
        let waiting = self.waiting.iter().rev().map(|waiting| &waiting.version);
        waiting.into_iter().find(|version| version.key() == key).or_else(|| self.get(key))
    }

    /// The ids of the rows of which any version, shown or not, is `wanted`.
    pub fn keys(&self, wanted: impl Fn(&R) -> bool) -> BTreeSet<i64> {
        let waiting = self.waiting.iter().map(|waiting| &waiting.version);
        self.rows.iter().chain(waiting).filter(|row| wanted(row)).map(Keyed::key).collect()
    }

    /// Writes a new version; says whether there was such a row.
    pub fn edit(&mut self, key: i64, shows: Shows, edit: impl FnOnce(&mut R)) -> bool {
        let Some(mut version) = self.newest(key).cloned() else { return false };
        edit(&mut version);
        self.put(version, shows);
        true
    }

    /// Removes a row that shows or is about to.
    pub fn remove(&mut self, key: i64) {
        self.waiting.retain(|waiting| waiting.version.key() != key);
        if let Ok(index) = self.place(key) {
            self.rows.remove(index);
        }
    }

    /// Removes all rows but those to `keep`, and those that are about to show likewise.
    pub fn retain(&mut self, keep: impl Fn(&R) -> bool) {
        self.rows.retain(&keep);
        self.waiting.retain(|waiting| keep(&waiting.version));
    }

    /// All rows that show, oldest first.
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Shows what was to show by `now`.
    pub fn surface(&mut self, now: DateTime<Utc>) {
        let due: Vec<_> = self.waiting.extract_if(.., |waiting| waiting.from <= now).collect();
        for Waiting { version, .. } in due {
            self.show(version);
        }
    }

    /// Writes a whole version, of a row that is there or of a new one.
    pub fn put(&mut self, version: R, shows: Shows) {
        let key = version.key();
        let versions = || self.waiting.iter().filter(|waiting| waiting.version.key() == key);
        let shows = match versions().next() {
            // A row that does not show yet does not show earlier for being written again.
            Some(first) if self.place(key).is_err() => shows.max(Shows::From(first.from)),
            _ => shows,
        };
        self.waiting.retain(|waiting| waiting.version.key() != key || Shows::From(waiting.from) < shows);
        match shows {
            Shows::AtOnce => self.show(version),
            Shows::From(from) => self.waiting.push(Waiting { from, version }),
        }
    }

    fn show(&mut self, version: R) {
        match self.place(version.key()) {
            Ok(index) => self.rows[index] = version,
            Err(index) => self.rows.insert(index, version),
        }
    }

    fn place(&self, key: i64) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&key, Keyed::key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, and everything that was ever written to it.
    #[derive(Clone, Debug, PartialEq)]
    struct Note(i64, Vec<u8>);

    impl Keyed for Note {
        fn key(&self) -> i64 {
            self.0
        }
    }

    fn second(seconds: i64) -> DateTime<Utc> {
        Stamp::from_unix(seconds).datetime()
    }

    fn from(seconds: i64) -> Shows {
        Shows::From(second(seconds))
    }

    fn shown_at(table: &mut Table<Note>, seconds: i64) -> Vec<Note> {
        table.surface(second(seconds));
        table.rows().to_vec()
    }

    #[test]
    fn rows_that_show_late_come_to_their_place() {
        let mut table = Table::starting_at(1);
        let late = table.add(from(5), |key| Note(key, vec![]));
        let early = table.add(Shows::AtOnce, |key| Note(key, vec![]));
        assert_eq!(shown_at(&mut table, 4), [Note(early, vec![])]);
        assert_eq!((table.get(late), table.newest(late)), (None, Some(&Note(late, vec![]))));
        assert_eq!(shown_at(&mut table, 5), [Note(late, vec![]), Note(early, vec![])]);
    }

    #[test]
    fn the_later_version_of_two_wins_as_a_whole_whichever_was_to_show_first() {
        for (first, second, halfway) in [(3, 6, vec![1]), (6, 3, vec![1, 2]), (6, 6, vec![])] {
            let mut table = Table::starting_at(1);
            let key = table.add(Shows::AtOnce, |key| Note(key, vec![]));
            table.edit(key, from(first), |note| note.1.push(1));
            table.edit(key, from(second), |note| note.1.push(2));
            assert_eq!(shown_at(&mut table, 3), [Note(key, halfway)]);
            assert_eq!(shown_at(&mut table, 6), [Note(key, vec![1, 2])]);
            assert!(table.waiting.is_empty());
        }
    }

    #[test]
    fn a_write_that_shows_at_once_shows_what_was_written_before_it() {
        let mut table = Table::starting_at(1);
        let key = table.add(Shows::AtOnce, |key| Note(key, vec![]));
        table.edit(key, from(9), |note| note.1.push(1));
        table.edit(key, Shows::AtOnce, |note| note.1.push(2));
        assert_eq!(table.rows(), [Note(key, vec![1, 2])]);
        assert_eq!(shown_at(&mut table, 9), [Note(key, vec![1, 2])]);
    }

    #[test]
    fn a_row_that_does_not_show_yet_waits_for_its_creation_whatever_is_written_to_it() {
        let mut table = Table::starting_at(1);
        let key = table.add(from(5), |key| Note(key, vec![]));
        table.edit(key, from(2), |note| note.1.push(1));
        table.edit(key, from(8), |note| note.1.push(2));
        assert_eq!(shown_at(&mut table, 4), []);
        assert_eq!(shown_at(&mut table, 5), [Note(key, vec![1])]);
        table.edit(key, Shows::AtOnce, |note| note.1.push(3));
        assert_eq!(table.rows(), [Note(key, vec![1, 2, 3])]);
    }

    #[test]
    fn what_is_removed_does_not_show_again() {
        let mut table = Table::starting_at(1);
        let shown = table.add(Shows::AtOnce, |key| Note(key, vec![]));
        let hidden = table.add(from(5), |key| Note(key, vec![]));
        let other = table.add(from(5), |key| Note(key, vec![7]));
        table.edit(shown, from(5), |note| note.1.push(1));
        table.remove(shown);
        table.remove(hidden);
        table.retain(|note| note.1.is_empty());
        assert_eq!(shown_at(&mut table, 9), []);
        assert_eq!(table.newest(other), None);
        assert!(!table.edit(shown, Shows::AtOnce, |_| ()));
    }
}
