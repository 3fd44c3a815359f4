//! PostgreSQL restarts, fails over, is read-only or has a full disk: the daemon stays alive, logs the cause and
//! continues.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cluster::Cluster;
use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::{Daemon, Program};
use crate::scene::Scene;
use crate::statement_proxy::{StatementProxy, When};
use crate::wire::Wire;

/// A running daemon, and the connection by which the test replaces the daemon's server.
struct Outage {
    mirror: Mirror,
    wire: Wire,
    program: Program,
    daemon: Daemon,
}

impl Outage {
    fn of(cluster: &Cluster, sim: Sim) -> Self {
        let wire = Wire::to(cluster.url());
        let program = Program::new(&sim, wire.url());
        let daemon = program.start();
        let mirror = Mirror { sim, store: store(wire.url()) };
        Self { mirror, wire, program, daemon }
    }

    async fn stream(&self) -> String {
        let stream = sqlx::query_scalar("SELECT stream_id::text FROM roster.outbox_head");
        stream.fetch_one(self.mirror.store.pool()).await.unwrap()
    }

    /// How often the daemon has logged this event.
    fn count(&self, event: &str) -> usize {
        self.daemon.said.iter().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count()
    }
}

async fn without_limit() -> Sim {
    Sim::start(Company::seeded(5, 20, 40), Options { limit: None, ..Options::default() }).await.unwrap()
}

/// The daemon is alive and reports that it is not ready because of the database.
async fn expect_alive_and_not_ready(program: &Program) {
    assert_eq!(program.probe("/livez").await.0, 200);
    let (status, body) = program.probe("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"], &body["database"]), (503, &false.into(), &false.into()), "{body}");
}

#[tokio::test]
async fn daemon_waits_for_a_server_that_disconnects_during_the_start() {
    let (sim, database) = (without_limit().await, TestDatabase::blank().await);
    let proxy = StatementProxy::to(database.url()).await;
    // At the first query of the schema, and within a migration.
    let cuts =
        [proxy.catch(When::Before, 1, "rosterd_internal"), proxy.catch(When::Before, 1, "outbox_head")];
    let mut daemon = Program::new(&sim, proxy.url()).start();
    for cut in cuts {
        cut.caught().await.cut();
    }
    daemon.until("cycle.finished").await;
    assert!(daemon.log().contains("waiting for the database"));
}

#[tokio::test]
async fn server_crash_during_pagination_loses_no_event_and_repeats_none() {
    let options = Options { max_per_page: 100, limit: None, ..Options::default() };
    let sim = Sim::start(Company::seeded(3, 250, 250), options).await.unwrap();
    sim.inject(Fault::delay_request(Duration::from_millis(500)).on("/users?cursor").times(2));
    let mut cluster = Cluster::new().await;
    let mut outage = Outage::of(&cluster, sim);
    outage.daemon.until("daemon.started").await;
    outage.mirror.until("SELECT seq = 100 FROM roster.outbox_head").await;
    let stream = outage.stream().await;
    cluster.crash().await;
    outage.daemon.until("budget.unreachable").await;
    outage.daemon.until("cycle.failed").await;
    expect_alive_and_not_ready(&outage.program).await;
    outage.mirror.sim.create_user("Meanwhile", "Hired");

    cluster.start().await;
    cluster.end_wait_for_lost_permits().await;
    outage.wire.lead_to(cluster.url());
    // The order is not fixed: the heartbeat and the worker both retry.
    outage.daemon.until("budget.recovered").await;
    if outage.count("cycle.finished") == 0 {
        outage.daemon.until("cycle.finished").await;
    }
    let all_users = format!("SELECT count(*) = {} FROM roster.users", outage.mirror.sim.user_ids().len());
    outage.mirror.until(all_users).await;
    outage.mirror.until("SELECT count(*) = 2 FROM roster.watermarks").await;
    outage.mirror.expect_right().await;
    assert_eq!((outage.count("budget.unreachable"), outage.count("budget.recovered")), (1, 1));
    assert_eq!(outage.stream().await, stream, "a server that kept its commits continues the stream");
    outage.program.until_ready(200).await;
    outage.daemon.signal("-TERM");
    assert_eq!(outage.daemon.ended().await, Some(0));
}

/// A daemon with its server, and a copy of the server without the last event.
async fn server_and_older_copy(standby: bool) -> (Cluster, Cluster, Outage) {
    let mut cluster = Cluster::new().await;
    let mut outage = Outage::of(&cluster, without_limit().await);
    outage.daemon.until("cycle.finished").await;
    cluster.stop().await;
    let copy = cluster.copy(standby).await;
    cluster.start().await;
    outage.wire.lead_to(cluster.url());
    let lost = outage.mirror.sim.create_user("Lost", "Inthecopy");
    outage.mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {lost})")).await;
    (cluster, copy, outage)
}

