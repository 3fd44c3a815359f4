//! The primary server fails over to a standby. The stream of events continues only if every lease holder confirms that the
//! new primary has all events.

use harvest_sim::{Company, Options, Sim};
use rosterd::roster::AccountId;
use rosterd::store::lease::Lease;
use rosterd::store::{Store, StoreError};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::database::store;
use crate::mirror::Mirror;
use crate::program::{Daemon, Program};
use crate::wire::Wire;

const HEAD: &str = "SELECT seq::text FROM roster.outbox_head";
const STREAM: &str = "SELECT stream_id::text FROM roster.outbox_head";

async fn text(url: &str, query: &str) -> String {
    let mut session = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut session).await.unwrap()
}

/// A consumer's next events. An error is its SQLSTATE.
async fn fetch(url: &str) -> Result<Vec<i64>, String> {
    let mut session = PgConnection::connect(url).await.unwrap();
    let events = sqlx::query_scalar("SELECT seq FROM roster.outbox_fetch('copy', 1000)");
    let code = |error: sqlx::Error| error.as_database_error().unwrap().code().unwrap().into_owned();
    events.fetch_all(&mut session).await.map_err(code)
}

/// Fetches and acknowledges all events; returns the last one.
async fn process_all(url: &str) -> i64 {
    let last = *fetch(url).await.unwrap().last().unwrap();
    text(url, &format!("SELECT roster.outbox_ack('copy', {last})::text")).await;
    last
}

/// A server with a streaming standby, and a daemon that reaches the primary through `wire`.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    mirror: Mirror,
    wire: Wire,
    program: Program,
}

