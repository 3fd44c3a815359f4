//! Rows in the order of their ids, close together: a million of them are read in milliseconds.

use crate::clock::Stamp;

/// What lists are filtered and ordered by.
pub(crate) trait Row {
    fn key(&self) -> i64;
    fn is_active(&self) -> bool;
    fn updated_at(&self) -> Stamp;
}

/// A table. Ids grow with time and are never used twice, so "newest first" is the table backwards.
pub(crate) struct Table<R> {
    rows: Vec<R>,
    next_key: i64,
}

impl<R: Row> Table<R> {
    pub fn starting_at(first_key: i64) -> Self {
        Self { rows: Vec::new(), next_key: first_key }
    }

    /// Adds the row that `make` makes of the next id.
    pub fn add(&mut self, make: impl FnOnce(i64) -> R) -> i64 {
        let key = self.next_key;
        self.next_key += 1;
        self.rows.push(make(key));
        key
    }

    pub fn get(&self, key: i64) -> Option<&R> {
        self.rows.binary_search_by_key(&key, Row::key).ok().map(|index| &self.rows[index])
    }

    pub fn get_mut(&mut self, key: i64) -> Option<&mut R> {
        self.rows.binary_search_by_key(&key, Row::key).ok().map(|index| &mut self.rows[index])
    }

    /// Whether there was such a row to remove.
    pub fn remove(&mut self, key: i64) -> bool {
        let found = self.rows.binary_search_by_key(&key, Row::key);
        if let Ok(index) = found {
            self.rows.remove(index);
        }
        found.is_ok()
    }

    pub fn retain(&mut self, keep: impl FnMut(&R) -> bool) {
        self.rows.retain(keep);
    }

    /// All rows, oldest first.
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    pub fn rows_mut(&mut self) -> &mut [R] {
        &mut self.rows
    }
}
