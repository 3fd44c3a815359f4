use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::roster::permits::{PermitRequest, Taken};

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: RateLimits =
    RateLimits { requests: 100, window: Duration::from_secs(15), reserve: 5, grace: Duration::from_secs(8) };

/// How long this many permits take.
async fn waited_for(limiter: &RateLimiter, priority: Priority, permits: u32) -> Duration {
    let before = Instant::now();
    for _ in 0..permits {
        limiter.permit(priority).await.answered(StatusCode::OK, None);
    }
    before.elapsed()
}

#[tokio::test(start_paused = true)]
async fn local_limiter_sends_a_burst_then_the_budget_at_three_times_the_rate_and_waits_for_the_window() {
    let limiter = RateLimiter::local(LIMITS);
    assert!(waited_for(&limiter, Priority::Poll, 10).await < SECOND / 100);
    let rest = waited_for(&limiter, Priority::Poll, 85).await;
    assert!(rest > LIMITS.window / 4 && rest < LIMITS.window / 2, "{rest:?}");
    assert!(waited_for(&limiter, Priority::Poll, 1).await > LIMITS.window / 2);
}

#[tokio::test(start_paused = true)]
async fn requests_of_all_priorities_wait_for_the_retry_after_of_a_429() {
    let limiter = RateLimiter::local(LIMITS);
    limiter.permit(Priority::Poll).await.answered(StatusCode::TOO_MANY_REQUESTS, Some(30 * SECOND));
    let before = Instant::now();
    let _permits = tokio::join!(limiter.permit(Priority::Poll), limiter.permit(Priority::Background));
    assert!(before.elapsed() >= 30 * SECOND);
    assert!(limiter.unrecorded_pause().is_some(), "until the database has it");
}

