//! The completion window: which slots are in use.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use super::Lane;

/// Slots in use: taken before a send, and free again a cooldown after the response.
pub(super) struct Window {
    cooldown: Duration,
    grace: Duration,
    /// By lane: sent, and neither answered nor given up.
    in_flight: [u32; 2],
    /// By lane: resting.
    resting: [u32; 2],
    /// When each resting slot is free again, the next one on top.
    free_at: BinaryHeap<Reverse<(Instant, Lane)>>,
}

impl Window {
    pub(super) fn new(cooldown: Duration, grace: Duration) -> Self {
        Self { cooldown, grace, in_flight: [0; 2], resting: [0; 2], free_at: BinaryHeap::new() }
    }

    /// Whether so many of `capacity` slots are free for this lane, or as many as it can have at all.
    pub(super) fn has_room(&mut self, now: Instant, lane: Lane, capacity: u32, requests: u32) -> bool {
        let most = match lane {
            Lane::Poll => capacity.max(1),
            Lane::Background => background(capacity),
        };
        let requests = requests.min(most);
        self.used(now) + requests <= capacity && (lane == Lane::Poll || self.used_by(lane) + requests <= most)
    }

    /// Takes one of `capacity` slots, or none.
    pub(super) fn take(&mut self, now: Instant, lane: Lane, capacity: u32) -> bool {
        let free = self.has_room(now, lane, capacity, 1);
        if free {
            self.in_flight[lane as usize] += 1;
        }
        free
    }

    /// A request was answered: its slot rests for one cooldown.
    pub(super) fn answered(&mut self, now: Instant, lane: Lane) {
        self.rest(lane, now + self.cooldown);
    }

    /// A request was given up: Harvest may see it up to a grace from now, and its slot rests accordingly.
    pub(super) fn abandoned(&mut self, now: Instant, lane: Lane) {
        self.rest(lane, now + self.grace + self.cooldown);
    }

    /// Slots in use.
    pub(super) fn used(&mut self, now: Instant) -> u32 {
        while let Some(&Reverse((free_at, lane))) = self.free_at.peek()
            && free_at <= now
        {
            self.free_at.pop();
            self.resting[lane as usize] -= 1;
        }
        self.used_by(Lane::Poll) + self.used_by(Lane::Background)
    }

    /// When the next resting slot is free; none while all are in flight or unused.
    pub(super) fn next_free(&self) -> Option<Instant> {
        self.free_at.peek().map(|&Reverse((at, _))| at)
    }

    /// For how long from now some slot is in use, if every request in flight is given up now.
    pub(super) fn busy_for(&self, now: Instant) -> Duration {
        let resting = self.free_at.iter().map(|Reverse((at, _))| at.saturating_duration_since(now)).max();
        let flying = self.in_flight.iter().any(|&n| n > 0).then_some(self.grace + self.cooldown);
        resting.max(flying).unwrap_or_default()
    }

    fn used_by(&self, lane: Lane) -> u32 {
        self.in_flight[lane as usize] + self.resting[lane as usize]
    }

    fn rest(&mut self, lane: Lane, until: Instant) {
        self.in_flight[lane as usize] -= 1;
        self.resting[lane as usize] += 1;
        self.free_at.push(Reverse((until, lane)));
    }
}

/// The background's part of `capacity`: two thirds, and never nothing.
fn background(capacity: u32) -> u32 {
    (capacity - capacity.div_ceil(3)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(15);
    const GRACE: Duration = Duration::from_secs(30);

    proptest! {
        /// Greedy senders, any delays there and back: the theorem.
        #[test]
        fn no_window_holds_more_than_the_capacity(
            capacity in 1_u32..20,
            delays in prop::collection::vec((0_u64..6_000, 0_u64..6_000, any::<bool>()), 1..400),
        ) {
            let start = Instant::now();
            let mut window = Window::new(WINDOW + WINDOW / 64, GRACE);
            let mut now = start;
            let mut handled = Vec::new();
            let mut endings = BinaryHeap::new();
            for (up, down, background) in delays {
                let lane = if background { Lane::Background } else { Lane::Poll };
                while !window.take(now, lane, capacity) {
                    // Time goes on to whatever comes first: an answer, or a slot that is free again.
                    let answer = endings.peek().map(|&Reverse((at, _))| at);
                    now = answer.into_iter().chain(window.next_free()).min().unwrap();
                    if answer == Some(now) {
                        let Reverse((_, lane)) = endings.pop().unwrap();
                        window.answered(now, lane);
                    }
                }
                let arrives = now + Duration::from_millis(up);
                handled.push(arrives - start);
                endings.push(Reverse((arrives + Duration::from_millis(down), lane)));
            }
            handled.sort_unstable();
            for (first, at) in handled.iter().enumerate() {
                let within = handled[first..].iter().take_while(|&&other| other <= *at + WINDOW).count();
                prop_assert!(within <= capacity as usize);
            }
        }
    }

    #[test]
    fn a_slot_is_free_again_one_cooldown_after_the_answer() {
        let start = Instant::now();
        let mut window = Window::new(WINDOW, GRACE);
        assert!(window.take(start, Lane::Poll, 1));
        let answered = start + Duration::from_mins(10);
        assert!(!window.take(answered, Lane::Poll, 1), "unanswered, however long ago");
        window.answered(answered, Lane::Poll);
        assert!(!window.take(answered + WINDOW - Duration::from_nanos(1), Lane::Poll, 1));
        assert!(window.take(answered + WINDOW, Lane::Poll, 1));
    }

    #[test]
    fn a_request_given_up_holds_its_slot_a_grace_longer() {
        let start = Instant::now();
        let mut window = Window::new(WINDOW, GRACE);
        assert!(window.take(start, Lane::Poll, 1));
        assert_eq!(window.busy_for(start), GRACE + WINDOW);
        window.abandoned(start, Lane::Poll);
        assert_eq!(window.next_free(), Some(start + GRACE + WINDOW));
        assert!(!window.take(start + WINDOW, Lane::Poll, 1));
        assert!(window.take(start + GRACE + WINDOW, Lane::Poll, 1));
    }

    #[test]
    fn background_leaves_a_third_to_polls() {
        let now = Instant::now();
        let mut window = Window::new(WINDOW, GRACE);
        let taken = (0..100).filter(|_| window.take(now, Lane::Background, 95)).count();
        assert_eq!(taken, 63);
        let polls = (0..100).filter(|_| window.take(now, Lane::Poll, 95)).count();
        assert_eq!(polls, 32);
        assert!(Window::new(WINDOW, GRACE).take(now, Lane::Background, 1), "one permit serves both lanes");
    }
}
