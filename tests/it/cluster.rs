//! A PostgreSQL of the test's own, which it may crash, copy and promote.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rosterd::store::local::{LocalOptions, LocalPostgres};
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::program::STUCK;

pub struct Cluster {
    /// `None` while it is stopped in good order.
    running: Option<LocalPostgres>,
    home: tempfile::TempDir,
}

impl Cluster {
    pub async fn new() -> Self {
        let mut cluster = Self { running: None, home: home() };
        cluster.start().await;
        cluster
    }

    /// Also after a crash, on another port.
    pub async fn start(&mut self) {
        // No test cuts the power.
        let options = LocalOptions { durable: false, ..LocalOptions::new(self.data_dir()) };
        self.running = Some(LocalPostgres::start_with(&options).await.unwrap());
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }

    /// An immediate shutdown: no session is told, nothing is written.
    pub async fn crash(&self) {
        let pid_file = self.data().join("postmaster.pid");
        let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().to_owned();
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        let give_up = Instant::now() + STUCK;
        while Path::new("/proc").join(&pid).exists() || pid_file.exists() {
            assert!(Instant::now() < give_up, "does not stop");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Another cluster as this one was when it was stopped, or a standby of it.
    pub async fn copy(&self, standby: bool) -> Self {
        assert!(self.running.is_none(), "files are copied of a server that is stopped");
        let mut copy = Self { running: None, home: home() };
        let copied = Command::new("cp").arg("-a").arg(self.data_dir()).arg(copy.data_dir()).status().unwrap();
        assert!(copied.success());
        if standby {
            fs::write(copy.data().join("standby.signal"), "").unwrap();
        }
        copy.start().await;
        copy
    }

    pub async fn promote(&self) {
        self.execute("SELECT pg_promote()").await;
    }

    /// Reads the settings again; new sessions have them from here on.
    pub async fn reload(&self) {
        let loaded = async || {
            let mut session = PgConnection::connect(self.url()).await.unwrap();
            let loaded = sqlx::query_scalar::<_, String>("SELECT pg_conf_load_time()::text");
            loaded.fetch_one(&mut session).await.unwrap()
        };
        let (before, give_up) = (loaded().await, Instant::now() + STUCK);
        self.execute("SELECT pg_reload_conf()").await;
        while loaded().await == before {
            assert!(Instant::now() < give_up, "does not reload");
        }
    }

    pub async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(self.url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    }

    pub fn url(&self) -> &str {
        self.running.as_ref().unwrap().url().expose_secret()
    }

    /// What PostgreSQL calls its data directory.
    pub fn data(&self) -> PathBuf {
        self.data_dir().join("server/data")
    }

    fn data_dir(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap().join("postgres")
    }
}

/// A directory that the server's user can reach, also where the tests run as root.
fn home() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}
