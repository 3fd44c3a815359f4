//! `docs/CONSUMING.md` is true: its statements run as those whom they are for, its programs follow events, its examples
//! are of the columns that there are, and nothing that readers get is left out.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harvest_sim::{Company, Options, Sim};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::cluster::Cluster;
use crate::database::TestDatabase;
use crate::program::{Program, STUCK};

pub const GUIDE: &str = include_str!("../../docs/CONSUMING.md");
const ROLES: &str = include_str!("../../deploy/roles.sql");
/// A login for each role, and a place of the reader's own.
const LOGINS: &str = "CREATE ROLE reader LOGIN PASSWORD 'secret' IN ROLE roster_reader;
                      CREATE ROLE consumer LOGIN PASSWORD 'secret' IN ROLE roster_consumer;
                      CREATE SCHEMA review AUTHORIZATION reader";

/// What stands in a fence: the words after its language, and its text.
pub struct Block {
    pub words: Vec<&'static str>,
    pub text: &'static str,
}

impl Block {
    pub fn is(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
}

pub fn blocks(language: &str) -> Vec<Block> {
    blocks_of(GUIDE, language)
}

pub fn blocks_of(guide: &'static str, language: &str) -> Vec<Block> {
    let fenced = guide.split("\n```").skip(1).step_by(2).map(|fenced| fenced.split_once('\n').unwrap());
    fenced
        .map(|(info, text)| (info.split(' ').collect::<Vec<_>>(), text))
        .filter(|(info, _)| info[0] == language)
        .map(|(info, text)| Block { words: info[1..].to_vec(), text })
        .collect()
}

/// A mirror that others read, on a server where roles can be made.
pub struct House {
    cluster: Cluster,
    pub sim: Sim,
    pub program: Program,
}

impl House {
    /// A small company, read once.
    pub async fn new() -> Self {
        let house = Self::of(Company::seeded(5, 20, 40)).await;
        house.program.call(&["sync"]).await.expect(0);
        house
    }

    /// A mirror that is empty yet.
    pub async fn of(company: Company) -> Self {
        let cluster = Cluster::new().await;
        let sim = Sim::start(company, Options::default()).await.unwrap();
        let program = Program::new(&sim, cluster.url());
        program.call(&["migrate"]).await.expect(0);
        cluster.execute(ROLES).await;
        cluster.execute(LOGINS).await;
        Self { cluster, sim, program }
    }

    pub fn url(&self, user: &str) -> String {
        let mut url = Url::parse(self.cluster.url()).unwrap();
        url.set_username(user).unwrap();
        url.set_password(Some("secret")).unwrap();
        url.into()
    }

    pub async fn run(&self, user: &str, statements: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.url(user)).await?;
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.map(drop)
    }

    pub async fn lines(&self, query: &str) -> BTreeSet<String> {
        let mut connection = PgConnection::connect(self.cluster.url()).await.unwrap();
        let lines: Vec<_> =
            sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap();
        lines.into_iter().collect()
    }

    /// One of each change that people make.
    pub async fn stir(&self) {
        let users = self.sim.user_ids();
        self.sim.hire("Nora", "Next");
        self.sim.rename(users[3], "Round", "Robin");
        self.sim.set_email(users[4], "other@example.com");
        self.sim.deactivate(users[5]);
        self.program.call(&["sync", "--full"]).await.expect(0);
    }
}

#[tokio::test]
async fn its_statements_run_as_the_one_whom_they_are_for() {
    let house = House::new().await;
    let statements = blocks("sql");
    assert!(statements.len() > 15);
    for block in &statements {
        let who = block.words[0];
        house.run(who, block.text).await.unwrap_or_else(|error| panic!("{who}: {error}\n{}", block.text));
        if who == "consumer" {
            let refused = house.run("reader", block.text).await.unwrap_err();
            assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"));
        }
    }

    let the = |word: &str| statements.iter().find(|block| block.is(word)).unwrap().text;
    let copy = "SELECT concat_ws(' ', account_id, user_id, version, email, is_active) FROM review.people";
    let mirror = "SELECT concat_ws(' ', account_id, id, version, email, is_active) FROM directory.users";
    assert_eq!(house.lines(copy).await, house.lines(mirror).await);
    house.stir().await;
    assert_ne!(house.lines(copy).await, house.lines(mirror).await);
    house.run("reader", the("follow")).await.unwrap();
    assert_eq!(house.lines(copy).await, house.lines(mirror).await);
    house.run("reader", the("follow")).await.unwrap();
    assert!(
        house
            .lines("SELECT behind::text FROM directory.consumers WHERE name = 'people-copy'")
            .await
            .contains("0")
    );

    house.program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    let lost = house.run("reader", the("follow")).await.unwrap_err();
    assert_eq!(lost.as_database_error().unwrap().code().as_deref(), Some("RS001"));
    house.run("reader", the("load")).await.unwrap();
    house.stir().await;
    house.run("reader", the("follow")).await.unwrap();
    assert_eq!(house.lines(copy).await, house.lines(mirror).await);
}

