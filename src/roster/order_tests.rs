//! Random interleavings of reads and writes, as the writer stores them. Requests are sent, handled by a model of Harvest and
//! stored in any order; other users of Harvest change records meanwhile.

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::roster::{Authority, Fetched, Field, MirrorRow, User, plan, tombstones};

const IDS: [i64; 3] = [1, 2, 3];

#[derive(Clone, Debug)]
enum Step {
    /// A user of Harvest changes a record.
    Edit(i64),
    /// A user of Harvest deletes a record.
    Delete(i64),
    /// A list is requested, by changes or whole.
    List(Authority),
    /// A record is requested by id.
    Get(i64),
    /// A change is requested, done, and answered; the answer is not stored yet.
    Write(i64),
    /// Harvest handles a request: the answer is what there is now.
    Handle(usize),
    /// An answer is stored.
    Store(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || prop::sample::select(&IDS[..]);
    // Harvest's clock at the time of the request matters only for records from the future.
    let authority = prop::sample::select(vec![
        Authority::Full,
        Authority::Incremental { now: DateTime::from_timestamp(0, 0).expect("a time") },
        Authority::Incremental { now: DateTime::<chrono::Utc>::MAX_UTC },
    ]);
    let step = prop_oneof![
        3 => id().prop_map(Step::Edit),
        1 => id().prop_map(Step::Delete),
        3 => authority.prop_map(Step::List),
        2 => id().prop_map(Step::Get),
        2 => id().prop_map(Step::Write),
        4 => (0..8_usize).prop_map(Step::Handle),
        4 => (0..8_usize).prop_map(Step::Store),
    ];
    prop::collection::vec(step, 0..60)
}

/// A record at Harvest: how often it was changed, and whether it is gone. Several changes share a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Truth {
    changes: i64,
    is_gone: bool,
}

impl Truth {
    fn change(&mut self) {
        self.changes += i64::from(!self.is_gone);
    }

    fn delete(&mut self) {
        self.change();
        self.is_gone = true;
    }

    fn state(self, id: i64, authority: Authority) -> Fetched<User> {
        let record = User {
            id,
            first_name: Field::Value(self.changes.to_string()),
            is_active: Field::Value(true),
            updated_at: Field::Value(DateTime::from_timestamp(self.changes / 3, 0).expect("a time")),
            ..User::default()
        };
        let raw = serde_json::value::to_raw_value(&self.changes).expect("JSON");
        Fetched { record: Arc::new(record), raw, hash: self.changes, project: None, authority, request: None }
    }
}

/// A request in flight.
struct Flight {
    sent: Sent,
    ids: Vec<i64>,
    authority: Authority,
    is_list: bool,
    /// The records at Harvest when the request got its number.
    before: HashMap<i64, Truth>,
    answer: Option<HashMap<i64, Truth>>,
}

