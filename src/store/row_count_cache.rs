//! The row counts of each account at its last poll.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::roster::AccountId;

/// Counts older than this are not used. Rows that an administrator changed manually emit no event, so only counting
/// again shows the change.
const MAX_AGE: Duration = Duration::from_mins(10);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowsByState {
    pub active: i64,
    pub inactive: i64,
    pub deleted: i64,
}

impl RowsByState {
    pub fn live(self) -> i64 {
        self.active + self.inactive
    }
}

/// From an array of the three counts in this order.
impl From<Vec<i64>> for RowsByState {
    fn from(counts: Vec<i64>) -> Self {
        let mut counts = counts.into_iter();
        let [active, inactive, deleted] = std::array::from_fn(|_| counts.next().unwrap_or_default());
        Self { active, inactive, deleted }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowsOfLists {
    pub users: RowsByState,
    pub assignments: RowsByState,
}

/// An account's rows, and the head of the outbox when they were counted. rosterd emits an event for each record that it
/// creates or deletes, so the counts hold until the next event. This saves counting a million rows at each poll.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Instant,
    stream: Uuid,
    seq: i64,
    rows: RowsOfLists,
}

/// The last counts by account. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub(super) struct RowCountCache(Arc<Mutex<HashMap<AccountId, Counted>>>);

impl RowCountCache {
    /// The last counts, unless they are too old.
    pub fn recent(&self, account: AccountId) -> Option<RowsOfLists> {
        self.counted(account).map(|counted| counted.rows)
    }

    /// The last counts, if they are recent and the outbox still has this head.
    pub fn at(&self, account: AccountId, stream: Uuid, seq: i64) -> Option<RowsOfLists> {
        let counted = self.counted(account)?;
        ((counted.stream, counted.seq) == (stream, seq)).then_some(counted.rows)
    }

    /// `stream` and `seq`: the head of the outbox, read before the rows were counted.
    pub fn set(&self, account: AccountId, stream: Uuid, seq: i64, rows: RowsOfLists) {
        self.0.lock().insert(account, Counted { at: Instant::now(), stream, seq, rows });
    }

    fn counted(&self, account: AccountId) -> Option<Counted> {
        self.0.lock().get(&account).copied().filter(|counted| counted.at.elapsed() < MAX_AGE)
    }
}
