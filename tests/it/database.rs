//! A database of its own for each test, cloned from one that has the migrations applied.
//!
//! The server is, in this order: that of `TEST_DATABASE_URL`, where databases may be created; a container;
//! a private one of this machine's own programs. There is one for each test process, and it goes when the
//! process goes, however it goes. Only its URL is shared: each test has a runtime of its own, and a pool does
//! not outlive the runtime that it was made on.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rosterd::store::local::{LocalOptions, LocalPostgres};
use rosterd::store::{ConnectOptions, Store};
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use testcontainers::core::{IntoContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use uuid::Uuid;

/// A server of a version that the daemon is made for.
const IMAGE: (&str, &str) = ("postgres", "17");
/// How long a container may take to be there, its image to be pulled included.
const CONTAINER_LIMIT: Duration = Duration::from_mins(2);
/// How long dropping a database may take at the end of a test.
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// What all our databases are called, on a server that may have others; the time of creation follows.
const PREFIX: &str = "rosterd_test_";
/// Held while databases are created: a template that is being copied must have no other visitor.
const CREATING: i64 = 0x726f_7374_6572_6474;

/// A database for one test; dropped at the end of it.
pub struct TestDatabase {
    url: String,
    name: String,
    server_url: String,
}

impl TestDatabase {
    /// A database with the migrations applied.
    pub async fn new() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(async || {
            let server_url = server().await;
            let name = create(server_url, "template0").await;
            migrate(&with_database(server_url, &name)).await;
            name
        });
        Self::cloned_from(template.await).await
    }

    /// An empty database.
    pub async fn blank() -> Self {
        Self::cloned_from("template0").await
    }

    /// Where to connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn cloned_from(template: &str) -> Self {
        let server_url = server().await;
        let name = create(server_url, template).await;
        Self { url: with_database(server_url, &name), name, server_url: server_url.to_owned() }
    }
}

impl Drop for TestDatabase {
    /// On a thread of its own, since the test's runtime may be busy unwinding. What stays behind on a server
    /// that is not ours is swept away by a later run.
    fn drop(&mut self) {
        let (server_url, name) = (self.server_url.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let _ = runtime.block_on(async { timeout(DROP_LIMIT, drop_database(&server_url, &name)).await });
            std::io::Result::Ok(())
        });
        let _ = dropping.join();
    }
}

/// The one place that knows how a database gets its tables.
async fn migrate(url: &str) {
    let store = store(url);
    store.migrate().await.unwrap();
    // A template that is copied must have no visitor.
    store.close().await;
}

/// A pool of one's own on the database at `url`, as the daemon opens it.
pub fn store(url: &str) -> Store {
    Store::new(
        &url.into(),
        &ConnectOptions {
            max_connections: 5,
            prepared_statements: true,
            statement_timeout: Duration::from_secs(30),
        },
    )
    .unwrap()
}

async fn create(server_url: &str, template: &str) -> String {
    let mut connection = PgConnection::connect(server_url).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(CREATING).execute(&mut connection).await.unwrap();
    let now: i64 = sqlx::query_scalar("SELECT extract(epoch FROM now())::bigint")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let name = format!("{PREFIX}{now}_{}", Uuid::new_v4().simple());
    let statement = AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}"));
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    name
}

async fn drop_database(server_url: &str, name: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server_url).await?;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// Drops what test processes that were killed have left on a server that outlives them, and their templates.
async fn sweep(server_url: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server_url).await?;
    let old = sqlx::query(
        "SELECT datname FROM pg_database
          WHERE datname ~ ('^' || $1 || '[0-9]+_')
            AND split_part(substr(datname, length($1) + 1), '_', 1)::bigint < extract(epoch FROM now()) - 3600",
    )
    .bind(PREFIX)
    .fetch_all(&mut connection)
    .await?;
    for row in old {
        drop_database(server_url, row.get(0)).await?;
    }
    connection.close().await
}

/// `url` with another database in it.
fn with_database(url: &str, name: &str) -> String {
    let (place, query) =
        url.split_once('?').map_or((url, String::new()), |(place, query)| (place, format!("?{query}")));
    let host = place.find("://").map_or(0, |scheme| scheme + 3);
    let end = place[host..].find('/').map_or(place.len(), |slash| host + slash);
    format!("{}/{name}{query}", &place[..end])
}

/// The URL of the server that this test process uses.
async fn server() -> &'static str {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    &SERVER.get_or_init(Server::start).await.url
}

/// A server, and what keeps it running. Nothing drops a static, so its end is left to a [`Supervisor`].
struct Server {
    url: String,
    _runs: Runs,
}

#[expect(dead_code, reason = "held for as long as the process lives, never looked at")]
enum Runs {
    Elsewhere,
    Container(Box<ContainerAsync<GenericImage>>, Supervisor),
    Here(Box<LocalPostgres>, Supervisor),
}

