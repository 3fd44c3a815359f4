//! A simulated Harvest, a real PostgreSQL, and rosterd's cycle, which a test runs explicitly (`world.cycle()`).
//!
//! Expectations read the database and the simulator's state, independently of the daemon's code.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use harvest_sim::{Company, Options, Sim};
use rosterd::clock::{Clock, SystemClock};
use rosterd::daemon::schedule;
use rosterd::harvest::rate_limit::{RateLimiter, RateLimits};
use rosterd::harvest::{AccessToken, Auth, Client, transport};
use rosterd::roster::{AccountId, DeletionGuard};
use rosterd::store::lease::Lease;
use rosterd::store::{Fence, Store};
use rosterd::sync::cycle::{Cycle, CycleMemory, SyncRules};
use rosterd::sync::mirror::PostgresMirror;
use rosterd::sync::report::{CycleMode, CycleReport};
use secrecy::SecretString;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{TestDatabase, store};
use crate::mirror::{Event, Mirror};

/// The clock of this machine, with an offset that a test sets.
#[derive(Default)]
pub struct WrongClock(AtomicI64);

impl WrongClock {
    pub fn shift(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::milliseconds(self.0.load(Ordering::Relaxed))
    }
}

pub struct World {
    mirror: Mirror,
    pub client: Client,
    pub clock: Arc<WrongClock>,
    pub fence: Fence,
    pub memory: CycleMemory,
    pub rules: SyncRules,
    /// The time after which a second 404 confirms the deletion of a recently created record.
    pub again_after: TimeDelta,
    /// The last event that [`Self::news`] returned.
    cursor: i64,
    database: TestDatabase,
}

impl Deref for World {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

impl World {
    /// A small company, with Harvest's current behavior.
    pub async fn new() -> Self {
        Self::of(Company::seeded(1, 12, 30), Options::default()).await
    }

    pub async fn of(company: Company, options: Options) -> Self {
        let sim = Sim::start(company, Options { limit: None, ..options }).await.unwrap();
        let database = TestDatabase::new().await;
        let store = store(database.url());
        let clock = Arc::new(WrongClock::default());
        let client = client(&sim, true, clock.clone());
        let fence = take_over(&store, &sim).await;
        let rules = SyncRules {
            with_roles: false,
            skew_buffer: TimeDelta::seconds(60),
            full_interval: TimeDelta::hours(1),
            count_probe: true,
            guard: DeletionGuard { fraction: 0.10, at_least: 5 },
            alone: true,
        };
        let (memory, again_after) = (CycleMemory::default(), TimeDelta::minutes(1));
        let mirror = Mirror { sim, store };
        Self { mirror, client, clock, fence, memory, rules, again_after, cursor: 0, database }
    }

    /// The database's URL, for other processes.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// Runs the cycle that is due.
    pub async fn try_cycle(&mut self) -> CycleReport {
        let known = self.store.account_state(self.fence.account).await.unwrap();
        self.try_cycle_in(schedule::mode(self.clock.now(), &known)).await
    }

    pub async fn try_cycle_in(&mut self, mode: CycleMode) -> CycleReport {
        let known = self.store.account_state(self.fence.account).await.unwrap();
        self.turn(async |mut cycle| cycle.run(mode, known).await).await
    }

    /// Runs a part of a cycle.
    pub async fn turn(
        &mut self,
        turn: impl AsyncFnOnce(Cycle<'_, PostgresMirror<'_>>) -> CycleReport,
    ) -> CycleReport {
        let (store, fence, again_after) = (&self.mirror.store, self.fence, self.again_after);
        let writer = PostgresMirror {
            store,
            fence,
            order: self.client.order(),
            again_after,
            guard: self.rules.guard,
            compare_all_fields: false,
            write: None,
        };
        let cycle = Cycle {
            mirror: &writer,
            client: &self.client,
            clock: &*self.clock,
            rules: self.rules,
            memory: &mut self.memory,
            progress: &|_, _, _| {},
            cancel: &CancellationToken::new(),
        };
        turn(cycle).await
    }

