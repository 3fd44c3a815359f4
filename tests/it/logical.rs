//! Logical replication of the outbox, set up as `docs/ENGINES.md` says: each event once and in order, whatever is
//! restarted, forgotten or removed meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use harvest_sim::{Company, Options, Sim};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::cluster::Cluster;
use crate::database::store;
use crate::engines::{ENGINES, connector};
use crate::guide::blocks_of;
use crate::program::{Program, STUCK};

const ROLES: &str = include_str!("../../deploy/roles.sql");
const PUBLICATION: &str = include_str!("../../deploy/publication.sql");
/// A line each event; a subscriber's table may have a column more.
const EVENTS: &str = "SELECT (to_jsonb(event) - 'arrived')::text FROM roster.outbox AS event ORDER BY seq";

/// The statements of the guide for this.
fn statements(word: &str) -> String {
    let block = blocks_of(ENGINES, "sql").into_iter().find(|block| block.is(word));
    block.unwrap_or_else(|| panic!("no {word}")).text.replace('…', "secret")
}

/// One by one, since some of them refuse to be in a transaction.
async fn run(url: &str, statements: &str) {
    let mut session = PgConnection::connect(url).await.unwrap();
    // The ends of statements within a block of PL/pgSQL are none.
    let end = if statements.contains("$$") { "$$;\n" } else { ";\n" };
    for statement in statements.split_inclusive(end) {
        let sent = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut session).await;
        sent.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

async fn lines(url: &str, query: &str) -> Vec<String> {
    let mut session = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut session).await.unwrap()
}

