//! Which of two answers about one record is newer.
//!
//! Harvest's `updated_at` cannot decide: it has whole seconds, and the clocks of Harvest's hosts differ. Pages are prefetched,
//! so a record can be read by id, or written, while an older page with the same record is in flight. Therefore each request of
//! an account gets a number when it is sent, and a write gets one when its answer arrives. Of two answers about one record the
//! one with the higher number counts, in any order of storing.
//!
//! The numbers are kept in memory only. If another process takes over the account, this process can no longer commit.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::model::Resource;

/// The place of a request in the order in which an account's requests were sent. 0 is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(u64);

impl Seq {
    /// The number of this request; without a request it is older than all others.
    pub fn of(request: Option<&SourceRequest>) -> Self {
        request.map_or_else(Self::default, SourceRequest::seq)
    }
}

/// The order of one account's requests. Clones share it: the client assigns the numbers, the mirror compares them.
#[derive(Clone, Default)]
pub struct Order(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    last: u64,
    in_flight: BTreeSet<Seq>,
    /// The number of the answer by which a record was stored last, as long as an older request is in flight.
    stored: HashMap<(Resource, i64), Seq>,
}

/// A request that was sent. It is in flight until this is dropped, which must not be before its answer is stored.
pub struct Sent {
    seq: Seq,
    order: Order,
}

impl Order {
    pub fn sent(&self) -> Sent {
        let mut state = self.state();
        state.last += 1;
        let seq = Seq(state.last);
        state.in_flight.insert(seq);
        Sent { seq, order: self.clone() }
    }

    /// Whether a request older than `than` is in flight. If so, only the account's lock decides which answer is stored first.
    pub fn has_older(&self, than: Seq) -> bool {
        self.state().has_older(than)
    }

    /// Whether a newer answer about this record has been stored. Call it under the account's lock.
    pub fn is_outdated(&self, resource: Resource, id: i64, asked: Seq) -> bool {
        self.state().stored.get(&(resource, id)).is_some_and(|stored| asked < *stored)
    }

    /// Notes that these records are stored as answered. Call it under the account's lock and before the commit, so that
    /// no other write can come between. If the commit fails, the cycle fails and reads them again.
    pub fn stored(&self, resource: Resource, records: impl IntoIterator<Item = (i64, Seq)>) {
        for (id, asked) in records {
            let mut state = self.state();
            if state.has_older(asked) {
                let stored = state.stored.entry((resource, id)).or_default();
                *stored = asked.max(*stored);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn has_older(&self, than: Seq) -> bool {
        self.in_flight.first().is_some_and(|oldest| *oldest < than)
    }
}

impl Sent {
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

/// The number of a stored answer is needed only while an older request is in flight.
impl Drop for Sent {
    fn drop(&mut self) {
        let State { in_flight, stored, .. } = &mut *self.order.state();
        in_flight.remove(&self.seq);
        let oldest = in_flight.first();
        stored.retain(|_, seq| oldest.is_some_and(|oldest| *oldest < *seq));
    }
}

/// A request such as `GET /v2/users/1001`, which explains where a change comes from, with its place in the order.
/// It counts as in flight while any part of its answer is in memory.
#[derive(Clone)]
pub struct SourceRequest(Arc<RequestLine>);

struct RequestLine {
    name: String,
    sent: Option<Sent>,
}

impl SourceRequest {
    pub fn new(name: String, sent: Sent) -> Self {
        Self(Arc::new(RequestLine { name, sent: Some(sent) }))
    }

    /// Method, path and query, such as `GET /v2/users/1001`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn seq(&self) -> Seq {
        self.0.sent.as_ref().map_or_else(Seq::default, Sent::seq)
    }
}

/// A request without a number: every other answer is newer.
impl From<&str> for SourceRequest {
    fn from(name: &str) -> Self {
        Self(Arc::new(RequestLine { name: name.to_owned(), sent: None }))
    }
}

impl fmt::Debug for SourceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
