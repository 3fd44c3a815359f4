//! Tests of the test databases (`tests/support/database.rs`).

use sqlx::{Connection, PgConnection};

use crate::database::{TestDatabase, with_database};

async fn tables(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn databases_that_are_created_concurrently_are_separate() {
    let databases = futures::future::join_all((0..8).map(|_| TestDatabase::new())).await;
    let mut first = PgConnection::connect(databases[0].url()).await.unwrap();
    sqlx::query("CREATE TABLE mine ()").execute(&mut first).await.unwrap();
    assert!(tables(databases[0].url()).await.contains(&"mine".to_owned()));
    assert!(!tables(databases[1].url()).await.contains(&"mine".to_owned()));
}

#[tokio::test]
async fn blank_database_has_no_tables() {
    assert!(tables(TestDatabase::blank().await.url()).await.is_empty());
}

#[tokio::test]
async fn database_is_dropped_after_its_test_despite_an_open_session() {
    let database = TestDatabase::blank().await;
    let url = database.url().to_owned();
    let _session = PgConnection::connect(&url).await.unwrap();
    drop(database);
    let error = PgConnection::connect(&url).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "3D000");
}

#[test]
fn database_name_is_replaced_in_each_form_of_url() {
    assert_eq!(
        with_database("postgres://u:p@h:1/a?sslmode=disable", "b"),
        "postgres://u:p@h:1/b?sslmode=disable"
    );
    assert_eq!(with_database("postgres://u@h", "b"), "postgres://u@h/b");
}
