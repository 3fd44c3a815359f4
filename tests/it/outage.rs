//! PostgreSQL restarted, failed over, read-only or full: the daemon lives, says so, goes on.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cluster::Cluster;
use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::{Daemon, Program};
use crate::scene::Scene;
use crate::tap::{Tap, When};
use crate::wire::Wire;

/// A daemon whose server can be exchanged under it.
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

    /// How often it has said so until now.
    fn count(&self, event: &str) -> usize {
        self.daemon.said.iter().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count()
    }
}

async fn small_company() -> Sim {
    Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap()
}

/// It is alive, and not ready, for a reason that it tells.
async fn expect_alive_and_not_ready(program: &Program) {
    assert_eq!(program.probe("/livez").await.0, 200);
    let (status, body) = program.probe("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"], &body["database"]), (503, &false.into(), &false.into()), "{body}");
}

#[tokio::test]
async fn a_server_that_goes_away_while_the_daemon_starts_is_waited_for() {
    let (sim, database) = (small_company().await, TestDatabase::blank().await);
    let tap = Tap::to(database.url()).await;
    // At the first look at the schema, and within a migration.
    let cuts = [tap.catch(When::Before, 1, "rosterd_internal"), tap.catch(When::Before, 1, "outbox_head")];
    let mut daemon = Program::new(&sim, tap.url()).start();
    for cut in cuts {
        cut.caught().await.cut();
    }
    daemon.until("cycle.finished").await;
    assert!(daemon.log().contains("waiting for the database to answer again"));
}

#[tokio::test]
async fn a_crash_of_the_server_in_mid_walk_loses_nothing_and_tells_nothing_twice() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let sim = Sim::start(Company::seeded(3, 250, 250), options).await.unwrap();
    sim.inject(Fault::delay(Duration::from_millis(500)).on("/users?cursor").times(2));
    let mut cluster = Cluster::new().await;
    let mut outage = Outage::of(&cluster, sim);
    outage.daemon.until("daemon.started").await;
    outage.mirror.until("SELECT seq = 100 FROM roster.outbox_head").await;
    let stream = outage.stream().await;
    cluster.crash().await;
    outage.daemon.until("budget.unreachable").await;
    outage.daemon.until("cycle.failed").await;
    expect_alive_and_not_ready(&outage.program).await;
    outage.mirror.sim.hire("Meanwhile", "Hired");

    cluster.start().await;
    outage.wire.lead_to(cluster.url());
    // Whichever comes first: the heartbeat, or the worker that tries again.
    outage.daemon.until("budget.recovered").await;
    if outage.count("cycle.finished") == 0 {
        outage.daemon.until("cycle.finished").await;
    }
    let everybody = format!("SELECT count(*) = {} FROM roster.users", outage.mirror.sim.user_ids().len());
    outage.mirror.until(everybody).await;
    outage.mirror.until("SELECT count(*) = 2 FROM roster.watermarks").await;
    outage.mirror.expect_right().await;
    assert_eq!((outage.count("budget.unreachable"), outage.count("budget.recovered")), (1, 1));
    assert_eq!(outage.stream().await, stream, "what was committed is still there");
    assert_eq!(outage.program.probe("/readyz").await.0, 200);
    outage.daemon.signal("-TERM");
    assert_eq!(outage.daemon.ended().await, Some(0));
}

/// A daemon whose server was stopped for a moment, a copy of that server, and one event that the copy lacks.
async fn with_a_copy(standby: bool) -> (Cluster, Cluster, Outage) {
    let mut cluster = Cluster::new().await;
    let mut outage = Outage::of(&cluster, small_company().await);
    outage.daemon.until("cycle.finished").await;
    cluster.stop().await;
    let copy = cluster.copy(standby).await;
    cluster.start().await;
    outage.wire.lead_to(cluster.url());
    let lost = outage.mirror.sim.hire("Lost", "Inthecopy");
    outage.mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {lost})")).await;
    (cluster, copy, outage)
}

