//! A small world to tell stories in: a simulated Harvest, a real PostgreSQL, and rosterd's own cycle between them.
//!
//! Verbs act on Harvest (`world.sim.hire(…)`) or turn the crank (`world.cycle()`); expectations look at the database
//! only, and read Harvest's truth by another way than the daemon does.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use harvest_sim::{Company, Options, Sim};
use rosterd::clock::{Clock, SystemClock};
use rosterd::harvest::pace::{Limits, Pace};
use rosterd::harvest::{Auth, Client, Token, transport};
use rosterd::roster::{AccountId, Guard};
use rosterd::store::lease::Lease;
use rosterd::store::{Fence, Store};
use rosterd::sync::apply::Writer;
use rosterd::sync::cycle::{Cycle, Memory, Rules};
use rosterd::sync::report::Report;
use rosterd::sync::schedule::{self, Mode};
use secrecy::SecretString;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{TestDatabase, store};
use crate::mirror::{Mirror, Told};

/// This machine's clock, as wrong as the story wants it.
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
    pub memory: Memory,
    pub rules: Rules,
    /// How long after its first 404 a young record's second one counts.
    pub again_after: TimeDelta,
    /// As a consumer keeps it: the last event it has read.
    cursor: i64,
    database: TestDatabase,
}

/// What can be said of it without turning the crank.
impl Deref for World {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

impl World {
    /// A small company, as Harvest is today.
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
        let rules = Rules {
            skew_buffer: TimeDelta::seconds(60),
            full_interval: TimeDelta::hours(1),
            count_probe: true,
            guard: Guard { fraction: 0.10, at_least: 5 },
            alone: true,
            unshared: false,
        };
        let (memory, again_after) = (Memory::default(), TimeDelta::minutes(1));
        let mirror = Mirror { sim, store };
        Self { mirror, client, clock, fence, memory, rules, again_after, cursor: 0, database }
    }

    /// For another process on the same database.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// Reads as much as is due.
    pub async fn try_cycle(&mut self) -> Report {
        let known = self.store.account_state(self.fence.account).await.unwrap();
        self.try_cycle_in(schedule::mode(self.clock.now(), &known)).await
    }

    pub async fn try_cycle_in(&mut self, mode: Mode) -> Report {
        let known = self.store.account_state(self.fence.account).await.unwrap();
        self.turn(async |cycle| cycle.run(mode, known).await).await
    }

    /// Turns the crank by hand.
    pub async fn turn(&mut self, turn: impl AsyncFnOnce(Cycle<'_, Writer<'_>>) -> Report) -> Report {
        let (store, fence, again_after) = (&self.mirror.store, self.fence, self.again_after);
        let writer = Writer {
            store,
            fence,
            order: self.client.order(),
            again_after,
            guard: self.rules.guard,
            thorough: false,
        };
        let cycle = Cycle {
            sink: &writer,
            client: &self.client,
            clock: &*self.clock,
            rules: self.rules,
            memory: &mut self.memory,
            progress: &|_, _, _| {},
            cancel: &CancellationToken::new(),
        };
        turn(cycle).await
    }

    /// A cycle that must be good.
    pub async fn cycle(&mut self) -> Report {
        let report = self.try_cycle().await;
        report.outcome.as_ref().unwrap();
        report
    }

    /// A full one that must be good.
    pub async fn full_cycle(&mut self) -> Report {
        let report = self.try_cycle_in(Mode::Full).await;
        report.outcome.as_ref().unwrap();
        report
    }

    /// The events since this was last asked.
    pub async fn news(&mut self) -> Vec<Told> {
        let news = self.events_since(self.cursor).await;
        self.cursor = news.last().map_or(self.cursor, |event| event.seq);
        news
    }

    /// The news as `type id` lines, in order.
    pub async fn headlines(&mut self) -> Vec<String> {
        self.news().await.iter().map(|event| format!("{} {}", event.r#type, event.payload["id"])).collect()
    }

    /// The one event that is news.
    pub async fn only_event(&mut self) -> Told {
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

    /// Time passes at Harvest and here.
    pub fn pass(&self, time: TimeDelta) {
        self.sim.shift_clock(time);
        self.clock.shift(time);
    }

    /// How Harvest was asked since this was last asked: the paths, without the version.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.sim.requests().into_iter().map(|request| request.path).collect();
        self.sim.clear_requests();
        asked
    }

    /// What was counted once and is remembered is what another process would count.
    pub async fn expect_census_to_be_a_count(&self) {
        let other = crate::database::store(self.url());
        let account = self.fence.account;
        assert_eq!(self.store.census(account).await.unwrap(), other.census(account).await.unwrap());
        other.close().await;
    }

    /// What is held, as `reason resource id`.
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

/// A client whose pace lets everything through: the stories are not about the rate limit.
pub fn client(sim: &Sim, with_pay: bool, clock: Arc<dyn Clock>) -> Client {
    client_with(sim, 2000, with_pay, clock)
}

/// The same with pages of another size.
pub fn client_with(sim: &Sim, per_page: u32, with_pay: bool, clock: Arc<dyn Clock>) -> Client {
    let limits = Limits {
        requests: 1_000_000,
        window: Duration::from_secs(1),
        reserve: 0,
        grace: Duration::from_secs(1),
    };
    let base = sim.base_url().parse().unwrap();
    let options = transport::Options {
        http: transport::Http::new(&base, Duration::from_secs(5)).unwrap(),
        base,
        user_agent: "rosterd-tests (nobody@example.com)".to_owned(),
    };
    let token = Token::new(&SecretString::from(sim.token())).unwrap();
    let (account, auth) = (AccountId(sim.account_id()), Auth::Personal(token));
    Client::new(&options, account, auth, per_page, with_pay, Pace::local(limits), clock)
}

/// Another process takes the account, as if the holder were dead: in the stories nobody's heartbeat is registered.
pub async fn take_over(store: &Store, sim: &Sim) -> Fence {
    match store.acquire(AccountId(sim.account_id()), Uuid::new_v4()).await.unwrap() {
        Lease::Acquired(fence) => fence,
        Lease::Held { by } => panic!("held by {by}"),
    }
}
