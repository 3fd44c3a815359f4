//! Migrations: each object has a comment, concurrent runs work, and a role with few rights can migrate.

use std::fs;

use futures::future::join_all;
use rosterd::store::migrations::SchemaState;
use rosterd::store::{Store, StoreError};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::database::{TestDatabase, store};

/// Selects the schemas of rosterd.
const ROSTERD_SCHEMAS: &str = "nspname NOT IN ('public', 'information_schema') AND nspname !~ '^pg_'";

/// The number of this rosterd's migrations.
fn migration_count() -> usize {
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
async fn every_schema_table_and_column_has_a_comment() {
    let database = TestDatabase::new().await;
    let schemas = format!(
        "SELECT nspname::text FROM pg_namespace
          WHERE {ROSTERD_SCHEMAS} AND obj_description(oid, 'pg_namespace') IS NULL"
    );
    assert_eq!(names(&database, schemas).await, [""; 0]);
    // attnum 0 stands for the table itself. sqlx creates the table of migrations without comments.
    let columns_of_tables = "FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN (SELECT attrelid, attnum, attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
                  UNION ALL SELECT oid, 0, '(the table itself)' FROM pg_class) a ON a.attrelid = c.oid
           WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (nspname, relname) <> ('rosterd_internal', 'migrations')";
    let without_comment = format!(
        "SELECT format('%I.%I.%s', nspname, relname, attname) {columns_of_tables} AND {ROSTERD_SCHEMAS}
            AND col_description(c.oid, a.attnum) IS NULL
            AND (a.attnum > 0 OR obj_description(c.oid, 'pg_class') IS NULL)
          ORDER BY 1"
    );
    assert_eq!(names(&database, without_comment).await, [""; 0]);
    let all_columns =
        names(&database, format!("SELECT relname::text {columns_of_tables} AND {ROSTERD_SCHEMAS}")).await;
    assert!(all_columns.len() > 50, "the query should find the columns of the schema");
}

/// Primary keys need no comment: they identify a record.
#[tokio::test]
async fn every_index_has_a_comment_that_names_its_question() {
    let database = TestDatabase::new().await;
    let without_comment = format!(
        "SELECT indexrelid::regclass::text FROM pg_index
           JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
          WHERE NOT indisprimary AND {ROSTERD_SCHEMAS} AND obj_description(indexrelid, 'pg_class') IS NULL"
    );
    assert_eq!(names(&database, without_comment).await, [""; 0]);
}

#[tokio::test]
async fn second_migration_run_applies_nothing() {
    let database = TestDatabase::blank().await;
    let store = store(database.url());
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: 0, pending: migration_count() });
    assert_eq!(store.migrate().await.unwrap(), migration_count());
    assert_eq!(store.migrate().await.unwrap(), 0);
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: migration_count(), pending: 0 });
}

#[tokio::test]
async fn concurrent_migration_runs_all_succeed_and_one_applies_everything() {
    let database = TestDatabase::blank().await;
    let stores: Vec<_> = (0..4).map(|_| store(database.url())).collect();
    let mut applied: Vec<_> =
        join_all(stores.iter().map(Store::migrate)).await.into_iter().map(Result::unwrap).collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, migration_count()]);
}

#[tokio::test]
async fn role_with_only_create_on_the_database_can_migrate() {
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
    let separator = if database.url().contains('?') { '&' } else { '?' };
    let as_role = store(&format!("{}{separator}options[role]={role}", database.url()));

    let migrated = as_role.migrate().await;
    let again = as_role.migrate().await;
    let owners = names(
        &database,
        format!("SELECT DISTINCT nspowner::regrole::text FROM pg_namespace WHERE {ROSTERD_SCHEMAS}"),
    );
    let owners = owners.await;
    as_role.close().await;
    // Roles belong to the server, which may outlive this test.
    execute(&database, format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;

    assert_eq!((migrated.unwrap(), again.unwrap(), owners), (migration_count(), 0, vec![role]));
}

#[tokio::test]
async fn migrations_create_nothing_in_schema_public() {
    let database = TestDatabase::new().await;
    let query = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(names(&database, query).await, [""; 0]);
}

#[tokio::test]
async fn newer_schema_does_not_stop_an_older_rosterd() {
    let database = TestDatabase::new().await;
    execute(
        &database,
        "INSERT INTO rosterd_internal.migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of a later rosterd', true, 'x', 0)",
    )
    .await;
    let store = store(database.url());
    assert_eq!(store.migrate().await.unwrap(), 0);
    assert_eq!(store.schema_state().await.unwrap(), SchemaState { applied: migration_count(), pending: 0 });
}

#[tokio::test]
async fn database_of_an_unreleased_schema_is_refused_with_advice() {
    let database = TestDatabase::new().await;
    execute(&database, "UPDATE rosterd_internal.migrations SET checksum = 'x' WHERE version = 2").await;
    let store = store(database.url());
    for result in [store.migrate().await.map(|_| ()), store.schema_state().await.map(|_| ())] {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::OtherSchema), "{error:?}");
        assert!(error.to_string().contains("give rosterd an empty database"), "{error}");
    }
}

#[tokio::test]
async fn failed_migration_is_rolled_back_and_earlier_migrations_stay() {
    let database = TestDatabase::blank().await;
    // The third migration fails because this table exists.
    execute(&database, "CREATE SCHEMA roster; CREATE TABLE roster.rate_permits ()").await;
    let store = store(database.url());
    assert!(matches!(store.migrate().await.unwrap_err(), StoreError::Migration { version: 3, .. }));
    assert_eq!(
        store.schema_state().await.unwrap(),
        SchemaState { applied: 2, pending: migration_count() - 2 }
    );
    let tables_of_the_third =
        "SELECT relname::text FROM pg_class WHERE relname IN ('accounts', 'replicas', 'cycles')";
    assert_eq!(names(&database, tables_of_the_third).await, [""; 0]);

    execute(&database, "DROP TABLE roster.rate_permits").await;
    assert_eq!(store.migrate().await.unwrap(), migration_count() - 2);
}
