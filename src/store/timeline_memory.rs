//! What this process knows about events and leases, and what it concludes about a promoted server.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

/// An event's place. The same number can be another event in another stream or on another timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub stream: Uuid,
    pub timeline: i32,
    pub seq: i64,
}

/// All leases, as this process last saw them.
#[derive(Debug)]
struct SeenLeases {
    timeline: i32,
    digest: i64,
    /// Until then no process takes over a lease of this process.
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    /// The last event that this process saw or tried to commit.
    last: Option<Position>,
    leases: Option<SeenLeases>,
    /// How often this process began or ended the release of a lease.
    pub releases: u64,
    pub replica: Option<Uuid>,
    /// An event of this stream was committed to a server that another one had replaced.
    is_split: bool,
}

/// What this process knows about events and leases, regardless of the server.
#[derive(Clone, Debug, Default)]
pub(super) struct TimelineMemory(Arc<Mutex<Known>>);

/// The server's timeline, and the one of the last write.
#[derive(Debug)]
pub(super) struct TimelineState {
    pub in_recovery: bool,
    pub system: i64,
    pub timeline: i32,
    pub head_system: Option<i64>,
    pub head_timeline: Option<i32>,
    pub stream: Uuid,
    pub seq: i64,
    pub timeline_seq: i64,
    /// Of all leases; read only for a registered process.
    pub leases: Option<i64>,
    /// How long this process's lease lasts, in seconds.
    pub lease_left: Option<f64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server of the last write.
    Same,
    /// Nothing was written yet.
    First,
    /// A promotion. This process can rule out that an event was lost that it or a later holder of its leases wrote.
    Kept,
    /// A promotion, and this process can rule out nothing.
    Unknown,
    /// Another cluster, or one without an event that this process knows.
    Lost,
}

impl TimelineState {
    fn is_same(&self) -> bool {
        self.head_system == Some(self.system) && self.head_timeline == Some(self.timeline)
    }

    /// The last event that was written before this timeline.
    fn last_before(&self) -> i64 {
        if self.is_same() { self.timeline_seq } else { self.seq }
    }
}

impl Known {
    fn lacks(&self, server: &TimelineState) -> bool {
        self.last.is_some_and(|last| {
            last.stream == server.stream
                && (self.is_split || last.timeline < server.timeline && last.seq > server.last_before())
        })
    }

    pub fn verdict(&self, server: &TimelineState, now: Instant) -> Verdict {
        let is_known =
            |last: &Position| last.stream == server.stream && Some(last.timeline) == server.head_timeline;
        let is_unchanged = |leases: &SeenLeases| {
            Some(leases.timeline) == server.head_timeline
                && Some(leases.digest) == server.leases
                && now < leases.until
        };
        if self.lacks(server) {
            Verdict::Lost
        } else if server.head_system.is_none() {
            Verdict::First
        } else if server.is_same() {
            Verdict::Same
        } else if server.head_system != Some(server.system) {
            Verdict::Lost
        } else if self.last.as_ref().is_some_and(is_known) && self.leases.as_ref().is_some_and(is_unchanged) {
            Verdict::Kept
        } else {
            Verdict::Unknown
        }
    }

    /// Must be called before the COMMIT of the event is sent, because the answer may be lost.
    fn commits(&mut self, event: Position) {
        let Some(last) = &mut self.last else {
            self.last = Some(event);
            return;
        };
        match (last.timeline.cmp(&event.timeline), last.stream == event.stream) {
            (Ordering::Equal, true) => last.seq = last.seq.max(event.seq),
            (Ordering::Equal, false) => *last = event,
            (Ordering::Greater, is_same_stream) => self.is_split |= is_same_stream,
            // The other holders have continued the stream; the next look at the server compares with it first.
            (Ordering::Less, _) => {}
        }
    }

    /// Remembers the state of the server that wrote last. `asked`: when the state was requested, and [`Self::releases`] at
    /// that time.
    pub fn sees(&mut self, server: &TimelineState, replica: Option<Uuid>, asked: (Instant, u64)) {
        // A commit may have been sent to the old server since the verdict.
        let lacks = self.lacks(server);
        let known = self.last.filter(|last| last.stream == server.stream && last.timeline == server.timeline);
        let seq = known.map_or(server.seq, |last| last.seq.max(server.seq));
        self.last = Some(Position { stream: server.stream, timeline: server.timeline, seq });
        self.is_split = lacks;
        if replica.is_some() {
            self.replica = replica;
            let until = server.lease_left.and_then(|left| Duration::try_from_secs_f64(left).ok());
            let is_released = self.releases != asked.1;
            self.leases = until.zip(server.leases).filter(|_| !is_released).map(|(left, digest)| {
                SeenLeases { timeline: server.timeline, digest, until: asked.0 + left }
            });
        }
    }
}

impl TimelineMemory {
    /// The lock must not be held across an `await`.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }

    pub(super) fn commits(&self, event: Position) {
        self.known().commits(event);
    }

    /// Forgets the leases before and after the release of one, because another process may take it at once. A state that
    /// was requested in between does not count.
    pub(super) fn releasing(&self) -> Releasing<'_> {
        self.forget_leases();
        Releasing(self)
    }

    fn forget_leases(&self) {
        let mut known = self.known();
        known.leases = None;
        known.releases += 1;
    }
}

