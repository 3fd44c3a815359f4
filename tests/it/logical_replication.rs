//! Logical replication of the outbox, set up according to `docs/CONNECTORS.md`. A subscriber gets each event once and in
//! order, also if servers restart and events are emptied or removed meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use harvest_sim::{Company, Options, Sim};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::cluster::Cluster;
use crate::connectors::{CONNECTORS, connector};
use crate::consuming_guide::blocks_of;
use crate::database::store;
use crate::program::{Program, STUCK};
use crate::scene::small_company;

const ROLES: &str = include_str!("../../deploy/roles.sql");
const PUBLICATION: &str = include_str!("../../deploy/publication.sql");
/// One line per event, without the column that a subscriber's table has in addition.
const EVENTS: &str = "SELECT (to_jsonb(event) - 'arrived')::text FROM roster.outbox AS event ORDER BY seq";

/// The guide's statements that are marked with `word`.
fn statements(word: &str) -> String {
    let block = blocks_of(CONNECTORS, "sql").into_iter().find(|block| block.is(word));
    block.unwrap_or_else(|| panic!("no {word}")).text.replace('…', "secret")
}

/// Runs the statements one by one, because some of them cannot run in a transaction.
async fn run(url: &str, statements: &str) {
    let mut session = PgConnection::connect(url).await.unwrap();
    // Inside a block of PL/pgSQL a semicolon does not end the statement.
    let end = if statements.contains("$$") { "$$;\n" } else { ";\n" };
    for statement in statements.split_inclusive(end) {
        let result = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut session).await;
        result.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

async fn lines(url: &str, query: &str) -> Vec<String> {
    let mut session = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut session).await.unwrap()
}

