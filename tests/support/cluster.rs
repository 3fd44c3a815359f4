//! A PostgreSQL server for one test, which can crash, copy and promote it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rosterd::store::local::{LocalOptions, LocalPostgres};
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::database::{Supervisor, hash_password_once, local_options, server_dir};
use crate::program::STUCK;

pub struct Cluster {
    /// `None` while the server is stopped by [`Self::stop`].
    running: Option<LocalPostgres>,
    home: tempfile::TempDir,
}

impl Cluster {
    /// A copy of a new server, without the second that initdb takes. The copies have one system identifier.
    pub async fn new() -> Self {
        static NEW: OnceCell<(Cluster, Supervisor)> = OnceCell::const_new();
        let new = async || {
            let mut cluster = Self::with_another_system_identifier().await;
            let supervisor = Supervisor::of("rm -rf \"$0\"", cluster.home.path().as_os_str());
            cluster.stop().await;
            (cluster, supervisor)
        };
        NEW.get_or_init(new).await.0.copy(false).await
    }

    pub async fn with_another_system_identifier() -> Self {
        let mut cluster = Self { running: None, home: server_dir() };
        cluster.start().await;
        hash_password_once(cluster.url()).await;
        cluster
    }

    /// Starts the server, on another port than before. It also starts after a crash.
    pub async fn start(&mut self) {
        // The operating system does not crash during a test, so files need not be synchronized to the disk.
        let options = LocalOptions { durable: false, ..local_options(&self.data_dir()) };
        self.running = Some(LocalPostgres::start(&options).await.unwrap());
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }

    /// Shuts down immediately: sessions get no message, and no checkpoint is written.
    pub async fn crash(&self) {
        let pid_file = self.data().join("postmaster.pid");
        let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().to_owned();
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        let give_up = Instant::now() + STUCK;
        while Path::new("/proc").join(&pid).exists() || pid_file.exists() {
            assert!(Instant::now() < give_up, "the server does not stop");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A copy of this stopped cluster, or a standby of it.
    pub async fn copy(&self, standby: bool) -> Self {
        assert!(self.running.is_none(), "the server should be stopped while its files are copied");
        let mut copy = Self { running: None, home: server_dir() };
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

    /// After a crash or a promotion the table of permits is empty. Then rosterd waits until no lost permit could count, by
    /// default 50 s. This ends the wait, for a Harvest without a limit.
    pub async fn end_wait_for_lost_permits(&self) {
        let marker = "INSERT INTO roster.rate_permits VALUES ('00000000-0000-0000-0000-000000000000', '', now(), false)
                      ON CONFLICT (id) DO UPDATE SET free_at = now()";
        self.execute(marker).await;
    }

    /// Reloads the settings. New sessions use them.
    pub async fn reload(&self) {
        let loaded = async || {
            let mut session = PgConnection::connect(self.url()).await.unwrap();
            let loaded = sqlx::query_scalar::<_, String>("SELECT pg_conf_load_time()::text");
            loaded.fetch_one(&mut session).await.unwrap()
        };
        let (before, give_up) = (loaded().await, Instant::now() + STUCK);
        self.execute("SELECT pg_reload_conf()").await;
        while loaded().await == before {
            assert!(Instant::now() < give_up, "the settings are not reloaded");
        }
    }

    pub async fn execute(&self, statement: &str) {
        self.try_execute(statement).await.unwrap();
    }

    pub async fn try_execute(&self, statement: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(self.url()).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.map(|_| ())
    }

    pub fn url(&self) -> &str {
        self.running.as_ref().unwrap().url().expose_secret()
    }

    /// PostgreSQL's data directory.
    pub fn data(&self) -> PathBuf {
        self.data_dir().join("server/data")
    }

    fn data_dir(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap().join("postgres")
    }
}
