//! The limiter task: registers this process in the database by heartbeats, connects its rate limiters to their budgets
//! there, returns permits that it does not need, and shares Harvest's back-off.

mod database;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use self::database::Database;
use crate::harvest::rate_limit::{PermitTable, RateLimiter, RateLimits};
use crate::roster::permits::{PermitRequest, Returned, Taken};
use crate::store::Pool;
use crate::store::permits::{self, Replica};

/// Limit of each statement when the process stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Connects the rate limiters of this process to the shared request budgets. If it is dropped, as in a crash, the
/// process's permits become free by themselves.
pub struct LimiterTask {
    replica: Uuid,
    limiters: HashMap<String, RateLimiter>,
    heartbeats: watch::Receiver<HeartbeatStatus>,
    task: Option<(CancellationToken, AbortOnDropHandle<()>)>,
}

/// The registration of this process in `roster.replicas`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatStatus {
    /// When the last successful heartbeat was sent.
    pub beat_at: Option<Instant>,
    /// How often the process was registered. With each registration after the first, it may have lost its leases.
    pub registrations: u64,
    /// Until when this process may take permits.
    alive_until: Option<Instant>,
}

impl LimiterTask {
    /// Registers `replica` and starts the task with a budget for each of `names`. Without heartbeats for `ttl`, other
    /// processes consider the replica dead, and it takes no permits.
    pub fn start(
        pool: Pool,
        replica: Replica,
        ttl: Duration,
        limits: RateLimits,
        names: impl IntoIterator<Item = String>,
    ) -> Self {
        let (id, paused, database) = (replica.id, Arc::<Notify>::default(), Arc::new(Database::new(ttl / 3)));
        let (sender, heartbeats) = watch::channel(HeartbeatStatus::default());
        let jitter = jitter(&replica, limits.window);
        let limiter = |name: String| {
            let (pool, heartbeats, database) = (pool.clone(), heartbeats.clone(), database.clone());
            let table = BudgetTable { name: name.clone(), pool, replica: id, heartbeats, database };
            (name, RateLimiter::new(limits, jitter, Box::new(table), paused.clone()))
        };
        let names: HashSet<String> = names.into_iter().collect();
        let limiters: HashMap<String, RateLimiter> = names.into_iter().map(limiter).collect();
        let limiter = Limiter {
            pool,
            replica,
            ttl,
            limits,
            limiters: limiters.clone(),
            paused,
            heartbeats: sender,
            database,
        };
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(limiter.run(stop.clone())));
        Self { replica: id, limiters, heartbeats, task: Some((stop, task)) }
    }

    /// Budgets that only this process uses, for a database without the tables of shared budgets.
    pub(crate) fn local(limits: RateLimits, names: impl IntoIterator<Item = String>) -> Self {
        let limiters = names.into_iter().map(|name| (name, RateLimiter::local(limits))).collect();
        let heartbeats = watch::channel(HeartbeatStatus::default()).1;
        Self { replica: Uuid::new_v4(), limiters, heartbeats, task: None }
    }

    pub(crate) fn replica(&self) -> Uuid {
        self.replica
    }

    pub fn limiter(&self, name: &str) -> Option<RateLimiter> {
        self.limiters.get(name).cloned()
    }

    /// The channel closes when the task ends.
    pub fn heartbeats(&self) -> watch::Receiver<HeartbeatStatus> {
        self.heartbeats.clone()
    }

    /// Waits for the first heartbeat. Other processes consider this one dead until then, and would take its leases.
    pub async fn registered(&self) {
        // Fails if the task has ended, which `stop` reports.
        let _ = self.heartbeats.clone().wait_for(|heartbeats| heartbeats.registrations > 0).await;
    }

    /// Grants no more permits, returns the unused ones and deregisters the process.
    pub async fn stop(self) {
        if let Some((stop, task)) = self.task {
            stop.cancel();
            if let Err(error) = task.await {
                warn!(%error, "the limiter task has failed");
            }
        }
    }
}

/// Up to a fifteenth of the window, derived from the replica's random id.
fn jitter(replica: &Replica, window: Duration) -> Duration {
    let random = u32::from(replica.id.as_bytes()[15]);
    window / 15 * random / 256
}

/// The permit table of a budget, in the database.
struct BudgetTable {
    name: String,
    pool: Pool,
    replica: Uuid,
    heartbeats: watch::Receiver<HeartbeatStatus>,
    database: Arc<Database>,
}

impl PermitTable for BudgetTable {
    fn take<'a>(&'a self, request: &'a PermitRequest) -> BoxFuture<'a, Option<Taken>> {
        async {
            // A process that is not registered may have lost its leases.
            if self.heartbeats.borrow().alive_until.is_none_or(|until| until <= Instant::now()) {
                return None;
            }
            self.database.run(permits::take(&self.pool, self.replica, &self.name, request)).await
        }
        .boxed()
    }
}

struct Limiter {
    pool: Pool,
    replica: Replica,
    ttl: Duration,
    limits: RateLimits,
    limiters: HashMap<String, RateLimiter>,
    paused: Arc<Notify>,
    heartbeats: watch::Sender<HeartbeatStatus>,
    database: Arc<Database>,
}

impl Limiter {
    async fn run(self, stop: CancellationToken) {
        // Any statement may be dropped half-way: an unknown outcome does no harm.
        let work = async { tokio::join!(self.send_heartbeats(), self.report_to_budgets()) };
        let _ = stop.run_until_cancelled(Box::pin(work)).await;
        self.limiters.values().for_each(RateLimiter::close);
        let database = Database::new(self.database.timeout.min(STOP_TIMEOUT));
        self.report(&database).await;
        let _ = database.run(permits::unregister(&self.pool, self.replica.id)).await;
    }

    async fn send_heartbeats(&self) {
        let mut ticks = interval(self.ttl / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.heartbeat().await;
        }
    }

    async fn heartbeat(&self) {
        // Measured before the statement is sent, because the database starts to count `ttl` later.
        let sent_at = Instant::now();
        let heartbeat = permits::heartbeat(&self.pool, &self.replica, self.ttl);
        let Some(was_alive) = self.database.run_heartbeat(heartbeat).await else { return };
        self.heartbeats.send_modify(|heartbeats| {
            // After a repeated registration, workers that may have lost their lease check it first. Requests may be sent
            // after the next heartbeat.
            if was_alive || heartbeats.registrations == 0 {
                heartbeats.alive_until = Some(sent_at + self.ttl);
            }
            heartbeats.beat_at = Some(sent_at);
            // The answer to the first registration may have been lost.
            heartbeats.registrations += u64::from(!was_alive || heartbeats.registrations == 0);
        });
    }

    async fn report_to_budgets(&self) {
        let mut ticks = interval(self.limits.window / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.paused.notified() => {}
            }
            self.report(&self.database).await;
        }
    }

    /// Records the pauses of the rate limiters and the permits that they do not need any more.
    async fn report(&self, database: &Database) {
        let mut all = Returned::default();
        for (name, limiter) in &self.limiters {
            let Returned { answered, free_in, unused } = limiter.take_returned();
            all.answered.extend(answered);
            all.free_in.extend(free_in);
            all.unused.extend(unused);
            if let Some(until) = limiter.unrecorded_pause() {
                let pause = permits::pause(&self.pool, name, until.saturating_duration_since(Instant::now()));
                if database.run(pause).await.is_some() {
                    limiter.pause_recorded(until);
                }
            }
        }
        if all != Returned::default() {
            let _ = database.run(permits::give_back(&self.pool, &all)).await;
        }
    }
}
