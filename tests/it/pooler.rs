//! rosterd with a real PgBouncer in transaction mode, which does not support prepared statements here. Without
//! PgBouncer on the machine, the tests print that they are skipped.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harvest_sim::{Company, Options};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpStream;
use url::Url;

use crate::program::{Program, STUCK, free_port};
use crate::world::World;

/// A running PgBouncer. A drop stops it.
struct Pooler {
    process: Child,
    url: String,
    _dir: TempDir,
}

impl Pooler {
    /// Starts a pooler for the server of the URL, with fewer server connections than its clients need.
    async fn start(server_url: &str) -> Option<Self> {
        let program = ["pgbouncer", "/usr/sbin/pgbouncer"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_ok());
        let Some(program) = program else {
            eprintln!("SKIPPED: no pgbouncer on this machine");
            return None;
        };
        let server: Url = server_url.parse().unwrap();
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("users.txt");
        fs::write(&users, format!("{:?} {:?}\n", server.username(), server.password().unwrap_or("")))
            .unwrap();
        let settings = dir.path().join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
                 default_pool_size = 3\n",
                server.host_str().unwrap(),
                server.port().unwrap_or(5432),
                users.display(),
            ),
        )
        .unwrap();
        let mut command = Command::new(program);
        if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
            // PgBouncer refuses to run as root, and reads its files as the user that it runs as.
            command.args(["-u", "nobody"]);
            assert!(Command::new("chown").args(["-R", "nobody"]).arg(dir.path()).status().unwrap().success());
        }
        let process = command.arg(&settings).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut url = server;
        url.set_port(Some(port)).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        let pooler = Self { process, url: url.into(), _dir: dir };
        let until_listening = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(STUCK, until_listening).await.expect("the pooler does not start");
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn two_daemons_and_commands_work_through_a_pooler_and_one_daemon_writes() {
    let mut world = World::of(Company::seeded(3, 60, 200), Options::default()).await;
    let Some(pooler) = Pooler::start(world.url()).await else { return };
    let mut program = Program::new(&world.sim, &pooler.url);
    program.set("ROSTERD__DATABASE__PREPARED_STATEMENTS", "false");
    let mut first = program.start();
    first.until("lease.acquired").await;
    first.until("cycle.finished").await;
    let mut second_program = Program::new(&world.sim, &pooler.url);
    second_program.set("ROSTERD__DATABASE__PREPARED_STATEMENTS", "false");
    let mut second = second_program.start();
    second.until("daemon.started").await;

    // Other clients of the pooler share its connections and use them for their own statements.
    let options = rosterd::store::ConnectOptions {
        max_connections: 4,
        prepared_statements: false,
        statement_timeout: Duration::from_secs(30),
    };
    let store = rosterd::store::Store::new(&SecretString::from(pooler.url.as_str()), &options).unwrap();
    let other_clients = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                store.status().await.unwrap();
            }
        }
    });
    for round in 0..5 {
        for user in world.sim.user_ids() {
            world.sim.edit_user(user, |user| user.telephone.push('1'));
        }
        // In this mode notifications do not work, so that the daemon has to poll for the request.
        let called = program.call(&["sync"]).await;
        assert!(
            called.expect(0).stdout().contains("what changed read"),
            "round {round}: {}",
            called.stdout()
        );
    }
    program.call(&["sync", "--full"]).await.expect(0);
    program.call(&["check"]).await.expect(0);
    program.call(&["verify"]).await.expect(0);
    assert!(second_program.probe("/readyz").await.1.contains("\"standby\""));
    other_clients.abort();
    store.close().await;

    first.signal("-TERM");
    assert_eq!(first.ended().await, Some(0));
    second.until("lease.acquired").await;
    let hired = world.sim.create_user("Zoe", "Zander");
    while second.until("cycle.finished").await["events"] == 0 {}
    second.signal("-TERM");
    assert_eq!(second.ended().await, Some(0));
    assert_eq!(world.headlines().await.last().unwrap(), &format!("user.created {hired}"));
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn pooler_without_its_setting_is_reported_with_the_setting() {
    let world = World::new().await;
    let Some(pooler) = Pooler::start(world.url()).await else { return };
    let called = Program::new(&world.sim, &pooler.url).call(&["sync"]).await;
    let sentence = called.expect(78).sentence();
    assert!(sentence.contains("database.prepared_statements = false"), "{sentence}");
}
