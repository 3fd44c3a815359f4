//! Smoothing, by governor: a long read is spread over its window instead of leaving as one shot.
//!
//! It is not the law and cannot be. It counts what is *sent*, so a delay on the way lets requests of two
//! windows arrive in one; it knows nothing of other processes; and it starts with a full burst in each new
//! one. It also wakes its waiters in no order, which is why one at a time asks it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep};

use super::Limits;

pub(super) struct Smoother {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<std::time::Instant>>,
}

impl Smoother {
    /// Three times the allowed rate, with a burst of a tenth: nothing is slowed over a window.
    pub(super) fn new(limits: &Limits) -> Self {
        let period = limits.window / limits.requests.saturating_mul(3).max(1);
        let burst = NonZeroU32::new(limits.chunk()).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)));
        let quota = quota.unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst);
        Self { limiter: RateLimiter::direct_with_clock(quota, TokioClock) }
    }

    /// Waits until one more may pass.
    pub(super) async fn pass(&self) {
        while let Err(not_until) = self.limiter.check() {
            sleep(not_until.wait_time_from(TokioClock.now())).await;
        }
    }
}

/// tokio's clock, so that tests with paused time see one time.
#[derive(Clone, Copy)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::super::simulation::{SECOND, micros, worst_window};
    use super::*;

    /// Half the limit at once and half the rate looks safe, and is not as soon as the process starts again;
    /// nor is one at a time, as soon as the road is uneven.
    #[test]
    fn governor_alone_breaks_the_law() {
        /// A greedy sender, started anew `starts` times within a second.
        fn sent(quota: Quota, starts: u64) -> Vec<u64> {
            let clock = FakeRelativeClock::default();
            let limiter = || RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut limit, mut now, mut started, mut sent) = (limiter(), 0, 1, Vec::new());
            while now < 60 * SECOND {
                match limit.check() {
                    Ok(()) => sent.push(now),
                    Err(_) if started < starts => (limit, started) = (limiter(), started + 1),
                    Err(not_until) => {
                        let wait = not_until.wait_time_from(clock.now()).max(Duration::from_micros(1));
                        clock.advance(wait);
                        now += micros(wait);
                    }
                }
            }
            sent
        }

        let halves =
            Quota::with_period(Duration::from_millis(300)).unwrap().allow_burst(50.try_into().unwrap());
        assert!(worst_window(&sent(halves, 1)) <= 100);
        assert!(worst_window(&sent(halves, 2)) > 100, "one restart");

        let single =
            Quota::with_period(Duration::from_millis(151)).unwrap().allow_burst(1.try_into().unwrap());
        let mut requests = sent(single, 1);
        assert!(worst_window(&requests) <= 100);
        for at in &mut requests {
            *at = (*at).max(2 * SECOND); // one stalled connection
        }
        assert!(worst_window(&requests) > 100, "one stall of two seconds");
    }
}