#[tokio::test]
async fn it_names_everything_that_readers_and_consumers_get() {
    let house = House::new().await;
    let given = house
        .lines(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
              WHERE nspname = 'directory' AND relkind IN ('r', 'v', 'm')
             UNION SELECT format('%I.%I(%s)', nspname, proname, CASE nspname WHEN 'directory' THEN array_to_string(proargnames[:pronargs], ', ') END)
               FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
              WHERE nspname IN ('roster', 'directory') AND has_function_privilege('roster_consumer', pg_proc.oid, 'EXECUTE')",
        )
        .await;
    assert!(given.len() > 30, "{given:?}");
    let missing: Vec<_> = given
        .iter()
        .map(|it| it.trim_end_matches("()"))
        .filter(|it| !GUIDE.contains(&format!("`{it}")))
        .collect();
    assert!(missing.is_empty(), "not in docs/CONSUMING.md: {missing:?}");

    let columns = house
        .lines(
            "SELECT concat_ws('.', table_schema, table_name, column_name) FROM information_schema.columns
              WHERE table_schema = 'directory'",
        )
        .await;
    let mut examples = 0;
    for row in GUIDE.lines().filter(|line| line.starts_with("| `directory.") && line.contains("| `{")) {
        let [view, example] = [1, 3].map(|cell| row.split('|').nth(cell).unwrap().trim().trim_matches('`'));
        let example: serde_json::Map<String, Value> = serde_json::from_str(example).unwrap();
        for column in example.keys() {
            assert!(columns.contains(&format!("{view}.{column}")), "{view} has no {column}");
        }
        examples += 1;
    }
    assert_eq!(examples, given.iter().filter(|it| !it.contains('(')).count(), "a row of each view");
    let event: serde_json::Map<String, Value> = serde_json::from_str(blocks("json")[0].text).unwrap();
    let events: Vec<_> = columns.iter().filter_map(|it| it.strip_prefix("directory.events.")).collect();
    assert_eq!(
        event.keys().collect::<BTreeSet<_>>(),
        events.iter().copied().map(String::from).collect::<BTreeSet<_>>().iter().collect()
    );
    let keys = "SELECT jsonb_object_keys(payload) FROM directory.events WHERE type = 'user.created'";
    assert_eq!(
        event["payload"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>(),
        house.lines(keys).await
    );
}

/// A program that follows events; ended with the test.
pub struct Follower(pub Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Python that has these modules, of these packages: this machine's, or one of the tests' own under this name.
pub fn python(name: &str, modules: &str, packages: &[&str]) -> Option<String> {
    let import = format!("import {modules}");
    let has = |python: &str| {
        let call = Command::new(python).args(["-c", &import]).stderr(Stdio::null()).status();
        call.is_ok_and(|status| status.success())
    };
    let home = &format!("{}/target/{name}-venv", env!("CARGO_MANIFEST_DIR"));
    let own = format!("{home}/bin/python");
    if has("python3") {
        return Some("python3".to_owned());
    }
    if !has(&own) {
        let run = |program: &str, arguments: &[&str]| Command::new(program).args(arguments).output();
        let _ = run("python3", &["-m", "venv", home]);
        let _ = run(&own, &[&["-m", "pip", "install", "--quiet"], packages].concat());
    }
    has(&own).then_some(own)
}

#[tokio::test]
async fn its_python_follows_a_daemon_that_is_killed_and_is_killed_itself() {
    let found = || python("guide", "psycopg", &["psycopg[binary]>=3.2"]);
    let Some(python) = tokio::task::spawn_blocking(found).await.unwrap() else {
        let said = "SKIPPED: the guide's Python recipe, for want of python3 with psycopg 3\n";
        std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).unwrap();
        return;
    };
    // Five pages of each list and more, so that the daemon has something to be killed in.
    let house = House::of(Company::seeded(5, 2_000, 8_000)).await;
    let told = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let out = std::fs::File::create(told.path().join(name)).unwrap();
        let mut command = Command::new(&python);
        command.args(["-c", blocks("python")[0].text]).env("DATABASE_URL", house.url("reader"));
        Follower(command.stdin(Stdio::null()).stdout(out).spawn().unwrap())
    };
    let acked = async |follower: &mut Follower| {
        let give_up = Instant::now() + STUCK;
        let behind = "SELECT behind::text FROM directory.consumers WHERE name = 'access-review'";
        while !house.lines(behind).await.contains("0") {
            assert!(follower.0.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < give_up, "it does not follow");
            sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = |name: &str| -> Vec<String> {
        let lines = std::fs::read_to_string(told.path().join(name)).unwrap();
        lines.lines().filter_map(|line| Some(line.strip_prefix("event ")?.to_owned())).collect()
    };
    let mut follower = start("first");
    let mut daemon = house.program.start();
    let give_up = Instant::now() + STUCK;
    while house.lines("SELECT seq::text FROM roster.outbox_head").await.contains("0") {
        assert!(Instant::now() < give_up, "no events");
        sleep(Duration::from_millis(20)).await;
    }
    daemon.signal("-KILL");
    daemon.ended().await;
    house.program.call(&["sync", "--full"]).await.expect(0);
    acked(&mut follower).await;
    house.stir().await;
    acked(&mut follower).await;
    drop(follower);
    house.sim.hire("Ona", "Onward");
    house.program.call(&["sync"]).await.expect(0);
    let mut follower = start("second");
    acked(&mut follower).await;
    let events = "SELECT concat_ws(' ', seq, type, aggregateid, version) FROM directory.events ORDER BY seq";
    let mut connection = PgConnection::connect(house.cluster.url()).await.unwrap();
    let events: Vec<String> = sqlx::query_scalar(events).fetch_all(&mut connection).await.unwrap();
    assert!(events.len() > 10_000);
    assert!([seen("first"), seen("second")].concat() == events, "each once, in order");

    house.program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    house.sim.hire("Pia", "Past");
    house.program.call(&["sync", "--full"]).await.expect(0);
    acked(&mut follower).await;
    let told = std::fs::read_to_string(told.path().join("second")).unwrap();
    let loaded: BTreeSet<_> =
        told.lines().filter_map(|it| Some(it.strip_prefix("load ")?.to_owned())).collect();
    let mirror = house.lines("SELECT concat_ws(' ', account_id, id, version) FROM directory.users").await;
    assert!(!loaded.is_empty() && loaded.is_subset(&mirror), "it loaded afresh");
}

#[tokio::test]
async fn its_typescript_sends_statements_that_a_reader_may_send() {
    let house = House::new().await;
    let text = blocks("ts")[0].text;
    let sent: Vec<_> =
        text.split("db.query(\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    assert_eq!(sent.len(), 3);
    for statement in sent {
        let tried = if statement.starts_with("LISTEN") {
            statement.to_owned()
        } else {
            format!("PREPARE it AS {statement}")
        };
        house.run("reader", &tried).await.unwrap();
    }
}

#[test]
fn its_recipes_are_short_and_its_rust_is_what_is_compiled() {
    assert_eq!(blocks("rust")[0].text.trim_end(), include_str!("../../examples/follow_outbox.rs").trim_end());
    for language in ["python", "ts", "rust", "sql"] {
        for block in blocks(language) {
            assert!(block.text.lines().count() < 30, "{language}:\n{}", block.text);
        }
    }
}

#[tokio::test]
async fn its_queries_find_their_rows_by_an_index_at_scale() {
    const LARGE: [&str; 5] =
        ["users", "user_assignments", "outbox", "user_history", "user_assignment_history"];
    let database = TestDatabase::new().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    // By themselves, since a vacuum takes no transaction; autovacuum does it elsewhere.
    let joined = "UPDATE roster.accounts SET first_full_at = '2026-01-01'";
    for statements in [include_str!("scale.sql"), "VACUUM ANALYZE", joined] {
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    }
    for block in blocks("sql").into_iter().filter(|block| block.is("indexed") || block.is("everybody")) {
        let query = block.text.trim_end().trim_end_matches(';');
        let explain = AssertSqlSafe(format!("EXPLAIN {query}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut connection).await.unwrap();
        for line in plan.iter().filter_map(|line| line.split_once("Seq Scan on ")) {
            let table = line.1.split(' ').next().unwrap();
            // A question about everybody goes through the people, and through nothing that is larger.
            let may = block.is("everybody") && table == "users";
            assert!(may || !LARGE.contains(&table), "{query}\n{}", plan.join("\n"));
        }
        let found = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap();
        assert!(!found.is_empty(), "nothing found by\n{query}");
    }
}