#[tokio::test(start_paused = true)]
async fn usable_permits_are_halved_by_a_429_but_not_by_a_503() {
    let window = LIMITS.window;
    for (status, retry_after, permits) in
        [(StatusCode::TOO_MANY_REQUESTS, None, 47), (StatusCode::SERVICE_UNAVAILABLE, Some(window), 95)]
    {
        let limiter = RateLimiter::local(LIMITS);
        limiter.permit(Priority::Poll).await.answered(status, retry_after);
        let paused = waited_for(&limiter, Priority::Poll, 1).await;
        assert!(paused >= window, "the pause of one window: {paused:?}");
        sleep(SECOND).await;
        assert!(waited_for(&limiter, Priority::Poll, permits - 1).await < LIMITS.window / 2);
        assert!(waited_for(&limiter, Priority::Poll, 1).await > LIMITS.window / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn long_reads_leave_a_third_of_the_permits_only_while_a_poll_is_due_within_a_window() {
    let now = Instant::now();
    for (next_poll, most) in [(Some(now), 63), (Some(now + LIMITS.window * 2), 95), (None, 95)] {
        let limiter = RateLimiter::local(LIMITS);
        limiter.set_next_poll(next_poll);
        waited_for(&limiter, Priority::Background, most).await;
        assert!(timeout(SECOND, limiter.permit(Priority::Background)).await.is_err());
        assert!(timeout(5 * SECOND, waited_for(&limiter, Priority::Poll, 95 - most)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn permits_that_were_waited_for_are_returned_if_no_request_uses_them() {
    let limits = RateLimits { requests: 9, reserve: 0, ..LIMITS };
    let limiter = RateLimiter::local(limits);
    let has = async |requests| {
        timeout(SECOND, limiter.wait_for_capacity(Priority::Background, requests)).await.is_ok()
    };
    assert!(has(99).await && has(6).await, "more than the share of six counts as the share");
    assert!(timeout(SECOND, limiter.permit(Priority::Background)).await.is_ok(), "one of them");
    sleep(limits.use_within()).await;
    assert_eq!(limiter.take_returned().unused.len(), 5);
    assert!(waited_for(&limiter, Priority::Poll, 3).await < LIMITS.window / 3);
    limiter.close();
    assert!(timeout(60 * SECOND, limiter.permit(Priority::Poll)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn callers_are_served_in_order_of_arrival() {
    let limiter = RateLimiter::local(RateLimits { requests: 1, reserve: 0, ..LIMITS });
    let served = Mutex::new(Vec::new());
    let call = async |caller| {
        let permit = limiter.permit(Priority::Poll).await;
        served.lock().push(caller);
        permit.answered(StatusCode::OK, None);
    };
    tokio::join!(call(0), call(1), call(2), call(3));
    assert_eq!(*served.lock(), [0, 1, 2, 3]);
}

// ---- the invariant in simulated time ----

/// Processes that share a table, with delays and losses of messages, timeouts, crashes and stops.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    processes: usize,
    /// Requests that a process has in flight at once.
    callers: usize,
    /// The longest delay to Harvest and back; the client gives up after the grace.
    up: Duration,
    down: Duration,
    /// The longest delay to the database, and back.
    database: Duration,
    /// Messages to or from the database that are lost, of 100.
    lost: u32,
    /// The longest time until a process crashes or stops.
    life: Duration,
    /// By how much the database's clock is faster, in thousandths.
    drift: u32,
}

#[derive(Clone)]
struct World {
    conditions: Conditions,
    table: Arc<LocalTable>,
    rng: Arc<Mutex<StdRng>>,
    /// When Harvest handled each request.
    handled: Arc<Mutex<Vec<Instant>>>,
}

impl World {
    /// The extremes are as likely as all values between, because faults are at the extremes.
    fn random(&self, most: Duration) -> Duration {
        let mut rng = self.rng.lock();
        match rng.random_range(0..4) {
            0 => Duration::ZERO,
            1 => most,
            _ => most.mul_f64(rng.random()),
        }
    }

    /// The time of a message from or to the database; `None` if it is lost.
    async fn message(&self) -> Option<()> {
        sleep(self.random(self.conditions.database)).await;
        (self.rng.lock().random_range(0..100) >= self.conditions.lost).then_some(())
    }

    async fn caller(self, limiter: RateLimiter, priority: Priority) {
        loop {
            let permit = limiter.permit(priority).await;
            let (up, down) = (self.random(self.conditions.up), self.random(self.conditions.down));
            self.handled.lock().push(Instant::now() + up);
            match timeout(LIMITS.grace, sleep(up + down)).await {
                Ok(()) => permit.answered(StatusCode::OK, None),
                Err(_) => drop(permit),
            }
        }
    }

    /// One process after the other, for ever.
    async fn processes(self) {
        loop {
            let mut callers = JoinSet::new();
            let limiter = RateLimiter::new(LIMITS, Duration::ZERO, Box::new(self.clone()), Arc::default());
            for caller in 0..self.conditions.callers {
                let priority = if caller % 4 == 3 { Priority::Background } else { Priority::Poll };
                callers.spawn(self.clone().caller(limiter.clone(), priority));
            }
            let end = Instant::now() + self.random(self.conditions.life).max(SECOND);
            while Instant::now() < end {
                sleep(LIMITS.use_within()).await;
                let returned = limiter.take_returned();
                let _ = self.take(&PermitRequest { returned, ..PermitRequest::default() }).await;
            }
        }
    }

    /// Simulates five minutes; returns when Harvest handled each request, from the first.
    fn simulate(conditions: Conditions, seed: u64) -> Vec<Instant> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rng = Arc::new(StdRng::seed_from_u64(seed).into());
            let world = Self { conditions, table: Arc::default(), rng, handled: Arc::default() };
            let processes = (0..conditions.processes).map(|_| world.clone().processes());
            let _ = timeout(300 * SECOND, processes.collect::<JoinSet<_>>().join_all()).await;
            let mut handled = std::mem::take(&mut *world.handled.lock());
            handled.sort_unstable();
            handled
        })
    }
}

impl PermitTable for World {
    fn take<'a>(&'a self, request: &'a PermitRequest) -> BoxFuture<'a, Option<Taken>> {
        async {
            self.message().await?;
            let faster = |secs: &f64| secs * (1.0 - f64::from(self.conditions.drift) / 1000.0);
            let mut request = request.clone();
            request.hold = request.hold.mul_f64(faster(&1.0));
            request.returned.free_in = request.returned.free_in.iter().map(faster).collect();
            let taken = self.table.take_now(&request, Instant::now());
            self.message().await?;
            Some(taken)
        }
        .boxed()
    }
}

/// The most requests in any closed window.
fn worst_window(handled: &[Instant]) -> usize {
    let within =
        |(first, at): (usize, &Instant)| handled[first..].partition_point(|it| *it <= *at + LIMITS.window);
    handled.iter().enumerate().map(within).max().unwrap_or_default()
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let up_to = |seconds: u64| {
        let most = seconds * 1000;
        prop_oneof![Just(0), Just(most), 0..=most].prop_map(Duration::from_millis)
    };
    let sizes = (1_usize..=4, 1_usize..=20, 0_u32..=30, prop_oneof![Just(0), Just(7_u32)]);
    (sizes, up_to(8), up_to(16), up_to(10), up_to(120)).prop_map(|(sizes, up, down, database, life)| {
        let (processes, callers, lost, drift) = sizes;
        Conditions { processes, callers, up, down, database, lost, life, drift }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_window_has_more_requests_than_the_budget(conditions in conditions(), seed: u64) {
        let worst = worst_window(&World::simulate(conditions, seed));
        prop_assert!(worst <= LIMITS.permits() as usize, "{worst} requests in one window");
    }
}

/// One process that reads as fast as the limiter allows, on an ordinary day.
const ORDINARY: Conditions = Conditions {
    processes: 1,
    callers: 3,
    up: Duration::from_millis(50),
    down: Duration::from_millis(300),
    database: Duration::from_millis(10),
    lost: 0,
    life: Duration::from_hours(1),
    drift: 0,
};

#[test]
fn long_read_uses_more_than_85_percent_of_the_limit() {
    let handled = World::simulate(ORDINARY, 1);
    assert!(handled.len() > 100 * 20 * 85 / 100, "{}", handled.len());
}

#[test]
fn crashed_process_blocks_only_its_requests_in_flight() {
    let handled = World::simulate(Conditions { life: 40 * SECOND, ..ORDINARY }, 1);
    let longest = handled.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < LIMITS.window + SECOND, "no request for {longest:?}");
}