pub(super) struct Releasing<'a>(&'a TimelineMemory);

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        self.0.forget_leases();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: Option<Uuid> = Some(Uuid::max());

    /// A server on its first timeline, with ten events.
    fn primary() -> TimelineState {
        TimelineState {
            in_recovery: false,
            system: 7,
            timeline: 1,
            head_system: Some(7),
            head_timeline: Some(1),
            stream: Uuid::nil(),
            seq: 10,
            timeline_seq: 0,
            leases: Some(99),
            lease_left: Some(15.0),
        }
    }

    /// A standby of it after its promotion.
    fn promoted() -> TimelineState {
        TimelineState { timeline: 2, ..primary() }
    }

    fn event(timeline: i32, seq: i64) -> Position {
        Position { stream: Uuid::nil(), timeline, seq }
    }

    /// What a process knows that has just looked at the primary.
    fn known(now: Instant) -> Known {
        let mut known = Known::default();
        known.sees(&primary(), REPLICA, (now, 0));
        known
    }

    #[test]
    fn promotion_is_confirmed_until_the_lease_expires_and_while_no_lease_changes() {
        let now = Instant::now();
        let known = known(now);
        let later = now + Duration::from_secs(15);
        assert_eq!(known.verdict(&primary(), later), Verdict::Same);
        assert_eq!(known.verdict(&promoted(), now), Verdict::Kept);
        assert_eq!(known.verdict(&promoted(), later), Verdict::Unknown);
        assert_eq!(known.verdict(&TimelineState { leases: Some(98), ..promoted() }, now), Verdict::Unknown);
        assert_eq!(Known::default().verdict(&promoted(), now), Verdict::Unknown);
        // The stream and the timeline of the last write must be the known ones.
        let other_stream = TimelineState { stream: Uuid::max(), ..promoted() };
        assert_eq!(known.verdict(&other_stream, now), Verdict::Unknown);
        let third = TimelineState { timeline: 3, head_timeline: Some(2), ..promoted() };
        assert_eq!(known.verdict(&third, now), Verdict::Unknown);
        let other_cluster = TimelineState { system: 8, timeline: 1, ..promoted() };
        assert_eq!(known.verdict(&other_cluster, now), Verdict::Lost);
        let unused = TimelineState { head_system: None, head_timeline: None, ..primary() };
        assert_eq!(Known::default().verdict(&unused, now), Verdict::First);
    }

    #[test]
    fn process_that_released_a_lease_confirms_no_promotion() {
        let now = Instant::now();
        let memory = TimelineMemory::default();
        memory.known().sees(&primary(), REPLICA, (now, 0));
        assert_eq!(memory.known().verdict(&promoted(), now), Verdict::Kept);
        let releasing = memory.releasing();
        assert_eq!(memory.known().verdict(&promoted(), now), Verdict::Unknown);
        let asked = (now, memory.known().releases);
        drop(releasing);
        memory.known().sees(&primary(), REPLICA, asked);
        assert_eq!(
            memory.known().verdict(&promoted(), now),
            Verdict::Unknown,
            "the lease was not released then"
        );
        let asked = (now, memory.known().releases);
        memory.known().sees(&primary(), REPLICA, asked);
        assert_eq!(memory.known().verdict(&promoted(), now), Verdict::Kept);
    }

    #[test]
    fn event_that_the_promoted_server_lacks_is_lost_even_if_others_continued() {
        let now = Instant::now();
        let mut known = known(now);
        known.commits(event(1, 11));
        known.commits(event(1, 9));
        assert_eq!(known.verdict(&primary(), now), Verdict::Same, "its COMMIT may have failed");
        assert_eq!(known.verdict(&promoted(), now), Verdict::Lost);
        assert_eq!(known.verdict(&TimelineState { seq: 11, ..promoted() }, now), Verdict::Kept);
        let continued = TimelineState { head_timeline: Some(2), seq: 12, timeline_seq: 10, ..promoted() };
        assert_eq!(known.verdict(&continued, now), Verdict::Lost);
        let with_event = TimelineState { timeline_seq: 11, ..continued };
        assert_eq!(known.verdict(&with_event, now), Verdict::Same);
    }

    #[test]
    fn event_committed_to_the_old_server_after_the_promotion_is_lost() {
        let now = Instant::now();
        let mut known = known(now);
        let continued = TimelineState { head_timeline: Some(2), timeline_seq: 10, ..promoted() };
        known.sees(&continued, REPLICA, (now, 0));
        assert_eq!(known.verdict(&continued, now), Verdict::Same);
        known.commits(event(1, 11));
        assert_eq!(known.verdict(&continued, now), Verdict::Lost);
        let new_stream = TimelineState { stream: Uuid::max(), ..continued };
        known.sees(&new_stream, REPLICA, (now, 0));
        assert_eq!(known.verdict(&new_stream, now), Verdict::Same);
    }

    #[test]
    fn commit_between_the_verdict_and_the_next_look_is_remembered() {
        let now = Instant::now();
        let mut known = known(now);
        known.commits(event(1, 11));
        let continued = TimelineState { head_timeline: Some(2), timeline_seq: 10, ..promoted() };
        known.sees(&continued, REPLICA, (now, 0));
        assert_eq!(known.verdict(&continued, now), Verdict::Lost);
    }
}
