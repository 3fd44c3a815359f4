//! The ids of a list: as a hash set, a million of them would take 19 MiB.

use roaring::RoaringTreemap;

/// A set of Harvest's ids, which are positive.
#[derive(Clone, Debug, Default)]
pub struct IdSet(RoaringTreemap);

impl IdSet {
    /// Whether the id was not in the set before.
    pub fn insert(&mut self, id: i64) -> bool {
        self.0.insert(id.cast_unsigned())
    }

    pub fn contains(&self, id: i64) -> bool {
        self.0.contains(id.cast_unsigned())
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<i64> for IdSet {
    fn extend<I: IntoIterator<Item = i64>>(&mut self, ids: I) {
        self.0.extend(ids.into_iter().map(i64::cast_unsigned));
    }
}

impl FromIterator<i64> for IdSet {
    fn from_iter<I: IntoIterator<Item = i64>>(ids: I) -> Self {
        Self(ids.into_iter().map(i64::cast_unsigned).collect())
    }
}
