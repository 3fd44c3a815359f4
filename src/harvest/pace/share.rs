//! How much of the budget to use when a stranger shares the limit.
//!
//! We never exceed our budget, so a 429 says that somebody outside of it (another tool on the same token,
//! another host behind the same address) uses the limit too. Halve at once, keep quiet for five minutes,
//! then come back by a twentieth of the budget a minute.

use std::time::Duration;

use tokio::time::Instant;

const QUIET: Duration = Duration::from_mins(5);
const STEP: Duration = Duration::from_mins(1);
/// Steps from nothing to all.
const STEPS: u64 = 20;

/// The part of a budget that is used.
pub(super) struct Share {
    permits: u32,
    /// When the part was last cut, and to how many permits.
    cut: Option<(Instant, u32)>,
}

impl Share {
    /// All of `permits`.
    pub(super) fn new(permits: u32) -> Self {
        Self { permits, cut: None }
    }

    /// Permits that may be used now.
    pub(super) fn usable(&self, now: Instant) -> u32 {
        let Some((at, left)) = self.cut else { return self.permits };
        let quiet = now.saturating_duration_since(at).saturating_sub(QUIET);
        let steps = quiet.as_secs() / STEP.as_secs();
        let back = (u64::from(self.permits) * steps.min(STEPS)).div_ceil(STEPS);
        u64::from(left).saturating_add(back).min(self.permits.into()).try_into().unwrap_or(self.permits)
    }

    /// A request was refused with 429. One that was granted before the last cut tells nothing new.
    pub(super) fn refused(&mut self, granted: Instant, now: Instant) {
        if self.cut.is_none_or(|(at, _)| granted > at) {
            self.cut = Some((now, (self.usable(now) / 2).max(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = STEP;

    #[test]
    fn a_refusal_halves_for_five_minutes_and_the_rest_returns_bit_by_bit() {
        let now = Instant::now();
        let mut share = Share::new(95);
        share.refused(now, now);
        assert_eq!(share.usable(now), 47);
        assert_eq!(share.usable(now + 6 * MINUTE - Duration::from_nanos(1)), 47);
        assert_eq!(share.usable(now + 6 * MINUTE), 52);
        assert_eq!(share.usable(now + 7 * MINUTE), 57);
        assert_eq!(share.usable(now + 16 * MINUTE), 95);
        assert_eq!(share.usable(now + 10_000 * MINUTE), 95);
    }

    #[test]
    fn requests_that_were_under_way_at_the_cut_do_not_cut_again() {
        let sent = Instant::now();
        let now = sent + Duration::from_secs(1);
        let mut share = Share::new(95);
        for _ in 0..10 {
            share.refused(sent, now);
        }
        assert_eq!(share.usable(now), 47);
        share.refused(now + MINUTE, now + MINUTE);
        assert_eq!(share.usable(now + MINUTE), 23);
    }

    proptest! {
        #[test]
        fn something_is_always_left_and_never_more_than_all(
            permits in 1_u32..10_000,
            waits in prop::collection::vec(0_u64..3_600, 0..50),
        ) {
            let mut now = Instant::now();
            let mut share = Share::new(permits);
            for wait in waits {
                let before = share.usable(now);
                now += Duration::from_secs(wait);
                prop_assert!(share.usable(now) >= before);
                share.refused(now, now);
                prop_assert!((1..=permits).contains(&share.usable(now)));
            }
            prop_assert_eq!(share.usable(now + QUIET + MINUTE * 20), permits);
        }
    }
}
