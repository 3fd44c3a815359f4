//! Migrations while readers and a daemon of the older version are running. They do not wait long for a migration, and
//! a migration does not wait long for them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rosterd::app::{Exit, Failure};
use rosterd::store::StoreError;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::program::STUCK;

/// The next migration builds indexes of tables that hold rows, changes `roster.accounts` and replaces views.
const OLDER_VERSION: i64 = 5;

/// A database as an older rosterd has migrated it.
async fn migrated_to(version: i64) -> TestDatabase {
    let database = TestDatabase::blank().await;
    let mut migrator =
        Migrator::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))).await.unwrap();
    migrator.dangerous_set_table_name("rosterd_internal.migrations");
    execute(&database, "CREATE SCHEMA rosterd_internal").await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    migrator.run_to(version, &mut connection).await.unwrap();
    database
}

async fn execute(database: &TestDatabase, statements: &str) {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
}

/// A session that repeats its transactions until `stop` is set. It fails if it waits for a lock for more than a
/// second.
struct Workload {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<sqlx::Result<()>>,
}

impl Workload {
    fn start(database: &TestDatabase, transactions: &'static [&'static str]) -> Self {
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (url, done, stopped) = (database.url().to_owned(), rounds.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut session = PgConnection::connect(&url).await?;
            sqlx::raw_sql("SET lock_timeout = '1s'").execute(&mut session).await?;
            while !stopped.load(Ordering::Relaxed) {
                for transaction in transactions {
                    sqlx::raw_sql(*transaction).execute(&mut session).await?;
                }
                done.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        });
        Self { rounds, stop, task }
    }

    /// Waits for three more rounds.
    async fn make_progress(&self) {
        let (before, give_up) = (self.rounds.load(Ordering::Relaxed), Instant::now() + STUCK);
        while self.rounds.load(Ordering::Relaxed) < before + 3 && !self.task.is_finished() {
            assert!(Instant::now() < give_up, "the workload makes no progress");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) -> sqlx::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// A daemon's transaction locks the account, writes rows and updates the head of the outbox.
const DAEMON_TRANSACTIONS: &[&str] = &["BEGIN;
    SELECT FROM roster.accounts WHERE account_id = 123456 FOR NO KEY UPDATE;
    UPDATE roster.users SET synced_at = now() WHERE account_id = 123456 AND id = 1007;
    UPDATE roster.user_assignments SET synced_at = now() WHERE account_id = 123456 AND id = 5003;
    UPDATE roster.outbox_head SET seq = seq;
    COMMIT"];
const READER_TRANSACTIONS: &[&str] = &[
    "SELECT FROM directory.accounts",
    "SELECT FROM directory.active_assignments WHERE account_id = 123456 AND project_id = 3007",
];

/// A session that runs the statement in a transaction and leaves the transaction open, and the session's process id.
async fn open_transaction(database: &TestDatabase, statement: &'static str) -> (PgConnection, i32) {
    let options: PgConnectOptions = database.url().parse().unwrap();
    let mut session = PgConnection::connect_with(&options.application_name("payroll")).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut session).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut session).await.unwrap();
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    (session, pid)
}

/// Waits until a session of rosterd waits for a lock of the process `holder`.
async fn until_blocked_by(database: &TestDatabase, holder: i32) {
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let give_up = Instant::now() + STUCK;
    let query = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                 WHERE application_name = 'rosterd' AND $1 = ANY (pg_blocking_pids(pid)))";
    while !sqlx::query_scalar::<_, bool>(query).bind(holder).fetch_one(&mut observer).await.unwrap() {
        assert!(Instant::now() < give_up, "no migration waits for the lock");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn invalid_indexes(database: &TestDatabase) -> Vec<String> {
    let mut session = PgConnection::connect(database.url()).await.unwrap();
    let query = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid";
    sqlx::query_scalar(query).fetch_all(&mut session).await.unwrap()
}

#[tokio::test]
async fn migration_that_waits_for_a_reader_blocks_neither_daemon_nor_readers() {
    let database = migrated_to(OLDER_VERSION).await;
    execute(&database, &include_str!("scale.sql").replace("200000", "4000")).await;
    let [daemon, reader] = [DAEMON_TRANSACTIONS, READER_TRANSACTIONS]
        .map(|transactions| Workload::start(&database, transactions));
    let (session, pid) = open_transaction(&database, "SELECT FROM directory.accounts").await;

    let store = store(database.url());
    let reader_ends = async {
        until_blocked_by(&database, pid).await;
        for _ in 0..3 {
            daemon.make_progress().await;
            reader.make_progress().await;
        }
        session.close().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(store.migrate_within(STUCK), reader_ends);

    migrated.unwrap();
    daemon.end().await.unwrap();
    reader.end().await.unwrap();
    assert_eq!(store.schema_state().await.unwrap().pending, 0);
    assert_eq!(invalid_indexes(&database).await, [""; 0]);
}

#[tokio::test]
async fn migration_that_cannot_get_a_lock_gives_up_and_names_the_session_that_holds_it() {
    let database = migrated_to(OLDER_VERSION).await;
    let store = store(database.url());
    let before = store.schema_state().await.unwrap();
    let (session, pid) = open_transaction(&database, "SELECT FROM directory.accounts").await;

    let error = store.migrate_within(Duration::from_secs(1)).await.unwrap_err();
    let StoreError::Locked { version, holders } = &error else { panic!("{error:?}") };
    assert_eq!(*version, OLDER_VERSION + 1);
    let user = database.url().split(['/', ':', '@']).nth(3).unwrap();
    assert_eq!(*holders, format!("process {pid} (payroll, user {user}, idle in transaction)"));
    assert_eq!(store.schema_state().await.unwrap(), before);
    assert_eq!(Failure::from(error).exit, Exit::Busy);

    session.close().await.unwrap();
    assert_eq!(store.migrate().await.unwrap(), before.pending);
}

#[tokio::test]
async fn index_build_that_waits_for_a_writer_gives_up_and_the_next_run_rebuilds_the_index() {
    let database = migrated_to(OLDER_VERSION).await;
    execute(
        &database,
        "INSERT INTO roster.accounts (account_id) VALUES (1);
         INSERT INTO roster.users (account_id, id, is_active, raw, version, content_hash, synced_at)
         VALUES (1, 1, true, '{}', 1, 0, now());
         -- The state after a killed index build.
         CREATE INDEX users_joined ON roster.users (id);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'roster.users_joined'::regclass",
    )
    .await;
    let (session, pid) = open_transaction(&database, "UPDATE roster.users SET synced_at = now()").await;
    let store = store(database.url());

    let error = store.migrate_within(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("process {pid} (payroll")), "{error}");
    session.close().await.unwrap();

    store.migrate().await.unwrap();
    assert_eq!(invalid_indexes(&database).await, [""; 0]);
    let mut session = PgConnection::connect(database.url()).await.unwrap();
    let definition: String = sqlx::query_scalar("SELECT pg_get_indexdef('roster.users_joined'::regclass)")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert!(definition.ends_with("AND is_active)"), "{definition}");
}
