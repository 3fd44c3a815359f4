//! The private PostgreSQL: made once, shared, and found again whatever was killed.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rosterd::store::local::{LocalError, LocalOptions, LocalPostgres};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};

/// Tells [`the_owner_that_is_killed`] that it is meant, and where its data directory is.
const OWN: &str = "ROSTERD_TEST_OWN_DATA_DIR";

/// A data directory that the server's user can reach, also where the tests run as root.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap())
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("postgres")
    }

    /// Starts or joins the server. No test cuts the power, so it need not wait for the disk.
    async fn start(&self) -> LocalPostgres {
        let options = LocalOptions { durable: false, ..LocalOptions::new(self.data_dir()) };
        LocalPostgres::start_with(&options).await.unwrap()
    }

    fn pid_file(&self) -> PathBuf {
        self.data_dir().join("server/data/postmaster.pid")
    }

    fn pid(&self) -> u32 {
        fs::read_to_string(self.pid_file()).unwrap().lines().next().unwrap().parse().unwrap()
    }
}

async fn connect(local: &LocalPostgres) -> PgConnection {
    PgConnection::connect(local.url().expose_secret()).await.unwrap()
}

async fn remember(local: &LocalPostgres, word: &str) {
    let mut connection = connect(local).await;
    sqlx::query("CREATE TABLE IF NOT EXISTS words (word text)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO words VALUES ($1)").bind(word).execute(&mut connection).await.unwrap();
}

async fn remembered(local: &LocalPostgres) -> Vec<String> {
    sqlx::query_scalar("SELECT word FROM words ORDER BY word")
        .fetch_all(&mut connect(local).await)
        .await
        .unwrap()
}

/// `kill -9`, for a process that is ours.
fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_first_start_makes_a_server_that_only_its_owner_can_read() {
    let home = Home::new();
    let local = LocalPostgres::start(&home.data_dir()).await.unwrap();
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
async fn a_wrong_password_is_refused() {
    let home = Home::new();
    let local = home.start().await;
    let url = local.url().expose_secret();
    let (before, after) = (url.find("rosterd:").unwrap() + 8, url.find('@').unwrap());
    let forged = format!("{}guess{}", &url[..before], &url[after..]);
    let error = PgConnection::connect(&forged).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "28P01");
}

#[tokio::test]
async fn the_second_start_finds_the_data_again() {
    let home = Home::new();
    let local = home.start().await;
    remember(&local, "kept").await;
    local.stop().await.unwrap();
    assert_eq!(remembered(&home.start().await).await, ["kept"]);
}

