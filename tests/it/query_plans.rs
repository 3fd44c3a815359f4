//! Plans for companies with 20,000 users and 1,000,000 assignments: no question of `docs/CONSUMING.md` and no statement of the
//! daemon reads a large table sequentially, and each index serves one of them.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rosterd::store::{ConnectOptions, Store};
use secrecy::SecretString;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::consuming_guide::blocks;
use crate::database::TestDatabase;

const LARGE_TABLES: [&str; 5] =
    ["users", "user_assignments", "outbox", "user_history", "user_assignment_history"];

/// Statements of the daemon that may read a whole table: what their text begins with, and the reason.
const READS_EVERYTHING: [(&str, &str); 2] = [
    ("UPDATE roster.outbox SET payload", "`rosterd forget`; no index has the users of assignments"),
    (
        "SELECT EXISTS (SELECT FROM roster.users",
        "runs once, at the start, and stops at the first row with pay data",
    ),
];

/// Indexes for statements and constraints inside functions.
const IN_FUNCTIONS: [&str; 2] = ["writes_open_email", "writes_created"];

/// Text and number of parameters of each statement that the program was built with.
fn daemon_statements() -> Vec<(String, usize)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let json: Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let parameters = json["describe"]["parameters"]["Left"].as_array().unwrap().len();
        (json["query"].as_str().unwrap().to_owned(), parameters)
    };
    fs::read_dir(dir).unwrap().map(read).collect()
}

async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await.unwrap();
}

/// A database with the companies and their history.
async fn companies() -> (TestDatabase, PgConnection) {
    let database = TestDatabase::new().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let end_first_read = "UPDATE roster.accounts SET first_full_at = '2026-01-01'";
    // Separate statements, because VACUUM runs outside a transaction; in production autovacuum does its work.
    for statements in
        [include_str!("scale.sql"), include_str!("scale_history.sql"), end_first_read, "VACUUM ANALYZE"]
    {
        execute(&mut connection, statements).await;
    }
    (database, connection)
}

async fn plan(connection: &mut PgConnection, explained: &str) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN {explained}"));
    sqlx::query_scalar(explain).fetch_all(connection).await.unwrap()
}

/// The plan of a statement with parameters, whatever their values.
async fn generic_plan(connection: &mut PgConnection, statement: &str, parameters: usize) -> Vec<String> {
    execute(connection, &format!("PREPARE statement AS {statement}")).await;
    let nulls = vec!["NULL"; parameters].join(", ");
    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let plan = plan(connection, &format!("EXECUTE statement{nulls}")).await;
    execute(connection, "DEALLOCATE statement").await;
    plan
}

fn sequentially_read(plan: &[String]) -> BTreeSet<&str> {
    let tables = plan.iter().filter_map(|line| line.split_once("Seq Scan on ")?.1.split(' ').next());
    tables.filter(|table| LARGE_TABLES.contains(table)).collect()
}

fn used_indexes(plan: &[String]) -> impl Iterator<Item = String> {
    plan.iter().filter_map(|line| {
        let (_, rest) = line.split_once(" using ").or_else(|| line.split_once("Bitmap Index Scan on "))?;
        Some(rest.split(' ').next()?.to_owned())
    })
}

#[tokio::test]
async fn no_question_or_daemon_statement_scans_a_large_table_and_each_index_is_used() {
    let (_database, mut connection) = companies().await;
    let mut used = BTreeSet::new();
    for block in blocks("sql").into_iter().filter(|block| block.is("indexed") || block.is("everybody")) {
        let question = block.text.trim_end().trim_end_matches(';');
        let plan = plan(&mut connection, question).await;
        let mut scanned = sequentially_read(&plan);
        // A question about all users may read all users.
        scanned.retain(|table| !(block.is("everybody") && *table == "users"));
        assert!(scanned.is_empty(), "{question}\n{}", plan.join("\n"));
        used.extend(used_indexes(&plan));
        let found = sqlx::query(AssertSqlSafe(question.to_owned())).fetch_all(&mut connection).await.unwrap();
        assert!(!found.is_empty(), "no rows from\n{question}");
    }

    execute(&mut connection, "SET plan_cache_mode = force_generic_plan").await;
    let mut scans = Vec::new();
    for (statement, parameters) in daemon_statements() {
        // The others, such as CREATE, have no plan.
        if !["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"]
            .iter()
            .any(|verb| statement.trim_start().starts_with(verb))
        {
            continue;
        }
        let plan = generic_plan(&mut connection, &statement, parameters).await;
        let words: Vec<&str> = statement.split_whitespace().collect();
        let is_allowed = READS_EVERYTHING.iter().any(|(text, _)| words.join(" ").starts_with(text));
        if !is_allowed && !sequentially_read(&plan).is_empty() {
            scans.push(format!("{statement}\n{}", plan.join("\n")));
        }
        used.extend(used_indexes(&plan));
    }
    assert!(scans.is_empty(), "{}", scans.join("\n\n"));

    let indexes = "SELECT relname::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                    WHERE relnamespace = 'roster'::regnamespace AND NOT indisprimary";
    let indexes: Vec<String> = sqlx::query_scalar(indexes).fetch_all(&mut connection).await.unwrap();
    let is_needed = |index: &str| used.contains(index) || IN_FUNCTIONS.contains(&index);
    let unused: Vec<_> = indexes.iter().filter(|index| !is_needed(index)).collect();
    assert!(unused.is_empty(), "no question and no statement of the daemon uses {unused:?}");
}

#[tokio::test]
async fn no_statement_is_compiled_by_the_server() {
    let database = TestDatabase::new().await;
    for prepared_statements in [true, false] {
        let options = ConnectOptions {
            max_connections: 4,
            prepared_statements,
            statement_timeout: Duration::from_secs(30),
        };
        let store = Store::new(&SecretString::from(database.url()), &options).unwrap();
        for pool in [store.pool(), store.reserved()] {
            let jit: String = sqlx::query_scalar("SHOW jit").fetch_one(pool).await.unwrap();
            assert_eq!(jit, "off", "with prepared statements: {prepared_statements}");
        }
        store.close().await;
    }
}
