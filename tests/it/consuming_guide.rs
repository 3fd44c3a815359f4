//! The statements of the guides run under the roles that they name. The examples of `docs/CONSUMING.md` use existing columns,
//! and it describes every view and function of readers and consumers.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use harvest_sim::{Company, Options, Sim};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use crate::cluster::Cluster;
use crate::program::Program;

const GUIDE: &str = include_str!("../../docs/CONSUMING.md");
/// Guides whose statements run under their role.
const GUIDES: [&str; 5] = [
    GUIDE,
    include_str!("../../docs/ACCESS_REVIEWS.md"),
    include_str!("../../docs/DASHBOARDS.md"),
    include_str!("../../docs/MOVING.md"),
    include_str!("../../docs/TROUBLESHOOTING.md"),
];
const ROLES: &str = include_str!("../../deploy/roles.sql");
/// Has the statements that create the login `reader` and its schema.
const EXAMPLES: &str = include_str!("../../examples/consumers/README.md");
const LOGINS: &str = "CREATE ROLE consumer LOGIN PASSWORD 'secret' IN ROLE roster_consumer;
                      CREATE ROLE auditor LOGIN PASSWORD 'secret' IN ROLE roster_auditor;
                      CREATE ROLE provisioner LOGIN PASSWORD 'secret' IN ROLE roster_provisioner";

/// A fenced code block: the words after its language, and its text.
pub struct Block {
    pub words: Vec<&'static str>,
    pub text: &'static str,
}

impl Block {
    pub fn is(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
}

/// The code blocks of all guides.
pub fn blocks(language: &str) -> Vec<Block> {
    GUIDES.iter().flat_map(|guide| blocks_of(guide, language)).collect()
}

pub fn blocks_of(guide: &'static str, language: &str) -> Vec<Block> {
    let fenced = guide.split("\n```").skip(1).step_by(2).map(|fenced| fenced.split_once('\n').unwrap());
    fenced
        .map(|(info, text)| (info.split(' ').collect::<Vec<_>>(), text))
        .filter(|(info, _)| info[0] == language)
        .map(|(info, text)| Block { words: info[1..].to_vec(), text })
        .collect()
}

/// The code blocks of a guide, also of its lists.
pub fn indented_blocks_of(guide: &str, language: &str) -> Vec<Block> {
    let lines: Vec<_> = guide.lines().map(str::trim_start).collect();
    blocks_of(lines.join("\n").leak(), language)
}

/// A mirror with the roles of `deploy/roles.sql`, on a separate PostgreSQL server.
pub struct MirrorWithRoles {
    pub cluster: Cluster,
    pub sim: Sim,
    pub program: Program,
}

impl MirrorWithRoles {
    /// A mirror of 20 users and 40 assignments after one sync.
    pub async fn new() -> Self {
        let mirror = Self::of(Company::seeded(5, 20, 40)).await;
        mirror.program.call(&["sync"]).await.expect(0);
        mirror
    }