#[tokio::test]
async fn dropping_the_only_user_stops_the_server() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn two_users_share_one_server_and_the_last_one_stops_it() {
    let home = Home::new();
    let (first, second) = tokio::join!(home.start(), home.start());
    assert_eq!(first.url().expose_secret(), second.url().expose_secret());
    remember(&second, "shared").await;
    first.stop().await.unwrap();
    assert_eq!(remembered(&second).await, ["shared"]);
    second.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn a_server_killed_in_mid_flight_is_started_again_with_its_data() {
    let home = Home::new();
    // A durable one: what it has committed is in the kernel's hands.
    let local = LocalPostgres::start(&home.data_dir()).await.unwrap();
    remember(&local, "committed").await;
    kill(home.pid());
    // The first user still holds his share: he counts on nothing but the directory.
    let again = home.start().await;
    assert_eq!(remembered(&again).await, ["committed"]);
    again.stop().await.unwrap();
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn a_pid_file_that_names_a_stranger_is_set_aside_and_the_stranger_left_alone() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    // As after a reboot: the number belongs to some other process by now, here of the very same user.
    let owner = fs::metadata(home.data_dir().join("server/data")).unwrap();
    let mut sleep = Command::new("sleep");
    if we_are_root() {
        std::os::unix::process::CommandExt::uid(&mut sleep, owner.uid());
    }
    let mut stranger = sleep.arg("600").spawn().unwrap();
    let stale = format!("{}\n/somewhere/else\n1700000000\n5432\n\n127.0.0.1\n", stranger.id());
    fs::write(home.pid_file(), stale).unwrap();

    let local = home.start().await;
    assert_ne!(home.pid(), stranger.id());
    connect(&local).await;
    local.stop().await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_pid_file_of_a_dead_process_or_cut_short_is_no_hindrance() {
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
async fn a_server_whose_owner_was_killed_is_adopted_and_stopped_by_the_next() {
    let home = Home::new();
    let mut owner = spawn_owner(&home.data_dir());
    kill(owner.id());
    owner.wait().unwrap();
    let orphan = home.pid();

    let local = home.start().await;
    assert_eq!(home.pid(), orphan);
    connect(&local).await;
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn another_process_joins_the_server_and_leaves_it_to_us() {
    let home = Home::new();
    let local = home.start().await;
    let mut other = spawn_owner(&home.data_dir());
    // The end of its standard input tells it to stop in good order.
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    connect(&local).await;
}

#[tokio::test]
async fn a_cluster_half_made_is_no_hindrance_and_is_cleared_away() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    // As after a `kill -9` in the middle of initdb: the password is there, the cluster has its working name.
    let data_dir = home.data_dir();
    fs::rename(data_dir.join("server"), data_dir.join("server.new-abcdefgh")).unwrap();
    fs::remove_file(data_dir.join("server.new-abcdefgh/data/PG_VERSION")).unwrap();

    let local = home.start().await;
    connect(&local).await;
    assert!(!data_dir.join("server.new-abcdefgh").exists());
}

#[tokio::test]
async fn a_lost_password_file_is_said_so_and_nothing_is_overwritten() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let pgpass = home.data_dir().join("pgpass");
    let line = fs::read_to_string(&pgpass).unwrap();
    fs::remove_file(&pgpass).unwrap();
    let error = LocalPostgres::start(&home.data_dir()).await.unwrap_err();
    assert!(matches!(error, LocalError::PasswordLost { .. }), "{error}");

    fs::write(&pgpass, line.replace("rosterd:", "rosterd:other")).unwrap();
    let error = LocalPostgres::start(&home.data_dir()).await.unwrap_err();
    assert!(matches!(error, LocalError::PasswordRefused { .. }), "{error}");
    assert!(!home.pid_file().exists(), "a start that failed leaves no server behind");

    fs::write(&pgpass, line).unwrap();
    connect(&home.start().await).await;
}

/// A server that hangs, and another process that is starting or stopping it: a drop blocks the daemon's only thread.
#[tokio::test]
async fn drop_of_a_server_that_does_not_stop_blocks_for_two_seconds_at_most() {
    for turn_is_taken in [false, true] {
        let home = Home::new();
        let local = home.start().await;
        let turn = File::open(home.data_dir().join("turn")).unwrap();
        if turn_is_taken {
            turn.lock().unwrap();
        }
        let pid = home.pid().to_string();
        let signal =
            |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        signal("-STOP");
        let began = Instant::now();
        drop(local);
        let took = began.elapsed();
        signal("-CONT");
        assert!(took < Duration::from_secs(2), "{took:?}, turn is taken: {turn_is_taken}");
        drop(turn);
        home.start().await.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_start_that_fails_shows_the_end_of_the_servers_log() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let conf = home.data_dir().join("server/data/postgresql.conf");
    fs::write(conf, "no_such_setting = 'on'\n").unwrap();
    let error = LocalPostgres::start(&home.data_dir()).await.unwrap_err();
    assert!(matches!(error, LocalError::Start { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_start_given_up_half_way_leaves_no_server_behind() {
    let home = Home::new();
    home.start().await.stop().await.unwrap();
    let data_dir = home.data_dir();
    for millis in [1, 20, 60, 120, 200] {
        drop(tokio::time::timeout(Duration::from_millis(millis), LocalPostgres::start(&data_dir)).await);
    }
    let local = home.start().await;
    connect(&local).await;
    local.stop().await.unwrap();
    assert!(!home.pid_file().exists());
}

#[tokio::test]
async fn the_server_is_never_roots() {
    let home = Home::new();
    let local = home.start().await;
    let server = fs::metadata(home.data_dir().join("server/data")).unwrap().uid();
    assert_ne!(server, 0);
    let pgpass = fs::metadata(home.data_dir().join("pgpass")).unwrap().uid();
    if we_are_root() {
        assert_eq!(pgpass, 0, "the server's user need not read the password");
        assert!(local.notes().is_empty());
    } else {
        assert_eq!(server, pgpass);
    }
}

#[tokio::test]
async fn the_psql_line_works_as_printed_and_does_not_show_the_password() {
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

fn we_are_root() -> bool {
    // A file that we made is ours.
    tempfile::NamedTempFile::new().unwrap().as_file().metadata().unwrap().uid() == 0
}

/// A second process that uses the server of `data_dir`: this test binary again, told to run the test below.
/// Returns when it has its share.
fn spawn_owner(data_dir: &Path) -> Child {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local_postgres::the_owner_that_is_killed", "--nocapture"])
        .env(OWN, data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(owner.stdout.take().unwrap());
    assert!(
        said.by_ref().lines().any(|line| line.unwrap().contains("started")),
        "the other process did not start"
    );
    owner.stdout = Some(said.into_inner());
    owner
}

/// The other process's side; asked for by nobody it has nothing to do.
#[tokio::test]
async fn the_owner_that_is_killed() {
    let Some(data_dir) = std::env::var_os(OWN) else { return };
    let local = LocalPostgres::start(Path::new(&data_dir)).await.unwrap();
    println!("started");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    local.stop().await.unwrap();
}