#[tokio::test]
async fn failover_between_two_polls_begins_a_new_stream_and_a_full_read() {
    let (_cluster, copy, mut outage) = server_and_older_copy(true).await;
    let stream = outage.stream().await;
    copy.promote().await;
    copy.end_wait_for_lost_permits().await;
    // The new server takes over before rosterd's next query.
    outage.wire.lead_to(copy.url());
    outage.wire.cut().await;
    outage.wire.restore();
    outage.daemon.until_said("a new stream of events begins").await;
    while outage.daemon.until("cycle.finished").await["mode"] != "full" {}
    assert_ne!(outage.stream().await, stream);
    outage.mirror.expect_right().await;
    let repeated = "SELECT count(*) FROM roster.outbox WHERE payload->>'stream_id' =
                  (SELECT stream_id::text FROM roster.outbox_head)";
    assert_eq!(outage.mirror.number(repeated).await, 1, "the event that the copy lacks is emitted again");
}

#[tokio::test]
async fn daemon_waits_for_a_standby_server_until_its_promotion() {
    let (cluster, copy, mut outage) = server_and_older_copy(true).await;
    cluster.crash().await;
    outage.wire.lead_to(copy.url());
    while !outage.daemon.until("budget.unreachable").await["error"].as_str().unwrap().contains("read-only") {}
    assert_eq!(outage.program.probe("/livez").await.0, 200);
    copy.promote().await;
    copy.end_wait_for_lost_permits().await;
    outage.daemon.until_said("a new stream of events begins").await;
    while outage.daemon.until("cycle.finished").await["mode"] != "full" {}
    outage.mirror.expect_right().await;
}

/// Runs `break_database`, expects an error with `words`, and expects that cycles succeed after `repair_database`.
async fn expect_recovery(break_database: &str, words: &str, repair_database: &str) {
    let scene = Scene::new().await;
    let program = scene.program();
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let database: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(scene.store.pool()).await.unwrap();
    let mut connection = PgConnection::connect(scene.url()).await.unwrap();
    let mut execute = async |statements: &str| {
        let statements = statements.replace("{database}", &database);
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    };
    execute(break_database).await;
    let events = scene.number("SELECT seq FROM roster.outbox_head").await;
    scene.sim.create_user("Pat", "Ience");
    // The budget may be the first to fail. Then the cycle waits for permits and does not fail.
    let is_reported = |entry: &Value| {
        ["cycle.failed", "budget.unreachable"].map(Value::from).contains(&entry["event"])
            && entry["error"].as_str().unwrap().contains(words)
    };
    assert_eq!(daemon.until_entry(words, is_reported).await["level"], "WARN");
    assert_eq!(program.probe("/livez").await.0, 200);
    assert_eq!(scene.number("SELECT seq FROM roster.outbox_head").await, events);
    execute(repair_database).await;
    while daemon.until("cycle.finished").await["users_changed"] != 1 {}
    scene.expect_right().await;
    program.until_ready(200).await;
    let status = program.call(&["status"]).await.expect(0).stdout();
    assert!(!status.contains("failed"), "{status}");
    // Messages of rosterd must not quote lines of PostgreSQL's source code. sqlx may.
    let log = daemon.log();
    let own = log.lines().filter(|line| !line.contains("\"event\":\"library\""));
    assert_eq!(own.filter(|line| line.contains(" at line ")).count(), 0, "{log}");
}

#[tokio::test]
async fn daemon_continues_after_the_database_was_read_only() {
    // As an administrator does it: the setting applies to new sessions, and the open sessions are terminated.
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'rosterd' AND pid <> pg_backend_pid()";
    let set_read_only =
        format!("ALTER DATABASE {{database}} SET default_transaction_read_only = on; {end_sessions}");
    let reset_read_only = format!(
        "SET default_transaction_read_only = off;
                         ALTER DATABASE {{database}} RESET default_transaction_read_only; {end_sessions}"
    );
    expect_recovery(&set_read_only, "read-only transaction", &reset_read_only).await;
}

/// A trigger raises the server's error, because mounting a small disk would need more rights. rosterd does not repeat
/// a trigger's message.
#[tokio::test]
async fn daemon_continues_after_the_disk_was_full() {
    let fill_disk = "CREATE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     RAISE EXCEPTION 'could not extend file \"base/5/2619\": No space left on device'
                           USING ERRCODE = 'disk_full', HINT = 'Check free disk space.';
                 END $$;
                 CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON roster.users
                     FOR EACH ROW EXECUTE FUNCTION public.no_space();";
    let free_disk = "DROP TRIGGER no_space ON roster.users; DROP FUNCTION public.no_space();";
    expect_recovery(fill_disk, "SQLSTATE 53100", free_disk).await;
}
