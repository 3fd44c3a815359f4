//! The private PostgreSQL: created once, shared by processes, and usable again after any of them was killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rosterd::store::local::{LocalError, LocalOptions, LocalPostgres};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};

use crate::database::{local_options, server_dir};

/// If this variable is set, [`helper_process_that_uses_the_server`] uses the server of this data directory.
const DATA_DIR_VARIABLE: &str = "ROSTERD_TEST_OWN_DATA_DIR";

/// A data directory that the server's user can reach even if the tests run as root.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(server_dir())
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("postgres")
    }

    /// Starts or joins the server. No test cuts the power, so that commits need not wait for the disk.
    async fn start(&self) -> LocalPostgres {
        let options = LocalOptions { durable: false, ..local_options(&self.data_dir()) };
        LocalPostgres::start(&options).await.unwrap()
    }

    fn pid_file(&self) -> PathBuf {
        self.data_dir().join("server/data/postmaster.pid")
    }

    fn pid(&self) -> u32 {
        fs::read_to_string(self.pid_file()).unwrap().lines().next().unwrap().parse().unwrap()
    }
}

/// Starts the server with the options of production.
async fn start(data_dir: &Path) -> Result<LocalPostgres, LocalError> {
    LocalPostgres::start(&local_options(data_dir)).await
}

async fn connect(local: &LocalPostgres) -> PgConnection {
    PgConnection::connect(local.url().expose_secret()).await.unwrap()
}

async fn insert_word(local: &LocalPostgres, word: &str) {
    let mut connection = connect(local).await;
    sqlx::query("CREATE TABLE IF NOT EXISTS words (word text)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO words VALUES ($1)").bind(word).execute(&mut connection).await.unwrap();
}

async fn stored_words(local: &LocalPostgres) -> Vec<String> {
    sqlx::query_scalar("SELECT word FROM words ORDER BY word")
        .fetch_all(&mut connect(local).await)
        .await
        .unwrap()
}

fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn first_start_creates_a_server_that_only_its_owner_can_read() {
    let home = Home::new();
    let local = start(&home.data_dir()).await.unwrap();
    let mut connection = connect(&local).await;
    let settings: (String, String, String, String) = sqlx::query_as(
        "SELECT current_database()::text, current_setting('server_encoding'),
                current_setting('data_checksums'), current_setting('fsync')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(settings, ("rosterd".into(), "UTF8".into(), "on".into(), "on".into()));

    assert_eq!(mode(&home.data_dir()) & 0o007, 0);
    assert_eq!(mode(&home.data_dir().join("server")), 0o700);
    assert_eq!(mode(&home.data_dir().join("server/data")), 0o700);
    assert_eq!(mode(&home.data_dir().join("pgpass")), 0o600);
    assert_eq!(mode(&home.data_dir().join("server/log")), 0o600);
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn wrong_password_is_refused() {
    let home = Home::new();
    let local = home.start().await;
    let url = local.url().expose_secret();
    let (before, after) = (url.find("rosterd:").unwrap() + 8, url.find('@').unwrap());
    let forged = format!("{}guess{}", &url[..before], &url[after..]);
    let error = PgConnection::connect(&forged).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "28P01");
}

#[tokio::test]
async fn second_start_finds_the_data_of_the_first() {
    let home = Home::new();
    let local = home.start().await;
    insert_word(&local, "kept").await;
    local.stop().await.unwrap();
    assert_eq!(stored_words(&home.start().await).await, ["kept"]);
}

#[tokio::test]
async fn stop_by_the_only_user_stops_the_server() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn two_users_share_one_server_and_the_last_stops_it() {
    let home = Home::new();
    let (first, second) = tokio::join!(home.start(), home.start());
    assert_eq!(first.url().expose_secret(), second.url().expose_secret());
    insert_word(&second, "shared").await;
    first.stop().await.unwrap();
    assert_eq!(stored_words(&second).await, ["shared"]);
    second.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn killed_server_is_started_again_with_its_data() {
    let home = Home::new();
    // With `durable` the kernel has everything that the server has committed.
    let local = start(&home.data_dir()).await.unwrap();
    insert_word(&local, "committed").await;
    kill_9(home.pid());
    // The first user has not stopped yet. The second start depends only on the directory.
    let again = home.start().await;
    assert_eq!(stored_words(&again).await, ["committed"]);
    again.stop().await.unwrap();
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn pid_file_that_names_an_unrelated_process_is_replaced_without_a_signal() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    // As after a reboot: another process has the same id by now, here even of the same user.
    let owner = fs::metadata(home.data_dir().join("server/data")).unwrap();
    let mut sleep = Command::new("sleep");
    if runs_as_root() {
        std::os::unix::process::CommandExt::uid(&mut sleep, owner.uid());
    }
    let mut unrelated = sleep.arg("600").spawn().unwrap();
    let stale = format!("{}\n/somewhere/else\n1700000000\n5432\n\n127.0.0.1\n", unrelated.id());
    fs::write(home.pid_file(), stale).unwrap();

    let local = home.start().await;
    assert_ne!(home.pid(), unrelated.id());
    connect(&local).await;
    local.stop().await.unwrap();
    assert!(unrelated.try_wait().unwrap().is_none(), "the unrelated process got a signal");
    unrelated.kill().unwrap();
    unrelated.wait().unwrap();
}

#[tokio::test]
async fn stale_or_empty_pid_file_does_not_prevent_a_start() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    for stale in [format!("{}\n/somewhere\n1700000000\n5432\n", dead.id()), String::new()] {
        fs::write(home.pid_file(), stale).unwrap();
        let local = home.start().await;
        connect(&local).await;
        local.stop().await.unwrap();
    }
}

#[tokio::test]
async fn orphaned_server_is_adopted_and_stopped_by_the_next_process() {
    let home = Home::new();
    let mut owner = spawn_server_user(&home.data_dir());
    kill_9(owner.id());
    owner.wait().unwrap();
    let orphan = home.pid();

    let local = home.start().await;
    assert_eq!(home.pid(), orphan);
    connect(&local).await;
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn second_process_that_joins_and_leaves_does_not_stop_the_server() {
    let home = Home::new();
    let local = home.start().await;
    let mut other = spawn_server_user(&home.data_dir());
    // The other process stops the server properly at the end of its standard input.
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    connect(&local).await;
}

#[tokio::test]
async fn half_created_cluster_is_removed_by_the_next_start() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    // As after a `kill -9` during initdb: the password file exists and the cluster has its temporary name.
    let data_dir = home.data_dir();
    fs::rename(data_dir.join("server"), data_dir.join("server.new-abcdefgh")).unwrap();
    fs::remove_file(data_dir.join("server.new-abcdefgh/data/PG_VERSION")).unwrap();

    let local = home.start().await;
    connect(&local).await;
    assert!(!data_dir.join("server.new-abcdefgh").exists());
}

#[tokio::test]
async fn lost_or_wrong_password_file_is_reported_and_not_overwritten() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let pgpass = home.data_dir().join("pgpass");
    let password_line = fs::read_to_string(&pgpass).unwrap();
    fs::remove_file(&pgpass).unwrap();
    let error = start(&home.data_dir()).await.unwrap_err();
    assert!(matches!(error, LocalError::PasswordLost { .. }), "{error}");

    fs::write(&pgpass, password_line.replace("rosterd:", "rosterd:other")).unwrap();
    let error = start(&home.data_dir()).await.unwrap_err();
    assert!(matches!(error, LocalError::PasswordRefused { .. }), "{error}");
    assert!(!home.pid_file().exists(), "a failed start should leave no server running");

    fs::write(&pgpass, password_line).unwrap();
    connect(&home.start().await).await;
}