async fn until(url: &str, condition: &str) {
    let give_up = Instant::now() + STUCK;
    while lines(url, &format!("SELECT ({condition})::text")).await != ["true"] {
        assert!(Instant::now() < give_up, "never true: {condition}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A mirror whose outbox is published.
struct Source {
    cluster: Cluster,
    sim: Sim,
    program: Program,
}

impl Source {
    async fn new() -> Self {
        let mut cluster = Cluster::new().await;
        let sim = small_company().await;
        cluster.execute(ROLES).await;
        cluster
            .execute(
                "CREATE ROLE daemon LOGIN PASSWORD 'secret' IN ROLE rosterd_writer;
                 ALTER ROLE daemon SET role = rosterd_writer",
            )
            .await;
        Program::new(&sim, &login(&cluster, "daemon")).call(&["migrate"]).await.expect(0);
        cluster.execute(ROLES).await;
        // `wal_level` is still too low, which causes only a warning.
        for _ in 0..2 {
            run(&login(&cluster, "daemon"), PUBLICATION).await;
        }
        run(cluster.url(), &statements("settings")).await;
        run(cluster.url(), &statements("login")).await;
        cluster.stop().await;
        cluster.start().await;
        let program = Program::new(&sim, &login(&cluster, "daemon"));
        Self { cluster, sim, program }
    }

    fn url(&self) -> &str {
        self.cluster.url()
    }

    /// The URL of the connector's login.
    fn connector_url(&self) -> String {
        login(&self.cluster, "connector")
    }

    async fn sync(&self) {
        self.program.call(&["sync", "--full"]).await.expect(0);
    }

    /// Changes a record of each kind and emits the events.
    async fn emit_events(&self) {
        let user = self.sim.create_user("Nora", "Next");
        self.sim.assign(user, self.sim.project_ids()[0]);
        self.sim.rename(self.sim.user_ids()[3], "Round", &format!("Robin {user}"));
        self.sync().await;
    }

    async fn subscribe(&self, copy: &Cluster) {
        let url = Url::parse(self.url()).unwrap();
        let address = format!(
            "host={} port={} dbname={}",
            url.host_str().unwrap(),
            url.port().unwrap(),
            url.path().trim_start_matches('/')
        );
        let documented = "host=db.example.com dbname=roster";
        let subscription = statements("start");
        assert!(subscription.contains(documented));
        run(copy.url(), &subscription.replace(documented, &address)).await;
    }

    async fn head(&self) -> usize {
        lines(self.url(), "SELECT seq::text FROM roster.outbox_head").await[0].parse().unwrap()
    }

    /// Each event has arrived once. The first `copied` events come from the initial copy of the table, which has no
    /// order; the others arrived in order.
    async fn expect_arrived(&self, copy: &Cluster, copied: usize) {
        let head = self.head().await;
        until(copy.url(), &format!("SELECT coalesce(max(seq), 0) = {head} FROM roster.outbox")).await;
        let arrived = lines(copy.url(), "SELECT seq::text FROM roster.outbox ORDER BY arrived").await;
        let mut arrived: Vec<usize> = arrived.iter().map(|seq| seq.parse().unwrap()).collect();
        arrived[..copied].sort_unstable();
        assert_eq!(arrived, (1..=head).collect::<Vec<_>>());
    }
}

fn login(cluster: &Cluster, user: &str) -> String {
    let mut url = Url::parse(cluster.url()).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some("secret")).unwrap();
    url.into()
}

#[tokio::test]
async fn subscriber_gets_each_event_once_in_order_despite_restarts_and_a_lost_slot() {
    let source = Source::new().await;
    let user = source.sim.create_user("Quentin", "Quagmire");
    source.sync().await;
    let mut copy = Cluster::new().await;
    run(copy.url(), &statements("table")).await;
    copy.execute("ALTER TABLE roster.outbox ADD arrived bigserial").await;
    source.subscribe(&copy).await;
    let copied = source.head().await;
    source.expect_arrived(&copy, copied).await;

    copy.crash().await;
    source.emit_events().await;
    copy.start().await;
    source.expect_arrived(&copy, copied).await;
    copy.stop().await;
    source.emit_events().await;
    copy.start().await;
    let cut = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active";
    source.cluster.execute(cut).await;
    source.emit_events().await;
    source.expect_arrived(&copy, copied).await;
    assert_eq!(lines(copy.url(), EVENTS).await, lines(source.url(), EVENTS).await);

    // The queries of the guide work for the connector's login.
    run(&source.connector_url(), &statements("cloudevent")).await;
    let slot = statements("slot").replace(';', "");
    let slot = format!("SELECT concat_ws(' ', slot_name, active, wal_status) FROM ({slot}) AS slot");
    assert_eq!(lines(&source.connector_url(), &slot).await, ["roster_outbox t reserved"]);

    // The publication does not publish that events were emptied or removed.
    source.program.call(&["forget", "user", &user.to_string(), "--yes"]).await.expect(0);
    let has_name = async |url: &str| lines(url, EVENTS).await.concat().contains("Quagmire");
    assert!(!has_name(source.url()).await);
    let trimmed = store(source.url()).trim_outbox(Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(usize::try_from(trimmed.events).unwrap(), source.head().await);
    source.sim.delete_user(user);
    source.emit_events().await;
    source.expect_arrived(&copy, copied).await;
    assert!(has_name(copy.url()).await, "the copy keeps the events that it got");

    // If the slot is lost while the subscriber is stopped, the subscriber begins again.
    copy.stop().await;
    until(source.url(), "SELECT NOT active FROM pg_replication_slots").await;
    run(&source.connector_url(), "SELECT pg_drop_replication_slot('roster_outbox')").await;
    source.emit_events().await;
    copy.start().await;
    run(copy.url(), &statements("gone")).await;
    run(copy.url(), &statements("again")).await;
    source.subscribe(&copy).await;
    let head = format!("SELECT coalesce(max(seq), 0) = {} FROM roster.outbox", source.head().await);
    until(copy.url(), &head).await;
    assert_eq!(lines(copy.url(), EVENTS).await, lines(source.url(), EVENTS).await);
    run(copy.url(), &statements("again")).await;
    until(source.url(), "SELECT count(*) = 0 FROM pg_replication_slots").await;
}

/// The messages of pgoutput in the slot that are not confirmed yet.
async fn pending_messages(source: &Source, publication: &str) -> Vec<Vec<u8>> {
    // A slot reads only commits that are on the disk, and this server does not write them there at once.
    source.cluster.execute("CHECKPOINT").await;
    let mut session = PgConnection::connect(&source.connector_url()).await.unwrap();
    let peek = "SELECT data FROM pg_logical_slot_peek_binary_changes('look', NULL, NULL, 'proto_version', '1',
                                                                     'publication_names', $1, 'messages', 'true')";
    sqlx::query_scalar(peek).bind(publication).fetch_all(&mut session).await.unwrap()
}

fn kinds(messages: &[Vec<u8>]) -> BTreeSet<char> {
    messages.iter().map(|message| char::from(message[0])).collect()
}

/// The first column of an inserted row. The relation, the number of columns and the column's length precede it.
fn seq(insert: &[u8]) -> String {
    let length = u32::from_be_bytes(insert[9..13].try_into().unwrap()) as usize;
    String::from_utf8(insert[13..13 + length].to_vec()).unwrap()
}

#[tokio::test]
async fn publication_emits_inserted_events_in_order_and_no_updates_or_deletions() {
    let source = Source::new().await;
    source.cluster.execute("CREATE PUBLICATION everything FOR TABLE roster.outbox").await;
    run(&source.connector_url(), "SELECT pg_create_logical_replication_slot('look', 'pgoutput')").await;
    let other = Company::seeded(7, 20, 40).with_account_id(222_222);
    let other = Sim::start(other, Options::default()).await.unwrap();
    let program = Program::new(&other, &login(&source.cluster, "daemon"));
    for _ in 0..3 {
        other.create_user("Otto", "Other");
        let (there, ()) = tokio::join!(program.call(&["sync", "--full"]), source.emit_events());
        there.expect(0);
    }
    let user = source.sim.user_ids()[3].to_string();
    source.program.call(&["forget", "user", &user, "--yes"]).await.expect(0);
    store(source.url()).trim_outbox(Duration::ZERO).await.unwrap().unwrap();
    // Debezium's login may run the statements of its configuration. The heartbeat appears in the log.
    let connector = connector();
    run(&source.connector_url(), &connector["snapshot.select.statement.overrides.roster.outbox"]).await;
    run(&source.connector_url(), &connector["heartbeat.action.query"]).await;

    let messages = pending_messages(&source, "roster_outbox").await;
    assert_eq!(
        kinds(&messages),
        BTreeSet::from(['B', 'C', 'I', 'M', 'R']),
        "begin, commit, insert, message, relation"
    );
    let inserts = messages.iter().filter(|message| message[0] == b'I');
    let inserted: Vec<_> = inserts.map(|message| seq(message)).collect();
    assert_eq!(inserted, (1..=source.head().await).map(|seq| seq.to_string()).collect::<Vec<_>>());
    let everything = kinds(&pending_messages(&source, "everything").await);
    assert!(everything.contains(&'U') && everything.contains(&'D'), "{everything:?}");
}