#[tokio::test]
async fn a_fail_over_between_two_polls_begins_a_new_stream_and_reads_everything() {
    let (_cluster, copy, mut outage) = with_a_copy(true).await;
    let stream = outage.stream().await;
    copy.promote().await;
    // The server is another one before anybody asks it anything.
    outage.wire.lead_to(copy.url());
    outage.wire.cut().await;
    outage.wire.mend();
    outage.daemon.until_said("a new stream of events begins").await;
    while outage.daemon.until("cycle.finished").await["mode"] != "full" {}
    assert_ne!(outage.stream().await, stream);
    outage.mirror.expect_right().await;
    let missed = "SELECT count(*) FROM roster.outbox WHERE payload->>'stream_id' =
                  (SELECT stream_id::text FROM roster.outbox_head)";
    assert_eq!(outage.mirror.number(missed).await, 1, "what the copy lacked is told anew");
}

#[tokio::test]
async fn a_standby_is_waited_for_until_it_is_promoted() {
    let (cluster, copy, mut outage) = with_a_copy(true).await;
    cluster.crash().await;
    outage.wire.lead_to(copy.url());
    while !outage.daemon.until("budget.unreachable").await["error"].as_str().unwrap().contains("read-only") {}
    assert_eq!(outage.program.probe("/livez").await.0, 200);
    copy.promote().await;
    outage.daemon.until_said("a new stream of events begins").await;
    while outage.daemon.until("cycle.finished").await["mode"] != "full" {}
    outage.mirror.expect_right().await;
}

/// What is wrong with the database of a scene, until it is put right.
async fn goes_on_after(wrong: &str, words: &str, right: &str) {
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
    execute(wrong).await;
    let events = scene.number("SELECT seq FROM roster.outbox_head").await;
    scene.sim.hire("Pat", "Ience");
    // A cycle that waits for permits when its budget cannot be written does not fail.
    let is_said = |entry: &Value| {
        ["cycle.failed", "budget.unreachable"].map(Value::from).contains(&entry["event"])
            && entry["error"].as_str().unwrap().contains(words)
    };
    assert_eq!(daemon.until_entry(words, is_said).await["level"], "WARN");
    assert_eq!(program.probe("/livez").await.0, 200);
    assert_eq!(scene.number("SELECT seq FROM roster.outbox_head").await, events);
    execute(right).await;
    while daemon.until("cycle.finished").await["users_changed"] != 1 {}
    scene.expect_right().await;
    assert_eq!(program.probe("/readyz").await.0, 200);
    let status = program.call(&["status"]).await.expect(0).stdout();
    assert!(!status.contains("failed"), "{status}");
    // PostgreSQL's source line.
    assert!(!daemon.log().contains(" at line "), "{}", daemon.log());
}

#[tokio::test]
async fn a_database_that_is_read_only_for_a_while_is_waited_for() {
    // As an administrator does it: for new sessions, and the old ones are ended.
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'rosterd' AND pid <> pg_backend_pid()";
    let wrong = format!("ALTER DATABASE {{database}} SET default_transaction_read_only = on; {ended}");
    let right = format!(
        "SET default_transaction_read_only = off;
                         ALTER DATABASE {{database}} RESET default_transaction_read_only; {ended}"
    );
    goes_on_after(&wrong, "read-only transaction", &right).await;
}

/// A disk that is full for real takes the right to mount one: a trigger says instead what the server says then. rosterd
/// repeats no words of triggers.
#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let wrong = "CREATE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     RAISE EXCEPTION 'could not extend file \"base/5/2619\": No space left on device'
                           USING ERRCODE = 'disk_full', HINT = 'Check free disk space.';
                 END $$;
                 CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON roster.users
                     FOR EACH ROW EXECUTE FUNCTION public.no_space();";
    let right = "DROP TRIGGER no_space ON roster.users; DROP FUNCTION public.no_space();";
    goes_on_after(wrong, "SQLSTATE 53100", right).await;
}