impl Pair {
    async fn new() -> Self {
        let mut primary = Cluster::new().await;
        primary.stop().await;
        let standby = primary.copy(true).await;
        primary.start().await;
        let url = Url::parse(primary.url()).unwrap();
        let conninfo = format!(
            "host={} port={} user={} password={}",
            url.host_str().unwrap(),
            url.port().unwrap(),
            url.username(),
            url.password().unwrap()
        );
        standby.execute(&format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'")).await;
        standby.reload().await;
        let sim = Sim::start(Company::seeded(5, 20, 40), Options { limit: None, ..Options::default() })
            .await
            .unwrap();
        let wire = Wire::to(primary.url());
        let mut program = Program::new(&sim, wire.url());
        // Longer than this test may take on a busy machine.
        program.set("ROSTERD__LEASE__TTL", "5m");
        let mirror = Mirror { sim, store: store(wire.url()) };
        Self { primary, standby, mirror, wire, program }
    }

    /// Hires a user and waits for the event.
    async fn hire(&self, name: &str) {
        let user = self.mirror.sim.create_user(name, "Hired");
        self.mirror.until(format!("SELECT EXISTS (SELECT FROM roster.users WHERE id = {user})")).await;
    }

    async fn until_replayed(&self) {
        let flushed = "SELECT pg_current_wal_insert_lsn()::text";
        let end = text(self.primary.url(), flushed).await;
        // The server writes a commit that it does not wait for a moment later.
        self.primary.execute("CHECKPOINT").await;
        let standby = Mirror { sim: self.mirror.sim.clone(), store: store(self.standby.url()) };
        standby.until(format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{end}', false)")).await;
    }

    /// Stops replication: the standby gets no later commit.
    async fn detach(&self) {
        self.standby.execute("ALTER SYSTEM RESET primary_conninfo").await;
        self.standby.reload().await;
        self.mirror.until("SELECT NOT EXISTS (SELECT FROM pg_stat_replication)").await;
    }

    async fn switch_over(&self) {
        self.standby.promote().await;
        self.standby.end_wait_for_lost_permits().await;
        self.wire.lead_to(self.standby.url());
        self.wire.cut().await;
        self.wire.restore();
    }

    async fn started(&self) -> Daemon {
        let mut daemon = self.program.start();
        daemon.until("cycle.finished").await;
        daemon
    }
}

#[tokio::test]
async fn promoted_standby_with_all_events_continues_the_stream() {
    let mut pair = Pair::new().await;
    let mut daemon = pair.started().await;
    let stream = text(pair.primary.url(), STREAM).await;
    let first = process_all(pair.primary.url()).await;
    pair.hire("Meanwhile").await;
    pair.primary.stop().await;
    pair.switch_over().await;
    daemon.until("stream.continued").await;
    pair.hire("Next").await;
    assert_eq!(text(pair.standby.url(), STREAM).await, stream);
    assert_eq!(fetch(pair.standby.url()).await.unwrap(), [first + 1, first + 2]);
    pair.mirror.expect_right().await;

    // The daemon also continues after a second promotion, of a copy of the server.
    pair.standby.stop().await;
    let third = pair.standby.copy(true).await;
    third.promote().await;
    third.end_wait_for_lost_permits().await;
    pair.wire.lead_to(third.url());
    daemon.until("stream.continued").await;
    pair.hire("Third").await;
    assert_eq!(text(third.url(), STREAM).await, stream);
    assert_eq!(fetch(third.url()).await.unwrap(), [first + 1, first + 2, first + 3]);
    assert!(!daemon.log().contains("stream.begun"));
}

#[tokio::test]
async fn promoted_standby_without_the_last_event_begins_a_new_stream() {
    let pair = Pair::new().await;
    let mut daemon = pair.started().await;
    let stream = text(pair.primary.url(), STREAM).await;
    let first = process_all(pair.primary.url()).await;
    pair.until_replayed().await;
    pair.detach().await;
    pair.hire("Lost").await;
    assert_eq!(process_all(pair.primary.url()).await, first + 1);
    pair.primary.crash().await;
    pair.switch_over().await;
    daemon.until("stream.begun").await;
    while daemon.until("cycle.finished").await["mode"] != "full" {}
    assert_ne!(text(pair.standby.url(), STREAM).await, stream);
    assert_eq!(fetch(pair.standby.url()).await.unwrap_err(), "RS001");
    pair.mirror.expect_right().await;
    assert_eq!(text(pair.standby.url(), HEAD).await, (first + 1).to_string());
}

/// No process that runs knows whether the process that ended wrote more events.
#[tokio::test]
async fn promotion_while_no_daemon_runs_begins_a_new_stream() {
    let mut pair = Pair::new().await;
    let mut daemon = pair.started().await;
    let stream = text(pair.primary.url(), STREAM).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    pair.primary.stop().await;
    pair.switch_over().await;
    let mut daemon = pair.program.start();
    daemon.until("stream.begun").await;
    assert_ne!(text(pair.standby.url(), STREAM).await, stream);
}

/// Processes without a daemon, each with an own memory, on one server after another.
struct Holders {
    servers: [Cluster; 2],
    wire: Wire,
    processes: [(Uuid, Store); 2],
}

impl Holders {
    /// Two processes hold the lease of an account each. The second server is a copy of the first.
    async fn new() -> Self {
        let mut server = Cluster::new().await;
        let wire = Wire::to(server.url());
        let processes = [(); 2].map(|()| (Uuid::new_v4(), store(wire.url())));
        processes[0].1.migrate().await.unwrap();
        for ((replica, store), account) in processes.iter().zip([1, 2]) {
            server
                .execute(&format!(
                    "INSERT INTO roster.replicas VALUES ('{replica}', 'test', now(), now() + interval '1 hour')"
                ))
                .await;
            let acquire = async || store.acquire(AccountId(account), *replica).await.unwrap();
            if account > 1 {
                assert!(
                    matches!(acquire().await, Lease::Held { .. }),
                    "the first holder does not know the account"
                );
                server.execute("UPDATE roster.accounts SET free_at = now()").await;
            }
            assert!(matches!(acquire().await, Lease::Acquired(_)));
        }
        for (replica, store) in &processes {
            store.observe_timeline(*replica).await.unwrap();
        }
        server.stop().await;
        let copy = server.copy(true).await;
        server.start().await;
        wire.lead_to(server.url());
        Self { servers: [server, copy], wire, processes }
    }

    async fn fail_over(&mut self) {
        self.servers[0].stop().await;
        self.servers[1].promote().await;
        self.wire.lead_to(self.servers[1].url());
    }

    async fn check(&self, holder: usize) -> Result<(), StoreError> {
        self.processes[holder].1.check_timeline().await
    }

    async fn stream(&self) -> String {
        text(self.servers[1].url(), STREAM).await
    }
}

#[tokio::test]
async fn every_lease_holder_must_confirm_before_the_stream_continues() {
    let mut holders = Holders::new().await;
    // One process knows an event that the standby does not get.
    holders.servers[0].execute("UPDATE roster.outbox_head SET seq = seq + 1").await;
    let witness = store(holders.wire.url());
    witness.observe_timeline(Uuid::new_v4()).await.unwrap();
    let stream = holders.stream().await;
    holders.fail_over().await;
    assert!(matches!(holders.check(0).await, Err(StoreError::Undecided)));
    let newcomer = store(holders.wire.url());
    assert!(matches!(newcomer.acquire(AccountId(3), Uuid::new_v4()).await.unwrap(), Lease::Held { .. }));
    holders.check(1).await.unwrap();
    holders.check(0).await.unwrap();
    newcomer.check_timeline().await.unwrap();
    assert_eq!(holders.stream().await, stream);
    witness.check_timeline().await.unwrap();
    assert_ne!(holders.stream().await, stream, "the lost event was not noticed");
}

#[tokio::test]
async fn lease_holder_that_died_in_the_failover_ends_the_stream() {
    let mut holders = Holders::new().await;
    let stream = holders.stream().await;
    holders.fail_over().await;
    assert!(matches!(holders.check(0).await, Err(StoreError::Undecided)));
    let expire =
        format!("UPDATE roster.replicas SET expires_at = now() WHERE id = '{}'", holders.processes[1].0);
    holders.servers[1].execute(&expire).await;
    holders.check(0).await.unwrap();
    assert_ne!(holders.stream().await, stream);
}
