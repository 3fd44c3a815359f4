//! Events that were read together: which are sent, in which order, and how far they can be acknowledged.

use std::collections::{BTreeSet, HashMap};

use super::outcome::Outcome;
use crate::store::webhooks::WebhookEvent;

/// The events of one read, and what became of them.
pub(super) struct Window {
    /// `seq`, and whether the endpoint wants the event.
    events: Vec<(i64, bool)>,
    delivered: BTreeSet<i64>,
    /// Number of events that [`Self::take_ack`] has returned.
    acked: usize,
    /// The first failure, by `seq`, with its event.
    failed: Option<(WebhookEvent, Outcome)>,
}

impl Window {
    /// `delivered`: events that were accepted before, after one that was not.
    pub fn new(events: &[WebhookEvent], delivered: BTreeSet<i64>) -> Self {
        let events = events.iter().map(|event| (event.seq, event.data.is_some())).collect();
        Self { events, delivered, acked: 0, failed: None }
    }

    /// The events to send, in groups: one after the other within a group. With `in_flight` of 1 there is one group,
    /// otherwise one per record.
    pub fn groups(&self, events: Vec<WebhookEvent>, in_flight: usize) -> Vec<Vec<WebhookEvent>> {
        let mut groups: Vec<Vec<WebhookEvent>> = Vec::new();
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        let due = |event: &WebhookEvent| event.data.is_some() && !self.delivered.contains(&event.seq);
        for event in events.into_iter().filter(due) {
            let record = if in_flight == 1 {
                Default::default()
            } else {
                (event.aggregatetype.clone(), event.aggregateid.clone())
            };
            let place = *places.entry(record).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].push(event);
        }
        groups
    }

    pub fn note(&mut self, event: WebhookEvent, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => drop(self.delivered.insert(event.seq)),
            outcome if self.failed.as_ref().is_none_or(|(first, _)| event.seq < first.seq) => {
                self.failed = Some((event, outcome));
            }
            _ => {}
        }
    }

    /// Whether an event was not delivered. Then no other event may begin.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The last event that can be acknowledged, and the number of delivered events up to it. `None` if there is no
    /// new one.
    pub fn take_ack(&mut self) -> Option<(i64, i64)> {
        let is_done = |(seq, is_wanted): &&(i64, bool)| !is_wanted || self.delivered.contains(seq);
        let done = self.events[self.acked..].iter().take_while(is_done);
        let (count, delivered) =
            done.fold((0, 0), |(count, sum), event| (count + 1, sum + i64::from(event.1)));
        self.acked += count;
        (count > 0).then(|| (self.events[self.acked - 1].0, delivered))
    }

    pub fn is_done(&self) -> bool {
        self.acked == self.events.len()
    }

    /// The first failure, and the events that were delivered after it.
    pub fn into_rest(self) -> (Option<(WebhookEvent, Outcome)>, BTreeSet<i64>) {
        let first = self.events.get(self.acked).map_or(i64::MAX, |event| event.0);
        (self.failed, self.delivered.into_iter().filter(|seq| *seq >= first).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::without_response;
    use super::*;

    fn event(seq: i64, record: &str, is_wanted: bool) -> WebhookEvent {
        WebhookEvent {
            seq,
            id: uuid::Uuid::from_u128(u128::from(seq.unsigned_abs())),
            aggregatetype: "user".to_owned(),
            aggregateid: record.to_owned(),
            r#type: "user.updated".to_owned(),
            occurred_at: chrono::DateTime::UNIX_EPOCH,
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            data: is_wanted.then(|| "{}".to_owned()),
        }
    }

    fn events() -> Vec<WebhookEvent> {
        vec![
            event(5, "a", true),
            event(6, "b", false),
            event(7, "b", true),
            event(8, "a", true),
            event(9, "c", false),
        ]
    }

    fn seqs(groups: &[Vec<WebhookEvent>]) -> Vec<Vec<i64>> {
        groups.iter().map(|group| group.iter().map(|event| event.seq).collect()).collect()
    }

    #[test]
    fn groups_keep_the_order_of_all_events_or_of_each_record() {
        let window = Window::new(&events(), BTreeSet::new());
        assert_eq!(seqs(&window.groups(events(), 1)), [vec![5, 7, 8]]);
        assert_eq!(seqs(&window.groups(events(), 2)), [vec![5, 8], vec![7]]);
        let window = Window::new(&events(), BTreeSet::from([7]));
        assert_eq!(seqs(&window.groups(events(), 2)), [vec![5, 8]]);
    }

    #[test]
    fn ack_covers_the_contiguous_beginning_and_unwanted_events() {
        let mut window = Window::new(&events(), BTreeSet::new());
        assert_eq!(window.take_ack(), None);
        window.note(event(7, "b", true), Outcome::Delivered);
        assert_eq!(window.take_ack(), None, "event 5 is not delivered");
        window.note(event(5, "a", true), Outcome::Delivered);
        assert_eq!((window.take_ack(), window.take_ack()), (Some((7, 2)), None));
        window.note(event(8, "a", true), Outcome::Delivered);
        assert_eq!((window.take_ack(), window.is_done()), (Some((9, 1)), true));
        let unwanted = [event(1, "a", false), event(2, "a", false)];
        assert_eq!(Window::new(&unwanted, BTreeSet::new()).take_ack(), Some((2, 0)));
    }

    #[test]
    fn first_failure_counts_and_later_deliveries_are_remembered() {
        let mut window = Window::new(&events(), BTreeSet::new());
        window.note(event(8, "a", true), without_response("reset"));
        window.note(event(5, "a", true), without_response("timeout"));
        window.note(event(7, "b", true), Outcome::Delivered);
        assert_eq!(window.take_ack(), None);
        assert!(window.has_failed());
        let (failed, rest) = window.into_rest();
        assert_eq!(failed.map(|(event, _)| event.seq), Some(5));
        assert_eq!(rest, BTreeSet::from([7]));
    }
}
