//! A simulated Harvest and a database for tests of the real program.

use std::ops::Deref;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use harvest_sim::{Company, Fault, Options, Sim, UserId};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::{Program, STUCK};

pub struct Scene {
    mirror: Mirror,
    database: TestDatabase,
}

impl Deref for Scene {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

/// A simulated Harvest of a small company.
pub async fn small_company() -> Sim {
    Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap()
}

impl Scene {
    /// A small company, and a database without rows.
    pub async fn new() -> Self {
        Self::of(Company::seeded(5, 20, 40), Options::default()).await
    }

    /// The same with a Harvest that has no rate limit.
    pub async fn without_limit() -> Self {
        Self::of(Company::seeded(5, 20, 40), Options { limit: None, ..Options::default() }).await
    }

    pub async fn of(company: Company, options: Options) -> Self {
        let sim = Sim::start(company, options).await.unwrap();
        let database = TestDatabase::new().await;
        Self { mirror: Mirror { sim, store: store(database.url()) }, database }
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// A user other than the owner of the token.
    pub fn any_user(&self) -> UserId {
        let owner = self.sim.token_owner();
        self.sim.user_ids().into_iter().find(|id| *id != owner).unwrap()
    }

    /// The methods and paths of the writes that Harvest received since the last call.
    pub fn sent(&self) -> Vec<String> {
        self.sim.take_writes().into_iter().map(|it| format!("{} {}", it.method, it.path)).collect()
    }

    /// A process, with its own address for the probes.
    pub fn program(&self) -> Program {
        Program::new(&self.sim, self.url())
    }

    /// Locks the table of users, and returns when a page with a new user waits for the lock. Dropping the connection
    /// releases the lock.
    pub async fn lock_users(&self) -> PgConnection {
        let mut lock = PgConnection::connect(self.url()).await.unwrap();
        let statements = "BEGIN; LOCK TABLE roster.users IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(statements).execute(&mut lock).await.unwrap();
        self.sim.create_user("Lena", "Locked");
        let waits =
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'roster.users'::regclass)";
        self.until(waits).await;
        lock
    }
}

impl Mirror {
    /// Answers the next request whose path and query contain `path` in Harvest's place.
    pub fn answer_once(
        &self,
        path: &str,
        status: u16,
        headers: &[(&'static str, &str)],
        body: impl Into<Body>,
    ) {
        let answer = Response::builder().status(status);
        let answer = headers.iter().fold(answer, |answer, (name, value)| answer.header(*name, *value));
        let answer = Mutex::new(Some(answer.body(body.into()).unwrap()));
        self.sim.inject(Fault::answer(move || answer.lock().unwrap().take().unwrap()).on(path));
    }

    pub async fn execute(&self, statements: impl Into<String>) {
        sqlx::raw_sql(AssertSqlSafe(statements.into())).execute(self.store.pool()).await.unwrap();
    }

    pub async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.store.pool()).await.unwrap()
    }

    /// Waits until a query returns true. Null is not true.
    pub async fn until(&self, question: impl Into<String>) {
        let question = question.into();
        let give_up = Instant::now() + STUCK;
        loop {
            let asked = sqlx::query_scalar::<_, Option<bool>>(AssertSqlSafe(question.clone()));
            if asked.fetch_one(self.store.pool()).await.unwrap() == Some(true) {
                return;
            }
            assert!(Instant::now() < give_up, "still false: {question}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until Harvest has received a request for this path and has not answered it.
    pub async fn until_asked(&self, path: &str) {
        let give_up = Instant::now() + STUCK;
        let asked = || self.sim.requests().iter().any(|it| it.status.is_none() && it.path.contains(path));
        while !asked() {
            assert!(Instant::now() < give_up, "no request for {path}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The mirror equals Harvest, and the events of the outbox lead to the mirror.
    pub async fn expect_right(&self) {
        // After a write, the assignments of an archived user are read in another transaction.
        let is_active = |assignment: &&Value| assignment["is_active"] == true;
        let active = self.sim.assignments_json().iter().filter(is_active).count();
        let count = "SELECT count(*) FROM roster.user_assignments WHERE is_active AND deleted_at IS NULL";
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.number(count).await.unsigned_abs() != active as u64 && Instant::now() < give_up {
            sleep(Duration::from_millis(20)).await;
        }
        self.expect_mirror_equals_source().await;
        self.expect_outbox_replays_to_the_mirror().await;
    }
}
