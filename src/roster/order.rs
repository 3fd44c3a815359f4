//! Which of two answers about one record is the newer one.
//!
//! Harvest's `updated_at` does not say: it has whole seconds, and Harvest's hosts disagree about the time. Pages are
//! requested before their turn, so a record may be read by id, or written, while an older page that shows it is on its way.
//! Therefore each request of an account takes a number when it is sent, and a write takes one when its answer arrives. Of two
//! answers about one record the one with the higher number counts, in whatever order they are stored.
//!
//! The numbers are in memory only: another process that takes the account over sends requests of its own, and what this one
//! has still in flight cannot be committed any more.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::model::Resource;

/// The place of a request in the order in which an account's requests were sent. 0 is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(u64);

impl Seq {
    /// The number of this request. What came without one is older than all.
    pub fn of(request: Option<&Request>) -> Self {
        request.map_or_else(Self::default, Request::asked)
    }
}

/// The order of one account's requests. Clones are the same one: the client takes the numbers, the writer compares them.
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
    /// Takes the next number.
    pub fn sent(&self) -> Sent {
        let mut state = self.state();
        state.last += 1;
        let seq = Seq(state.last);
        state.in_flight.insert(seq);
        Sent { seq, order: self.clone() }
    }

    /// Whether an older request than this one is in flight: then only the account's lock says which answer is stored first.
    pub fn has_older(&self, than: Seq) -> bool {
        self.state().has_older(than)
    }

    /// Whether a newer answer about this record has been stored. To be asked under the account's lock.
    pub fn is_outdated(&self, resource: Resource, id: i64, asked: Seq) -> bool {
        self.state().stored.get(&(resource, id)).is_some_and(|stored| asked < *stored)
    }

    /// Notes that these records are stored as answered. To be called under the account's lock and before the commit, so that
    /// no other writer comes in between. If the commit fails, the cycle fails and reads them again.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_older(&self, than: Seq) -> bool {
        self.in_flight.first().is_some_and(|oldest| *oldest < than)
    }
}

impl Sent {
    /// The number.
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

/// What Harvest was asked, such as `GET /v2/users/1001`, to explain where a change comes from, and its place in the order.
/// The request is in flight as long as anything of its answer is in memory.
#[derive(Clone)]
pub struct Request(Arc<Asked>);

struct Asked {
    name: String,
    sent: Option<Sent>,
}

impl Request {
    /// A request that was sent.
    pub fn new(name: String, sent: Sent) -> Self {
        Self(Arc::new(Asked { name, sent: Some(sent) }))
    }

    /// What was asked.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// When it was sent.
    pub fn asked(&self) -> Seq {
        self.0.sent.as_ref().map_or_else(Seq::default, Sent::seq)
    }
}

/// A request that has no place in the order: every other answer is newer.
impl From<&str> for Request {
    fn from(name: &str) -> Self {
        Self(Arc::new(Asked { name: name.to_owned(), sent: None }))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