    /// A mirror before the first sync.
    pub async fn of(company: Company) -> Self {
        let cluster = Cluster::new().await;
        let sim = Sim::start(company, Options::default()).await.unwrap();
        let program = Program::new(&sim, cluster.url());
        program.call(&["migrate"]).await.expect(0);
        cluster.execute(ROLES).await;
        cluster.execute(blocks_of(EXAMPLES, "sql")[0].text).await;
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

    /// Makes changes of several kinds at Harvest and mirrors them.
    pub async fn change_and_sync(&self) {
        let users = self.sim.user_ids();
        self.sim.create_user("Nora", "Next");
        self.sim.rename(users[3], "Round", "Robin");
        self.sim.set_email(users[4], "other@example.com");
        self.sim.archive_user(users[5]);
        self.program.call(&["sync", "--full"]).await.expect(0);
    }
}

#[tokio::test]
async fn guide_statements_run_under_their_role() {
    let mirror = MirrorWithRoles::new().await;
    let statements = blocks("sql");
    assert!(statements.len() > 40);
    for block in &statements {
        let role = block.words[0];
        assert!(block.text.lines().count() < 30, "{}", block.text);
        mirror.run(role, block.text).await.unwrap_or_else(|error| panic!("{role}: {error}\n{}", block.text));
        if role == "consumer" {
            let refused = mirror.run("reader", block.text).await.unwrap_err();
            assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"));
        }
    }

    let statement = |word: &str| statements.iter().find(|block| block.is(word)).unwrap().text;
    let copied_rows =
        "SELECT concat_ws(' ', account_id, user_id, version, email, is_active) FROM review.people";
    let mirrored_rows =
        "SELECT concat_ws(' ', account_id, id, version, email, is_active) FROM directory.users";
    assert_eq!(mirror.lines(copied_rows).await, mirror.lines(mirrored_rows).await);
    mirror.change_and_sync().await;
    assert_ne!(mirror.lines(copied_rows).await, mirror.lines(mirrored_rows).await);
    mirror.run("reader", statement("follow")).await.unwrap();
    assert_eq!(mirror.lines(copied_rows).await, mirror.lines(mirrored_rows).await);
    mirror.run("reader", statement("follow")).await.unwrap();
    assert!(
        mirror
            .lines("SELECT behind::text FROM directory.consumers WHERE name = 'people-copy'")
            .await
            .contains("0")
    );

    mirror.program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    let lost = mirror.run("reader", statement("follow")).await.unwrap_err();
    assert_eq!(lost.as_database_error().unwrap().code().as_deref(), Some("RS001"));
    mirror.run("reader", statement("load")).await.unwrap();
    mirror.change_and_sync().await;
    mirror.run("reader", statement("follow")).await.unwrap();
    assert_eq!(mirror.lines(copied_rows).await, mirror.lines(mirrored_rows).await);
}

#[tokio::test]
async fn guide_names_every_view_and_function_of_readers_and_consumers() {
    let mirror = MirrorWithRoles::new().await;
    let names = mirror
        .lines(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
              WHERE nspname = 'directory' AND relkind IN ('r', 'v', 'm')
             UNION SELECT format('%I.%I(%s)', nspname, proname, CASE nspname WHEN 'directory' THEN array_to_string(proargnames[:pronargs], ', ') END)
               FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
              WHERE nspname IN ('roster', 'directory') AND has_function_privilege('roster_consumer', pg_proc.oid, 'EXECUTE')",
        )
        .await;
    assert!(names.len() > 30, "{names:?}");
    let missing: Vec<_> = names
        .iter()
        .map(|name| name.trim_end_matches("()"))
        .filter(|name| !GUIDE.contains(&format!("`{name}")))
        .collect();
    assert!(missing.is_empty(), "not in docs/CONSUMING.md: {missing:?}");

    let columns = mirror
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
    assert_eq!(examples, names.iter().filter(|name| !name.contains('(')).count(), "one row per view");
    let event: serde_json::Map<String, Value> =
        serde_json::from_str(blocks_of(GUIDE, "json")[0].text).unwrap();
    let event_columns: Vec<_> =
        columns.iter().filter_map(|column| column.strip_prefix("directory.events.")).collect();
    assert_eq!(
        event.keys().collect::<BTreeSet<_>>(),
        event_columns.iter().copied().map(String::from).collect::<BTreeSet<_>>().iter().collect()
    );
    let keys = "SELECT jsonb_object_keys(payload) FROM directory.events WHERE type = 'user.created'";
    assert_eq!(
        event["payload"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>(),
        mirror.lines(keys).await
    );
}

/// A child process that follows events; killed at the end of the test.
pub struct Follower(pub Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Python interpreter with these modules: `python3`, or else a virtual environment in `target` with these packages.
pub fn python(name: &str, modules: &str, packages: &[&str]) -> Option<String> {
    let import = format!("import {modules}");
    let has_modules = |python: &str| {
        let status = Command::new(python).args(["-c", &import]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let venv = &format!("{}/target/{name}-venv", env!("CARGO_MANIFEST_DIR"));
    let venv_python = format!("{venv}/bin/python");
    if has_modules("python3") {
        return Some("python3".to_owned());
    }
    if !has_modules(&venv_python) {
        let run = |program: &str, arguments: &[&str]| Command::new(program).args(arguments).output();
        let _ = run("python3", &["-m", "venv", venv]);
        let _ = run(&venv_python, &[&["-m", "pip", "install", "--quiet"], packages].concat());
    }
    has_modules(&venv_python).then_some(venv_python)
}
