//! Each test gets its own database, a copy of a template to which the migrations were applied.
//!
//! The server is the first of these that is available: the server of `TEST_DATABASE_URL`, whose user must be allowed to
//! create databases; a container; a private server of this machine's programs, or of downloaded ones if the machine has
//! none. Each test process has one server,
//! which stops with the process, even if it is killed. Tests share only the server's URL: a pool cannot outlive the
//! runtime that it was created on, and each test has its own runtime.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::prelude::*;
use ring::{digest, hmac};
use rosterd::app::development_options;
use rosterd::store::local::{LocalOptions, LocalPostgres};
use rosterd::store::{ConnectOptions, Store};
use rosterd::telemetry::chain;
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use testcontainers::core::{IntoContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use uuid::Uuid;

/// A version of PostgreSQL that rosterd supports.
const IMAGE: (&str, &str) = ("postgres", "17");
/// The time limit for starting a container, including the pull of its image.
const CONTAINER_LIMIT: Duration = Duration::from_mins(2);
/// The time limit for dropping a database at the end of a test.
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// All test databases begin with this prefix and their time of creation, since the server may have other databases.
const PREFIX: &str = "rosterd_test_";
/// The advisory lock for creating databases: while PostgreSQL copies a template, it allows no other session in it.
const CREATING: i64 = 0x726f_7374_6572_6474;

/// A database for one test, dropped at the end of the test.
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
    /// Uses its own thread, since the test's runtime may be unwinding. If this fails on the server of `TEST_DATABASE_URL`,
    /// a later run drops the database.
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

async fn migrate(url: &str) {
    let store = store(url);
    store.migrate().await.unwrap();
    // PostgreSQL copies a template only while no other session uses it.
    store.close().await;
}

/// A new pool on the database at `url`, with the settings that the daemon uses.
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

/// Drops databases and templates of killed test processes from a server that outlives them.
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

/// Replaces the name of the database in `url`.
pub fn with_database(url: &str, name: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let host = base.find("://").map_or(0, |scheme| scheme + 3);
    let end = base[host..].find('/').map_or(base.len(), |slash| host + slash);
    format!("{}/{name}{query}", &base[..end])
}

/// The directory of the server's programs that a test, the demo or `.ci/postgres.sh` downloaded.
pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql")
}

/// A private server, of downloaded programs if this machine has none.
pub fn local_options(data_dir: &Path) -> LocalOptions {
    development_options(data_dir, programs()).unwrap()
}

