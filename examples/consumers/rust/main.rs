//! Keeps the table `review.people` equal to the users of the mirror, event by event.
//!
//! `DATABASE_URL=postgres://… cargo run --example people_copy`
//!
//! An event and its acknowledgement are one transaction, so a crash loses no event and applies none twice.

use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{FromRow, PgTransaction};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS review.people (
    account_id bigint, user_id bigint, version bigint NOT NULL, email text, is_active bool NOT NULL,
    PRIMARY KEY (account_id, user_id))";
const COPY: &str = "
    INSERT INTO review.people SELECT account_id, id, version, email, is_active FROM directory.users
    UNION ALL SELECT account_id, id, version, email, false FROM directory.deleted_users";
const APPLY: &str = "INSERT INTO review.people AS mine VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (account_id, user_id) DO UPDATE
       SET version = excluded.version, email = excluded.email, is_active = excluded.is_active
     WHERE mine.version < excluded.version";

#[derive(FromRow)]
struct Event {
    seq: i64,
    aggregatetype: String,
    account_id: i64,
    record_id: i64,
    version: i64,
    payload: Value,
}

/// Copies the current state, and begins after the last event that it includes.
async fn load(pool: &PgPool, name: &str) -> sqlx::Result<()> {
    let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    sqlx::query("DELETE FROM review.people").execute(&mut *snapshot).await?;
    sqlx::query(COPY).execute(&mut *snapshot).await?;
    let start = sqlx::query("SELECT directory.outbox_start($1, seq) FROM directory.snapshot_position()");
    start.bind(name).execute(&mut *snapshot).await?;
    snapshot.commit().await?;
    println!("loaded");
    Ok(())
}

async fn apply(transaction: &mut PgTransaction<'_>, event: &Event) -> sqlx::Result<()> {
    if event.aggregatetype != "user" {
        return Ok(());
    }
    // A deleted user has no state after the event. The copy keeps the last values, as the mirror does.
    let (before, after) = (&event.payload["before"], &event.payload["after"]);
    let state = if after.is_null() { before } else { after };
    sqlx::query(APPLY)
        .bind(event.account_id)
        .bind(event.record_id)
        .bind(event.version)
        .bind(state["email"].as_str())
        .bind(after["is_active"].as_bool().unwrap_or(false))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Applies and acknowledges the next events in one transaction. Returns their number.
async fn apply_batch(pool: &PgPool, name: &str) -> sqlx::Result<usize> {
    let mut transaction = pool.begin().await?;
    let fetch = sqlx::query_as("SELECT * FROM directory.outbox_fetch($1, 500)").bind(name);
    let events: Vec<Event> = fetch.fetch_all(&mut *transaction).await?;
    for event in &events {
        apply(&mut transaction, event).await?;
    }
    if let Some(last) = events.last() {
        let ack = sqlx::query("SELECT directory.outbox_ack($1, $2)");
        ack.bind(name).bind(last.seq).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(events.len())
}

/// Whether events were lost, for example by a restore.
fn lost_events(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| code == "RS001"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = &std::env::var("CONSUMER").unwrap_or_else(|_| "people-copy".to_owned());
    let pool = &PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    sqlx::query(TABLE).execute(pool).await?;
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("roster_outbox").await?;
    let registered = "SELECT EXISTS (SELECT FROM directory.consumers WHERE name = $1)";
    if !sqlx::query_scalar::<_, bool>(registered).bind(name).fetch_one(pool).await? {
        load(pool, name).await?;
    }
    loop {
        match apply_batch(pool, name).await {
            // A notification can be lost, so look every ten seconds anyway.
            Ok(0) => {
                if let Ok(received) = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await {
                    received?;
                }
            }
            Ok(applied) => println!("applied {applied}"),
            Err(error) if lost_events(&error) => load(pool, name).await?,
            Err(error) => return Err(error.into()),
        }
    }
}
