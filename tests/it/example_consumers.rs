//! The programs of `examples/consumers` keep a copy equal to the mirror while they are killed, and after events were lost.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harvest_sim::Company;
use tokio::time::{Instant, sleep};

use crate::consuming_guide::{Follower, MirrorWithRoles, python};
use crate::program::STUCK;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const COPY: &str = "SELECT concat_ws(' ', account_id, user_id, version, email, is_active) FROM review.people";
const MIRRORED: &str = "SELECT concat_ws(' ', account_id, id, version, email, is_active) FROM directory.users
                         UNION ALL SELECT concat_ws(' ', account_id, id, version, email, false) FROM directory.deleted_users";
const LAG: &str = "SELECT behind::text FROM directory.consumers WHERE name = 'people-copy'";

fn runs(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A directory in `target` with the files of the example, so that nothing is installed into the sources.
fn copied(language: &str) -> PathBuf {
    let (from, to) = (
        Path::new(ROOT).join("examples/consumers").join(language),
        format!("{ROOT}/target/consumers/{language}"),
    );
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), Path::new(&to).join(entry.file_name())).unwrap();
    }
    to.into()
}

fn python_consumer() -> Option<Command> {
    let dir = copied("python");
    let requirements = std::fs::read_to_string(dir.join("requirements.txt")).unwrap();
    let mut command = Command::new(python("guide", "psycopg", &[requirements.trim()])?);
    command.arg(dir.join("consumer.py"));
    Some(command)
}

/// The driver and the compiler come from the registry, or from Debian's packages, which `.ci/run` unpacks into the directory.
fn typescript_consumer() -> Option<Command> {
    let dir = copied("typescript");
    let tsc = dir.join("node_modules/typescript/bin/tsc");
    let is_installed = dir.join("node_modules/pg").exists() && tsc.exists()
        || runs(Command::new("npm").args(["install", "--silent", "--fetch-retries=0"]).current_dir(&dir));
    if !is_installed || !runs(Command::new("node").arg("--version")) {
        return None;
    }
    let compiled = runs(Command::new("node").arg(tsc).current_dir(&dir));
    // Without the types of Node.js and the driver, errors of types do not count.
    let has_types = ["node", "pg"].iter().all(|it| dir.join("node_modules/@types").join(it).exists());
    assert!(compiled || !has_types, "the program has errors");
    let mut command = Command::new("node");
    command.arg(dir.join("consumer.js"));
    Some(command)
}

/// The driver comes from the module proxy, or is Debian's package, which has no module.
fn go_consumer() -> Option<Command> {
    let dir = copied("go");
    let build = |module: &str| {
        let mut go = Command::new("go");
        go.env("GO111MODULE", module).args(["build", "-o", "consumer", "."]).current_dir(&dir);
        let packaged = std::env::var("GOPATH").unwrap_or_else(|_| "/usr/share/gocode".to_owned());
        runs(if module == "off" { go.env("GOPATH", packaged) } else { &mut go })
    };
    let tidy = || runs(Command::new("go").args(["mod", "tidy"]).current_dir(&dir));
    (build("off") || tidy() && build("on")).then(|| Command::new(dir.join("consumer")))
}

/// `cargo test` builds it; `cargo test --test it` alone does not.
fn rust_consumer() -> Option<Command> {
    let program = Path::new(env!("CARGO_BIN_EXE_rosterd")).with_file_name("examples").join("people_copy");
    program.exists().then(|| Command::new(program))
}

fn start(command: &mut Command, mirror: &MirrorWithRoles) -> Follower {
    // lib/pq uses TLS by default, and the server of the tests has none.
    command.env("DATABASE_URL", mirror.url("reader")).env("PGSSLMODE", "disable");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Follower(command.spawn().unwrap())
}

/// Waits until the copy has what the mirror has. The daemon does not change the mirror any more.
async fn wait_until_equal(follower: &mut Follower, mirror: &MirrorWithRoles) {
    let give_up = Instant::now() + STUCK;
    while !mirror.lines(LAG).await.contains("0") || mirror.lines(COPY).await != mirror.lines(MIRRORED).await {
        assert!(follower.0.try_wait().unwrap().is_none(), "the consumer ended");
        assert!(Instant::now() < give_up, "the copy does not become equal to the mirror");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn keeps_an_equal_copy(language: &str, find: fn() -> Option<Command>) {
    let Some(mut command) = tokio::task::spawn_blocking(find).await.unwrap() else {
        let message =
            format!("SKIPPED: the {language} consumer: the language or its driver is not available\n");
        std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes()).unwrap();
        return;
    };
    // Several pages of each list, so that the kill hits the daemon during its first read.
    let mirror = MirrorWithRoles::of(Company::seeded(5, 400, 2_500)).await;
    let mut follower = start(&mut command, &mirror);
    let mut daemon = mirror.program.start();
    let give_up = Instant::now() + STUCK;
    while mirror.lines("SELECT seq::text FROM roster.outbox_head").await.contains("0") {
        assert!(Instant::now() < give_up, "no events");
        sleep(Duration::from_millis(20)).await;
    }
    daemon.signal("-KILL");
    daemon.ended().await;
    mirror.program.call(&["sync", "--full"]).await.expect(0);
    wait_until_equal(&mut follower, &mirror).await;
    let acknowledged = "SELECT acked_seq::text FROM directory.consumers WHERE name = 'people-copy'";
    for round in 0..3 {
        let before = mirror.lines(acknowledged).await;
        for user in mirror.sim.user_ids().into_iter().skip(10 + 40 * round).take(40) {
            mirror.sim.set_email(user, &format!("{round}.{user}@example.com"));
        }
        mirror.sim.delete_user(mirror.sim.user_ids()[300]);
        mirror.program.call(&["sync", "--full"]).await.expect(0);
        // Usually before the last acknowledgement.
        drop(follower);
        follower = start(&mut command, &mirror);
        wait_until_equal(&mut follower, &mirror).await;
        assert_ne!(mirror.lines(acknowledged).await, before);
    }
    mirror.program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    mirror.change_and_sync().await;
    wait_until_equal(&mut follower, &mirror).await;
}

#[tokio::test]
async fn python_consumer_keeps_an_equal_copy_across_kills_and_a_new_stream() {
    keeps_an_equal_copy("Python", python_consumer).await;
}

#[tokio::test]
async fn typescript_consumer_keeps_an_equal_copy_across_kills_and_a_new_stream() {
    keeps_an_equal_copy("TypeScript", typescript_consumer).await;
}

#[tokio::test]
async fn go_consumer_keeps_an_equal_copy_across_kills_and_a_new_stream() {
    keeps_an_equal_copy("Go", go_consumer).await;
}

#[tokio::test]
async fn rust_consumer_keeps_an_equal_copy_across_kills_and_a_new_stream() {
    keeps_an_equal_copy("Rust", rust_consumer).await;
}
