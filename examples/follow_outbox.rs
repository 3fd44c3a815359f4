//! Follows the events of the mirror: `DATABASE_URL=postgres://… cargo run --example follow_outbox`
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("roster_outbox").await?;
    let fetch = "SELECT seq, type, aggregateid, version FROM directory.outbox_fetch($1, 1000)";
    loop {
        let events: Vec<(i64, String, String, i64)> =
            sqlx::query_as(fetch).bind("access-review").fetch_all(&pool).await?;
        for (seq, kind, record, version) in &events {
            println!("{seq} {kind} {record} version {version}"); // process the event
        }
        if let Some((seq, ..)) = events.last() {
            let ack = sqlx::query("SELECT directory.outbox_ack($1, $2)");
            ack.bind("access-review").bind(seq).execute(&pool).await?;
        } else if let Ok(received) = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await {
            received?;
        }
    }
}