    /// Runs the cycle that is due, which must succeed.
    pub async fn cycle(&mut self) -> CycleReport {
        let report = self.try_cycle().await;
        report.outcome.as_ref().unwrap();
        report
    }

    /// Runs a full cycle, which must succeed.
    pub async fn full_cycle(&mut self) -> CycleReport {
        let report = self.try_cycle_in(CycleMode::Full).await;
        report.outcome.as_ref().unwrap();
        report
    }

    /// The events since the last call.
    pub async fn news(&mut self) -> Vec<Event> {
        let news = self.events_since(self.cursor).await;
        self.cursor = news.last().map_or(self.cursor, |event| event.seq);
        news
    }

    /// The events since the last call, as `type id`, in order.
    pub async fn headlines(&mut self) -> Vec<String> {
        self.news().await.iter().map(|event| format!("{} {}", event.r#type, event.payload["id"])).collect()
    }

    /// The only event since the last call.
    pub async fn only_event(&mut self) -> Event {
        let mut news = self.news().await;
        assert_eq!(news.len(), 1, "{:?}", news.iter().map(|event| &event.r#type).collect::<Vec<_>>());
        news.remove(0)
    }

    pub async fn user(&self, id: impl Into<i64>) -> Value {
        self.rows("users").await[&id.into()].clone()
    }

    pub async fn count(&self, table: &str) -> i64 {
        let statement = format!("SELECT count(*) FROM roster.{table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(self.store.pool()).await.unwrap()
    }

    pub async fn watermarks(&self) -> Vec<(String, Option<DateTime<Utc>>)> {
        sqlx::query_as("SELECT resource, watermark FROM roster.watermarks ORDER BY resource")
            .fetch_all(self.store.pool())
            .await
            .unwrap()
    }

    /// Advances the clocks of Harvest and of rosterd.
    pub fn pass(&self, time: TimeDelta) {
        self.sim.shift_clock(time);
        self.clock.shift(time);
    }

    /// The paths of the requests since the last call, without the version.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.sim.requests().into_iter().map(|request| request.path).collect();
        self.sim.clear_requests();
        asked
    }

    /// The remembered row counts equal the counts of a new process.
    pub async fn expect_row_counts_are_current(&self) {
        let other = crate::database::store(self.url());
        let account = self.fence.account;
        assert_eq!(self.store.row_counts(account).await.unwrap(), other.row_counts(account).await.unwrap());
        other.close().await;
    }

    /// The held deletions, as `reason resource id`.
    pub async fn held(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT concat_ws(' ', reason, resource, record_id) FROM roster.held_deletions
              ORDER BY resource, record_id",
        )
        .fetch_all(self.store.pool())
        .await
        .unwrap()
    }
}

/// A client without a rate limit.
pub fn client(sim: &Sim, with_pay: bool, clock: Arc<dyn Clock>) -> Client {
    client_with(sim, 2000, with_pay, clock)
}

/// A client without a rate limit, and with this page size.
pub fn client_with(sim: &Sim, per_page: u32, with_pay: bool, clock: Arc<dyn Clock>) -> Client {
    let limits = RateLimits {
        requests: 1_000_000,
        window: Duration::from_secs(1),
        reserve: 0,
        grace: Duration::from_secs(1),
    };
    let base = sim.base_url().parse().unwrap();
    let options = transport::ClientOptions {
        http: transport::HttpClient::new(&base, Duration::from_secs(5)).unwrap(),
        base,
        user_agent: "rosterd-tests (contact@example.com)".to_owned(),
        per_page,
        with_pay_data: with_pay,
    };
    let token = AccessToken::new(&SecretString::from(sim.token())).unwrap();
    let (account, auth) = (AccountId(sim.account_id()), Auth::Personal(token));
    Client::new(&options, account, auth, RateLimiter::local(limits), clock)
}

/// Takes the account over as another process. No heartbeat is registered in these tests, so that the lease is free.
pub async fn take_over(store: &Store, sim: &Sim) -> Fence {
    match store.acquire(AccountId(sim.account_id()), Uuid::new_v4()).await.unwrap() {
        Lease::Acquired(fence) => fence,
        Lease::Held { by } => panic!("held by {by}"),
    }
}