impl Server {
    async fn start() -> Self {
        if let Some(url) = std::env::var("TEST_DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            say("the server of TEST_DATABASE_URL");
            sweep(&url).await.expect("TEST_DATABASE_URL should name a server where databases may be created");
            return Self { url, _runs: Runs::Elsewhere };
        }
        match Self::start_container().await {
            Ok(server) => {
                say("a container");
                server
            }
            Err(reason) => {
                say(&format!("this machine's own programs (no container: {reason})"));
                Self::start_here().await
            }
        }
    }

    async fn start_container() -> Result<Self, String> {
        let mut docker = tokio::process::Command::new("docker");
        docker.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if !timeout(Duration::from_secs(3), docker.status())
            .await
            .is_ok_and(|it| it.is_ok_and(|it| it.success()))
        {
            return Err("Docker does not answer".to_owned());
        }
        // Named beforehand, so that it is removed even if we are killed while it starts.
        let name = format!("rosterd-test-{}", Uuid::new_v4().simple());
        let supervisor = Supervisor::of("docker rm --force --volumes \"$0\"", name.as_ref());
        let password = Uuid::new_v4().simple().to_string();
        let ready = "database system is ready to accept connections";
        let starting = GenericImage::new(IMAGE.0, IMAGE.1)
            .with_exposed_port(5432.tcp())
            // Said twice: by the server that sets up the database, on stdout, then by the one to use.
            .with_wait_for(WaitFor::message_on_stdout(ready))
            .with_wait_for(WaitFor::message_on_stderr(ready))
            .with_container_name(name)
            .with_env_var("POSTGRES_PASSWORD", &password)
            .with_mount(Mount::tmpfs_mount("/var/lib/postgresql/data"))
            .with_cmd(["-c", "fsync=off", "-c", "max_connections=200"])
            .start();
        let late = |_| "it took too long".to_owned();
        let container =
            timeout(CONTAINER_LIMIT, starting).await.map_err(late)?.map_err(|error| error.to_string())?;
        let host = container.get_host().await.map_err(|error| error.to_string())?;
        let port = container.get_host_port_ipv4(5432).await.map_err(|error| error.to_string())?;
        let url = format!("postgres://postgres:{password}@{host}:{port}/postgres");
        Ok(Self { url, _runs: Runs::Container(Box::new(container), supervisor) })
    }

    async fn start_here() -> Self {
        // As root the server runs as another user, who must be able to get here.
        let dir = tempfile::Builder::new()
            .prefix("rosterd-test-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap()
            .keep();
        let supervisor = Supervisor::of(
            "pid=$(head -n 1 \"$0/postgres/server/data/postmaster.pid\") && kill -QUIT \"$pid\"
             n=0; while kill -0 \"$pid\" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
             rm -rf \"$0\"",
            dir.as_os_str(),
        );
        let options = LocalOptions { data_dir: dir.join("postgres"), durable: false, max_connections: 200 };
        let local = LocalPostgres::start_with(&options).await.unwrap_or_else(|error| panic!("{error}"));
        Self { url: local.url().expose_secret().to_owned(), _runs: Runs::Here(Box::new(local), supervisor) }
    }
}

/// A shell that waits for this process to end, be it by `kill -9`, and then clears up behind it: it reads from a
/// pipe that only we hold the other end of.
struct Supervisor {
    _shell: Child,
}

impl Supervisor {
    /// `script` finds `subject` in `$0`.
    fn of(script: &str, subject: &std::ffi::OsStr) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("read -r _\n{script}")).arg(subject);
        // In a group of its own, out of the reach of Ctrl-C and of a test runner that kills ours.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { _shell: shell.spawn().unwrap() }
    }
}

/// Past the capture of the tests' output: whoever runs them wants to know.
fn say(source: &str) {
    let _ = writeln!(std::io::stderr(), "test databases: {source}");
}

async fn tables(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn databases_created_at_once_are_each_a_tests_own() {
    let databases = futures::future::join_all((0..8).map(|_| TestDatabase::new())).await;
    let mut first = PgConnection::connect(databases[0].url()).await.unwrap();
    sqlx::query("CREATE TABLE mine ()").execute(&mut first).await.unwrap();
    assert!(tables(databases[0].url()).await.contains(&"mine".to_owned()));
    assert!(!tables(databases[1].url()).await.contains(&"mine".to_owned()));
}

#[tokio::test]
async fn a_blank_database_has_no_tables() {
    assert!(tables(TestDatabase::blank().await.url()).await.is_empty());
}

#[tokio::test]
async fn a_database_is_gone_after_its_test_even_with_a_session_open() {
    let database = TestDatabase::blank().await;
    let url = database.url().to_owned();
    let _session = PgConnection::connect(&url).await.unwrap();
    drop(database);
    let error = PgConnection::connect(&url).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "3D000");
}

#[test]
fn another_database_is_named_in_any_url() {
    assert_eq!(
        with_database("postgres://u:p@h:1/a?sslmode=disable", "b"),
        "postgres://u:p@h:1/b?sslmode=disable"
    );
    assert_eq!(with_database("postgres://u@h", "b"), "postgres://u@h/b");
}