/// The limit matters because a drop blocks the daemon's only thread. It holds if the server hangs, and if another
/// process is starting or stopping the server.
#[tokio::test]
async fn drop_of_a_server_that_does_not_stop_blocks_for_two_seconds_at_most() {
    for lock_is_held in [false, true] {
        let home = Home::new();
        let local = home.start().await;
        let lock = File::open(home.data_dir().join("turn")).unwrap();
        if lock_is_held {
            lock.lock().unwrap();
        }
        let pid = home.pid().to_string();
        let signal =
            |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        signal("-STOP");
        let began = Instant::now();
        drop(local);
        let took = began.elapsed();
        signal("-CONT");
        assert!(took < Duration::from_secs(2), "{took:?}, lock is held: {lock_is_held}");
        drop(lock);
        home.start().await.stop().await.unwrap();
    }
}

#[tokio::test]
async fn failed_start_reports_the_end_of_the_server_log() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let conf = home.data_dir().join("server/data/postgresql.conf");
    fs::write(conf, "no_such_setting = 'on'\n").unwrap();
    let error = start(&home.data_dir()).await.unwrap_err();
    assert!(matches!(error, LocalError::Start { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn cancelled_start_leaves_no_server_running() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let data_dir = home.data_dir();
    for millis in [1, 20, 60, 120, 200] {
        drop(tokio::time::timeout(Duration::from_millis(millis), start(&data_dir)).await);
    }
    let local = home.start().await;
    connect(&local).await;
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn private_server_never_runs_as_root() {
    let home = Home::new();
    let local = home.start().await;
    let server = fs::metadata(home.data_dir().join("server/data")).unwrap().uid();
    assert_ne!(server, 0);
    let pgpass = fs::metadata(home.data_dir().join("pgpass")).unwrap().uid();
    if runs_as_root() {
        assert_eq!(pgpass, 0, "the password file should belong to root");
        assert!(local.notes().is_empty());
    } else {
        assert_eq!(server, pgpass);
    }
}

#[tokio::test]
async fn printed_psql_command_works_and_hides_the_password() {
    let home = Home::new();
    let local = home.start().await;
    let hint = local.psql_hint();
    let url = local.url().expose_secret();
    let password = &url[url.find("rosterd:").unwrap() + 8..url.find('@').unwrap()];
    assert!(!hint.contains(password));
    assert!(!format!("{local:?}").contains(password));
    let output = Command::new("sh").args(["-c", &format!("{hint} -Atc 'SELECT 6 * 7'")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "42", "{output:?}");
}

fn runs_as_root() -> bool {
    // This process owns the files that it creates.
    tempfile::NamedTempFile::new().unwrap().as_file().metadata().unwrap().uid() == 0
}

/// A second process that uses the server of `data_dir`: this test binary with only the test below. Returns once the
/// other process uses the server.
fn spawn_server_user(data_dir: &Path) -> Child {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local_postgres::helper_process_that_uses_the_server", "--nocapture"])
        .env(DATA_DIR_VARIABLE, data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(owner.stdout.take().unwrap());
    assert!(
        output.by_ref().lines().any(|line| line.unwrap().contains("started")),
        "the other process did not start"
    );
    owner.stdout = Some(output.into_inner());
    owner
}

/// Runs in the process that [`spawn_server_user`] starts. Without the variable this test does nothing.
#[tokio::test]
async fn helper_process_that_uses_the_server() {
    let Some(data_dir) = std::env::var_os(DATA_DIR_VARIABLE) else { return };
    let local = start(Path::new(&data_dir)).await.unwrap();
    println!("started");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    local.stop().await.unwrap();
}
