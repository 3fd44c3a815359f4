//! Smooths bursts with governor: the requests of a long read are spread over the window.
//!
//! A token bucket cannot ensure the limit. It counts requests when they are *sent*, so delays can make the requests of
//! two windows arrive in one. It does not know of other processes, and each new process starts with a full burst.
//! governor wakes its waiters in no order, so the queues of the rate limiter let one request at a time wait here.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep};

use super::limits::RateLimits;

pub(super) struct TokenBucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<std::time::Instant>>,
}

impl TokenBucket {
    /// Three times the allowed rate with bursts of a tenth, so that it never reduces the requests per window.
    pub(super) fn new(limits: &RateLimits) -> Self {
        let period = limits.window / limits.requests.saturating_mul(3).max(1);
        let burst = NonZeroU32::new(limits.burst()).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)));
        let quota = quota.unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst);
        Self { limiter: RateLimiter::direct_with_clock(quota, TokioClock) }
    }

    pub(super) async fn pass(&self) {
        while let Err(not_until) = self.limiter.check() {
            sleep(not_until.wait_time_from(TokioClock.now())).await;
        }
    }
}

/// tokio's clock, which tests can pause.
#[derive(Clone, Copy)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}
