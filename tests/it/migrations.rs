//! The schema: explained throughout, and brought up to date by whoever comes, with no more rights than that takes.

use std::fs;

use futures::future::join_all;
use rosterd::store::migrations::SchemaState;
use rosterd::store::{Store, StoreError};
use sqlx::migrate::MigrateError;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::database::{TestDatabase, store};

/// Schemas that are not PostgreSQL's own.
const OURS: &str = "nspname NOT IN ('public', 'information_schema') AND nspname !~ '^pg_'";

/// The migrations of this rosterd, counted where they are written.
fn all() -> usize {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let is_sql = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "sql");
    fs::read_dir(dir).unwrap().filter(|entry| is_sql(&entry.as_ref().unwrap().path())).count()
}

async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(database.url()).await.unwrap()
}

async fn execute(database: &TestDatabase, statement: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(statement.into())).execute(&mut connect(database).await).await.unwrap();
}

async fn names(database: &TestDatabase, query: impl Into<String>) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(query.into())).fetch_all(&mut connect(database).await).await.unwrap()
}

#[tokio::test]
async fn every_schema_table_and_column_is_explained() {
    let database = TestDatabase::new().await;
    let schemas = format!(
        "SELECT nspname::text FROM pg_namespace
          WHERE {OURS} AND obj_description(oid, 'pg_namespace') IS NULL"
    );
    assert_eq!(names(&database, schemas).await, [""; 0]);
    // attnum 0 stands for the table itself. The migrator's own table is not ours to explain.
    let unexplained = "FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN (SELECT attrelid, attnum, attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
                  UNION ALL SELECT oid, 0, '(the table itself)' FROM pg_class) a ON a.attrelid = c.oid
           WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (nspname, relname) <> ('rosterd_internal', 'migrations')";
    let columns = format!(
        "SELECT format('%I.%I.%s', nspname, relname, attname) {unexplained} AND {OURS}
            AND col_description(c.oid, a.attnum) IS NULL
            AND (a.attnum > 0 OR obj_description(c.oid, 'pg_class') IS NULL)
          ORDER BY 1"
    );
    assert_eq!(names(&database, columns).await, [""; 0]);
    let looked_at = names(&database, format!("SELECT relname::text {unexplained} AND {OURS}")).await;
    assert!(looked_at.len() > 50, "the catalogue was searched in the wrong place");
}

#[tokio::test]
async fn a_second_migration_finds_nothing_to_do() {
    let database = TestDatabase::blank().await;
    let store = store(database.url());
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: 0, pending: all() });
    assert_eq!(store.migrate().await.unwrap(), all());
    assert_eq!(store.migrate().await.unwrap(), 0);
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: all(), pending: 0 });
}

#[tokio::test]
async fn processes_that_migrate_at_once_all_succeed_and_one_does_the_work() {
    let database = TestDatabase::blank().await;
    let stores: Vec<_> = (0..4).map(|_| store(database.url())).collect();
    let mut applied: Vec<_> =
        join_all(stores.iter().map(Store::migrate)).await.into_iter().map(Result::unwrap).collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, all()]);
}

#[tokio::test]
async fn a_role_that_may_make_schemas_and_nothing_else_is_enough() {
    let database = TestDatabase::blank().await;
    let role = format!("rosterd_test_{}", Uuid::new_v4().simple());
    execute(
        &database,
        format!(
            "CREATE ROLE {role};
             REVOKE ALL ON SCHEMA public FROM PUBLIC;
             DO $$ BEGIN
                 EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database());
             END $$"
        ),
    )
    .await;
    let and = if database.url().contains('?') { '&' } else { '?' };
    let as_role = store(&format!("{}{and}options[role]={role}", database.url()));

    let migrated = as_role.migrate().await;
    let again = as_role.migrate().await;
    let owners =
        names(&database, format!("SELECT DISTINCT nspowner::regrole::text FROM pg_namespace WHERE {OURS}"));
    let owners = owners.await;
    as_role.close().await;
    // Roles are the server's, which may outlive this test.
    execute(&database, format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;

    assert_eq!((migrated.unwrap(), again.unwrap(), owners), (all(), 0, vec![role]));
}

#[tokio::test]
async fn nothing_is_put_into_public() {
    let database = TestDatabase::new().await;
    let query = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(names(&database, query).await, [""; 0]);
}

#[tokio::test]
async fn a_newer_schema_does_not_stop_an_older_rosterd() {
    let database = TestDatabase::new().await;
    execute(
        &database,
        "INSERT INTO rosterd_internal.migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of a later rosterd', true, 'x', 0)",
    )
    .await;
    let store = store(database.url());
    assert_eq!(store.migrate().await.unwrap(), 0);
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: all(), pending: 0 });
}

#[tokio::test]
async fn a_migration_that_was_applied_in_another_wording_is_refused() {
    let database = TestDatabase::new().await;
    execute(&database, "UPDATE rosterd_internal.migrations SET checksum = 'x' WHERE version = 2").await;
    let store = store(database.url());
    for refused in [store.migrate().await.map(|_| ()), store.schema_state().await.map(|_| ())] {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Migrate(MigrateError::VersionMismatch(2))), "{error:?}");
    }
}

#[tokio::test]
async fn migration_that_fails_leaves_nothing_of_itself_and_keeps_those_before_it() {
    let database = TestDatabase::blank().await;
    // In the way of the third one.
    execute(&database, "CREATE SCHEMA roster; CREATE TABLE roster.permits ()").await;
    let store = store(database.url());
    assert!(matches!(store.migrate().await.unwrap_err(), StoreError::Migration { version: 3, .. }));
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: 2, pending: all() - 2 });
    let of_the_third =
        "SELECT relname::text FROM pg_class WHERE relname IN ('accounts', 'replicas', 'cycles')";
    assert_eq!(names(&database, of_the_third).await, [""; 0]);

    execute(&database, "DROP TABLE roster.permits").await;
    assert_eq!(store.migrate().await.unwrap(), all() - 2);
}
