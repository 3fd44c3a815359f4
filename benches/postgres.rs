//! PostgreSQL for the benchmarks: a private server, its resources, and `COPY` as the lower bound of storing.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use rosterd::app::development_options;
use rosterd::store::local::LocalPostgres;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgPool, PgPoolCopyExt};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::sleep;

use crate::measured::{OWN, WITH_ENDED_CHILDREN, cpu};

/// A private PostgreSQL, removed on drop.
pub struct Server {
    postgres: LocalPostgres,
    directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("rosterd-bench-").tempdir().unwrap();
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql");
        let options = development_options(&directory.path().join("postgres"), programs).unwrap();
        let postgres = LocalPostgres::start(&options).await.unwrap();
        Self { postgres, directory }
    }

    /// Creates an empty database and returns its URL.
    pub async fn database(&self, name: &str) -> String {
        let url = self.postgres.url().expose_secret();
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{name}")
    }

    /// Removes a database. PostgreSQL then writes a checkpoint, so that the next measurement pays for none of its rows.
    pub async fn drop_database(&self, name: &str) {
        let mut connection = PgConnection::connect(self.postgres.url().expose_secret()).await.unwrap();
        let statement = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }

    /// A temporary directory for files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub async fn stop(self) {
        self.postgres.stop().await.unwrap();
    }
}

/// CPU time so far, in seconds, of the server processes for rosterd's open connections.
pub async fn connections_cpu(pool: &PgPool) -> f64 {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'rosterd' AND datname = current_database()",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    pids.into_iter().filter_map(|pid| cpu(pid.unsigned_abs(), OWN)).sum()
}

/// CPU time so far, in seconds, of the whole server: connections, open and closed, and background processes.
pub async fn server_cpu(pool: &PgPool) -> f64 {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(pool).await.unwrap();
    let postmaster = parent(pid.unsigned_abs()).unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = processes.filter(|pid| parent(*pid) == Some(postmaster));
    children.filter_map(|pid| cpu(pid, OWN)).sum::<f64>() + cpu(postmaster, WITH_ENDED_CHILDREN).unwrap()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Bytes of WAL and transactions so far.
pub async fn written(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
                (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Bytes of all files of the database.
pub async fn database_size(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(pool).await.unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "sizes of some gigabytes")]
pub fn megabytes(bytes: i64) -> f64 {
    bytes as f64 / 1e6
}

/// Copies the rows of these tables of the schema `roster` into equal tables, and returns the time of the COPY statements.
pub async fn copy_again(pool: &PgPool, tables: &[String]) -> Duration {
    let mut took = Duration::ZERO;
    for table in tables {
        let statement = format!("CREATE TABLE roster.{table}_again (LIKE roster.{table} INCLUDING ALL)");
        sqlx::query(AssertSqlSafe(statement)).execute(pool).await.unwrap();
        let from = format!("COPY roster.{table} TO STDOUT (FORMAT binary)");
        let rows = pool.copy_out_raw(&from).await.unwrap();
        let rows: Vec<_> = rows.try_collect().await.unwrap();
        let began = Instant::now();
        let into = format!("COPY roster.{table}_again FROM STDIN (FORMAT binary)");
        let mut copy = pool.copy_in_raw(&into).await.unwrap();
        for batch in rows.chunks(1000) {
            copy.send(batch.concat()).await.unwrap();
        }
        copy.finish().await.unwrap();
        took += began.elapsed();
    }
    took
}

/// Waits until this query returns true.
pub async fn until(pool: &PgPool, question: &str) {
    loop {
        // An error, such as an absent table, counts as false.
        let asked = sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(pool).await;
        if asked.unwrap_or(false) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