async fn until(url: &str, question: &str) {
    let give_up = Instant::now() + STUCK;
    while lines(url, &format!("SELECT ({question})::text")).await != ["true"] {
        assert!(Instant::now() < give_up, "never true: {question}");
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
        let sim = Sim::start(Company::seeded(5, 20, 40), Options::default()).await.unwrap();
        cluster.execute(ROLES).await;
        cluster
            .execute(
                "CREATE ROLE daemon LOGIN PASSWORD 'secret' IN ROLE rosterd_writer;
                 ALTER ROLE daemon SET role = rosterd_writer",
            )
            .await;
        Program::new(&sim, &login(&cluster, "daemon")).call(&["migrate"]).await.expect(0);
        cluster.execute(ROLES).await;
        // The level of the log is too low yet, which is a warning and no more.
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

    fn engine(&self) -> String {
        login(&self.cluster, "engine")
    }

    async fn sync(&self) {
        self.program.call(&["sync", "--full"]).await.expect(0);
    }

    /// Something of each kind is changed, and told.
    async fn stir(&self) {
        let user = self.sim.hire("Nora", "Next");
        self.sim.assign(user, self.sim.project_ids()[0]);
        self.sim.rename(self.sim.user_ids()[3], "Round", &format!("Robin {user}"));
        self.sync().await;
    }

    async fn subscribe(&self, copy: &Cluster) {
        let url = Url::parse(self.url()).unwrap();
        let place = format!(
            "host={} port={} dbname={}",
            url.host_str().unwrap(),
            url.port().unwrap(),
            url.path().trim_start_matches('/')
        );
        let written = "host=db.example.com dbname=roster";
        let subscription = statements("start");
        assert!(subscription.contains(written));
        run(copy.url(), &subscription.replace(written, &place)).await;
    }

    async fn head(&self) -> usize {
        lines(self.url(), "SELECT seq::text FROM roster.outbox_head").await[0].parse().unwrap()
    }

    /// All that was told has arrived, once; in its order after the first copy of so many, which comes as the table lies.
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
async fn a_subscriber_holds_each_event_once_and_in_order_whatever_happens() {
    let source = Source::new().await;
    let user = source.sim.hire("Quentin", "Quagmire");
    source.sync().await;
    let mut copy = Cluster::new().await;
    run(copy.url(), &statements("table")).await;
    copy.execute("ALTER TABLE roster.outbox ADD arrived bigserial").await;
    source.subscribe(&copy).await;
    let copied = source.head().await;
    source.expect_arrived(&copy, copied).await;

    copy.crash().await;
    source.stir().await;
    copy.start().await;
    source.expect_arrived(&copy, copied).await;
    copy.stop().await;
    source.stir().await;
    copy.start().await;
    let cut = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active";
    source.cluster.execute(cut).await;
    source.stir().await;
    source.expect_arrived(&copy, copied).await;
    assert_eq!(lines(copy.url(), EVENTS).await, lines(source.url(), EVENTS).await);

    // What readers of the guide ask, by one who is a reader too.
    run(&source.engine(), &statements("cloudevent")).await;
    let slot = statements("slot").replace(';', "");
    let slot = format!("SELECT concat_ws(' ', slot_name, active, wal_status) FROM ({slot}) AS slot");
    assert_eq!(lines(&source.engine(), &slot).await, ["roster_outbox t reserved"]);

    // It is told to nobody that events were emptied or removed.
    source.program.call(&["forget", "user", &user.to_string(), "--yes"]).await.expect(0);
    let knows = async |url: &str| lines(url, EVENTS).await.concat().contains("Quagmire");
    assert!(!knows(source.url()).await);
    let trimmed = store(source.url()).trim_outbox(Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(usize::try_from(trimmed.events).unwrap(), source.head().await);
    source.sim.delete_user(user);
    source.stir().await;
    source.expect_arrived(&copy, copied).await;
    assert!(knows(copy.url()).await, "the copy keeps what it was told");

    // While it is away its slot is lost: it begins again.
    copy.stop().await;
    until(source.url(), "SELECT NOT active FROM pg_replication_slots").await;
    run(&source.engine(), "SELECT pg_drop_replication_slot('roster_outbox')").await;
    source.stir().await;
    copy.start().await;
    run(copy.url(), &statements("gone")).await;
    run(copy.url(), &statements("afresh")).await;
    source.subscribe(&copy).await;
    let head = format!("SELECT coalesce(max(seq), 0) = {} FROM roster.outbox", source.head().await);
    until(copy.url(), &head).await;
    assert_eq!(lines(copy.url(), EVENTS).await, lines(source.url(), EVENTS).await);
    run(copy.url(), &statements("afresh")).await;
    until(source.url(), "SELECT count(*) = 0 FROM pg_replication_slots").await;
}

/// The messages of pgoutput that wait in the slot.
async fn waiting(source: &Source, publication: &str) -> Vec<Vec<u8>> {
    // Commits of this server need not be on its disk yet, and what is not is not read.
    source.cluster.execute("CHECKPOINT").await;
    let mut session = PgConnection::connect(&source.engine()).await.unwrap();
    let peek = "SELECT data FROM pg_logical_slot_peek_binary_changes('look', NULL, NULL, 'proto_version', '1',
                                                                     'publication_names', $1, 'messages', 'true')";
    sqlx::query_scalar(peek).bind(publication).fetch_all(&mut session).await.unwrap()
}

fn kinds(messages: &[Vec<u8>]) -> BTreeSet<char> {
    messages.iter().map(|message| char::from(message[0])).collect()
}

/// The first column of an inserted row, after the relation, the number of columns and its own length.
fn seq(insert: &[u8]) -> String {
    let length = u32::from_be_bytes(insert[9..13].try_into().unwrap()) as usize;
    String::from_utf8(insert[13..13 + length].to_vec()).unwrap()
}

#[tokio::test]
async fn the_log_has_the_events_in_their_order_and_the_publication_tells_nothing_else() {
    let source = Source::new().await;
    source.cluster.execute("CREATE PUBLICATION everything FOR TABLE roster.outbox").await;
    run(&source.engine(), "SELECT pg_create_logical_replication_slot('look', 'pgoutput')").await;
    let other = Company::seeded(7, 20, 40).with_account_id(222_222);
    let other = Sim::start(other, Options::default()).await.unwrap();
    let program = Program::new(&other, &login(&source.cluster, "daemon"));
    for _ in 0..3 {
        other.hire("Otto", "Other");
        let (there, ()) = tokio::join!(program.call(&["sync", "--full"]), source.stir());
        there.expect(0);
    }
    let user = source.sim.user_ids()[3].to_string();
    source.program.call(&["forget", "user", &user, "--yes"]).await.expect(0);
    store(source.url()).trim_outbox(Duration::ZERO).await.unwrap().unwrap();
    // What Debezium is told to send, its login may send: the heartbeat comes out of the log.
    let connector = connector();
    run(&source.engine(), &connector["snapshot.select.statement.overrides.roster.outbox"]).await;
    run(&source.engine(), &connector["heartbeat.action.query"]).await;

    let messages = waiting(&source, "roster_outbox").await;
    assert_eq!(
        kinds(&messages),
        BTreeSet::from(['B', 'C', 'I', 'M', 'R']),
        "begin, commit, insert, message, relation"
    );
    let told: Vec<_> = messages.iter().filter(|it| it[0] == b'I').map(|it| seq(it)).collect();
    assert_eq!(told, (1..=source.head().await).map(|seq| seq.to_string()).collect::<Vec<_>>());
    let everything = kinds(&waiting(&source, "everything").await);
    assert!(everything.contains(&'U') && everything.contains(&'D'), "{everything:?}");
}