#[derive(Default)]
struct World {
    order: Order,
    harvest: HashMap<i64, Truth>,
    mirror: HashMap<i64, MirrorRow<User>>,
    flights: Vec<Flight>,
    /// The oldest states that the mirror may show.
    floor: HashMap<i64, i64>,
    /// Whether Harvest handles requests in the order in which they were sent.
    in_order: bool,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Edit(id) => self.harvest.entry(*id).or_default().change(),
            Step::Delete(id) => self.harvest.entry(*id).or_default().delete(),
            Step::List(authority) => self.send(IDS.to_vec(), *authority, true),
            Step::Get(id) => self.send(vec![*id], Authority::Full, false),
            Step::Write(id) => {
                self.handle_before(usize::MAX);
                self.harvest.entry(*id).or_default().change();
                self.send(vec![*id], Authority::Full, false);
                let written = self.flights.len() - 1;
                self.flights[written].answer = Some(self.harvest.clone());
            }
            Step::Handle(nth) => {
                let mut open = (0..self.flights.len()).filter(|it| self.flights[*it].answer.is_none());
                if let Some(flight) = open.nth(*nth) {
                    self.handle_before(flight);
                    self.flights[flight].answer = Some(self.harvest.clone());
                }
            }
            Step::Store(nth) => {
                let mut answered = (0..self.flights.len()).filter(|it| self.flights[*it].answer.is_some());
                if let Some(flight) = answered.nth(*nth) {
                    let flight = self.flights.remove(flight);
                    self.store(&flight);
                }
            }
        }
    }

    fn send(&mut self, ids: Vec<i64>, authority: Authority, is_list: bool) {
        let (sent, before) = (self.order.sent(), self.harvest.clone());
        self.flights.push(Flight { sent, ids, authority, is_list, before, answer: None });
    }

    fn handle_before(&mut self, flight: usize) {
        for earlier in self.flights.iter_mut().take(if self.in_order { flight } else { 0 }) {
            earlier.answer.get_or_insert_with(|| self.harvest.clone());
        }
    }

    /// As `sync::mirror` does it.
    fn store(&mut self, flight: &Flight) {
        let (asked, answer) = (flight.sent.seq(), flight.answer.as_ref().expect("an answer"));
        let mut stored = Vec::new();
        for id in &flight.ids {
            let Some(truth) = answer.get(id) else { continue };
            let known = self.mirror.get(id).cloned();
            let is_same = |row: &MirrorRow<_>| row.hash == truth.changes && !row.deleted;
            let equal = !truth.is_gone && known.as_ref().is_some_and(is_same);
            if flight.is_list && truth.is_gone || equal && !self.order.has_older(asked) {
                continue;
            }
            if self.order.is_outdated(Resource::Users, *id, asked) {
                continue;
            }
            stored.push((*id, asked));
            let rows: HashMap<_, _> = known.clone().map(|row| (*id, row)).into_iter().collect();
            if truth.is_gone {
                for deletion in tombstones(rows) {
                    let row = self.mirror.get_mut(id).expect("a row");
                    (row.version, row.deleted, row.hash) = (deletion.version, true, truth.changes);
                }
            } else {
                let fetched = [truth.state(*id, flight.authority)];
                for write in plan(&rows, &fetched) {
                    if self.in_order
                        && let Some(known) = &known
                    {
                        assert!(known.hash < write.fetched.hash, "an event sets {id} back");
                    }
                    let (version, hash) = (write.version, write.fetched.hash);
                    let record = Arc::unwrap_or_clone(write.record);
                    self.mirror.insert(*id, MirrorRow { record, version, hash, deleted: false });
                }
            }
        }
        self.order.stored(Resource::Users, stored);
        for id in &flight.ids {
            let is_conclusive = answer.get(id).is_some_and(|truth| !(flight.is_list && truth.is_gone));
            if is_conclusive
                && self.mirror.contains_key(id)
                && let Some(before) = flight.before.get(id)
            {
                let floor = self.floor.entry(*id).or_default();
                *floor = before.changes.max(*floor);
            }
        }
        for (id, floor) in &self.floor {
            let row = self.mirror[id].hash;
            assert!(row >= *floor, "{id} is at {row}, and was requested when it was at {floor}");
        }
    }

    /// All requests in flight are answered, then one more poll is stored.
    fn end(&mut self) {
        while !self.flights.is_empty() {
            self.step(&Step::Handle(0));
            self.step(&Step::Store(0));
        }
        let gone = IDS.into_iter().filter(|id| self.harvest.get(id).is_some_and(|it| it.is_gone));
        let last: Vec<Step> = [Step::List(Authority::Full)].into_iter().chain(gone.map(Step::Get)).collect();
        for step in last {
            self.step(&step);
            self.step(&Step::Handle(0));
            self.step(&Step::Store(0));
        }
        for (id, truth) in &self.harvest {
            let row = self.mirror.get(id).map(|row| Truth { changes: row.hash, is_gone: row.deleted });
            assert!(row == Some(*truth) || row.is_none() && truth.is_gone, "{id}: {row:?} and not {truth:?}");
        }
        assert!(self.order.state().stored.is_empty() && self.order.state().in_flight.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    /// However late an answer is stored, the mirror is never older than Harvest was when the latest answer that is stored
    /// was requested, nor older than a write that is stored; and in the end it is what Harvest has. If Harvest handles
    /// requests in the order in which they were sent, no event takes a record back to an older state.
    #[test]
    fn interleaved_reads_and_writes_never_take_the_mirror_back(steps in steps(), in_order in any::<bool>()) {
        let mut world = World { in_order, ..World::default() };
        for step in &steps {
            world.step(step);
        }
        world.end();
    }
}

#[test]
fn numbers_are_kept_only_as_long_as_an_older_request_is_in_flight() {
    let order = Order::default();
    let (page, by_id) = (order.sent(), order.sent());
    order.stored(Resource::Users, [(1, by_id.seq())]);
    assert!(order.is_outdated(Resource::Users, 1, page.seq()));
    assert!(!order.is_outdated(Resource::Users, 2, page.seq()), "another record");
    assert!(!order.is_outdated(Resource::Assignments, 1, page.seq()), "another list");
    drop(by_id);
    assert!(order.is_outdated(Resource::Users, 1, page.seq()), "the page is in flight");
    drop(page);
    assert!(order.state().stored.is_empty());
    let alone = order.sent();
    order.stored(Resource::Users, [(1, alone.seq())]);
    assert!(order.state().stored.is_empty(), "there is no older answer to come");
}
