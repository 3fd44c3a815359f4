//! Follows the events of the mirror: `DATABASE_URL=postgres://… cargo run --example follow_outbox`
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    let mut bell = PgListener::connect_with(&pool).await?;
    bell.listen("roster_outbox").await?;
    let fetch = "SELECT seq, type, aggregateid, version FROM directory.outbox_fetch($1, 1000)";
    loop {
        let events: Vec<(i64, String, String, i64)> =
            sqlx::query_as(fetch).bind("access-review").fetch_all(&pool).await?;
        for (seq, kind, whom, version) in &events {
            println!("{seq} {kind} {whom} version {version}"); // the work; here it must not fail
        }
        if let Some((seq, ..)) = events.last() {
            let ack = sqlx::query("SELECT directory.outbox_ack($1, $2)");
            ack.bind("access-review").bind(seq).execute(&pool).await?;
        } else if let Ok(rung) = tokio::time::timeout(Duration::from_secs(10), bell.recv()).await {
            rung?;
        }
    }
}