/// A directory for the server's files, in memory if this machine has enough: each test writes a database and drops it. If
/// this process is root, the server runs as another user, who must be able to enter the directory.
pub fn server_dir() -> tempfile::TempDir {
    const ENOUGH: u64 = 6 << 30;
    let memory = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(memory).map_or(0, |it| it.blocks_available() * it.fragment_size());
    let parent = if free >= ENOUGH { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix("rosterd-test-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .unwrap()
}

/// Stores the password's hash with 1 iteration instead of 4,096. Each connection repeats them, without optimisation.
pub async fn hash_password_once(url: &str) {
    let address = url::Url::parse(url).unwrap();
    let (user, password) = (address.username(), address.password().unwrap());
    // RFC 5802, section 3. Hi() with one iteration is one HMAC.
    let hmac = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let salt = Uuid::new_v4();
    let salted = hmac(password.as_bytes(), &[salt.as_bytes(), &[0, 0, 0, 1][..]].concat());
    let client_key = hmac(salted.as_ref(), b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac(salted.as_ref(), b"Server Key");
    let [salt, stored_key, server_key] =
        [salt.as_bytes(), stored_key.as_ref(), server_key.as_ref()].map(|it| BASE64_STANDARD.encode(it));
    let statement =
        format!("ALTER ROLE \"{user}\" PASSWORD 'SCRAM-SHA-256$1:{salt}${stored_key}:{server_key}'");
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The URL of the server that this test process uses.
async fn server() -> &'static str {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    &SERVER.get_or_init(Server::start).await.url
}

/// A server and its owner. Rust does not drop statics, so a [`Supervisor`] stops the server.
struct Server {
    url: String,
    _owner: Owner,
}

#[expect(dead_code, reason = "keeps the server running and is never read")]
enum Owner {
    External,
    Container(Box<ContainerAsync<GenericImage>>, Supervisor),
    Local(Box<LocalPostgres>, Supervisor),
}

impl Server {
    async fn start() -> Self {
        if let Some(url) = std::env::var("TEST_DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            print("the server of TEST_DATABASE_URL");
            sweep(&url).await.expect("TEST_DATABASE_URL should name a server where databases may be created");
            return Self { url, _owner: Owner::External };
        }
        match Self::start_container().await {
            Ok(server) => {
                print("a container");
                server
            }
            Err(reason) => {
                print(&format!("this machine's programs, or downloaded ones (no container: {reason})"));
                Self::start_local().await
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
        // The supervisor needs the name, to remove the container even if this process is killed while it starts.
        let name = format!("rosterd-test-{}", Uuid::new_v4().simple());
        let supervisor = Supervisor::of("docker rm --force --volumes \"$0\"", name.as_ref());
        let password = Uuid::new_v4().simple().to_string();
        let ready = "database system is ready to accept connections";
        let starting = GenericImage::new(IMAGE.0, IMAGE.1)
            .with_exposed_port(5432.tcp())
            // The server that initializes the database prints the message first, on stdout. The final server prints it on stderr.
            .with_wait_for(WaitFor::message_on_stdout(ready))
            .with_wait_for(WaitFor::message_on_stderr(ready))
            .with_container_name(name)
            .with_env_var("POSTGRES_PASSWORD", &password)
            .with_mount(Mount::tmpfs_mount("/var/lib/postgresql/data"))
            .with_cmd(["-c", "fsync=off", "-c", "max_connections=200"])
            .start();
        let timed_out = |_| format!("it did not start within {CONTAINER_LIMIT:?}");
        let container = timeout(CONTAINER_LIMIT, starting)
            .await
            .map_err(timed_out)?
            .map_err(|error| error.to_string())?;
        let host = container.get_host().await.map_err(|error| error.to_string())?;
        let port = container.get_host_port_ipv4(5432).await.map_err(|error| error.to_string())?;
        let url = format!("postgres://postgres:{password}@{host}:{port}/postgres");
        Ok(Self { url, _owner: Owner::Container(Box::new(container), supervisor) })
    }

    async fn start_local() -> Self {
        let dir = server_dir().keep();
        let supervisor = Supervisor::of(
            "pid=$(head -n 1 \"$0/postgres/server/data/postmaster.pid\") && kill -QUIT \"$pid\"
             n=0; while kill -0 \"$pid\" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
             rm -rf \"$0\"",
            dir.as_os_str(),
        );
        let options =
            LocalOptions { durable: false, max_connections: 200, ..local_options(&dir.join("postgres")) };
        let local = LocalPostgres::start(&options).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        hash_password_once(local.url().expose_secret()).await;
        Self {
            url: local.url().expose_secret().to_owned(),
            _owner: Owner::Local(Box::new(local), supervisor),
        }
    }
}

/// A shell that cleans up after this process ends, even by `kill -9`. It reads from a pipe until the end of the file, and
/// only this process has the other end of the pipe.
pub struct Supervisor {
    _shell: Child,
}

impl Supervisor {
    /// The script has `subject` in `$0`.
    pub fn of(script: &str, subject: &std::ffi::OsStr) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("read -r _\n{script}")).arg(subject);
        // Its own process group: Ctrl-C, and a test runner that kills the group of the tests, do not reach it.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { _shell: shell.spawn().unwrap() }
    }
}

/// Prints the source of the databases although the test's output is captured.
fn print(source: &str) {
    let _ = writeln!(std::io::stderr(), "test databases: {source}");
}
