//! `/livez`, `/readyz` and `/metrics`: whether the daemon turns, whether the mirror is fresh, and what has been counted.

pub mod redirect;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as FromState;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::store::Store;
use crate::store::status::Status;
use crate::sync::health::Health;
use crate::telemetry::meters::{self, Metrics};

/// A database that does not answer a probe within this is not reachable.
const PROBE: Duration = Duration::from_secs(2);

/// What the probes look at.
pub struct State {
    /// The workers' pulses.
    pub health: Health,
    /// The database.
    pub store: Store,
    /// What has been counted; `None` where somebody else in this process counts.
    pub metrics: Option<Metrics>,
    /// Three of these without a good cycle make an account stale.
    pub poll_interval: Duration,
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(counted))
        .with_state(Arc::new(state));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the health listener failed");
    }
}

/// Turns false when a worker is stuck, not when Harvest or PostgreSQL is away.
async fn livez(FromState(state): FromState<Arc<State>>) -> Response {
    let alive = state.health.is_alive(Instant::now());
    answer(alive, json!({ "alive": alive }))
}

async fn readyz(FromState(state): FromState<Arc<State>>) -> Response {
    let (database, migrations) = match timeout(PROBE, state.store.schema_state()).await {
        Ok(Ok(schema)) => (true, Some(schema.pending == 0)),
        Ok(Err(error)) if !error.is_unavailable() => (true, Some(false)),
        _ => (false, None),
    };
    let accounts = state.health.readiness(state.poll_interval, Instant::now());
    let ready = database && migrations == Some(true) && accounts.iter().all(|account| account.ready);
    answer(
        ready,
        json!({ "ready": ready, "database": database, "migrations_current": migrations, "accounts": accounts }),
    )
}

/// What the tables say is looked up for each scrape; without an answer of the database the rest is told alone.
async fn counted(FromState(state): FromState<Arc<State>>) -> Response {
    let Some(metrics) = &state.metrics else { return StatusCode::NOT_FOUND.into_response() };
    if let Ok(Ok(status)) = timeout(PROBE, state.store.status()).await {
        note(&status);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

fn note(status: &Status) {
    meters::outbox_head(status.outbox.seq);
    for consumer in &status.consumers {
        meters::consumer_lag(&consumer.name, consumer.behind);
    }
    for account in &status.accounts {
        // Those that a person keeps wait for nobody any more.
        let waiting = account.held_deletions.iter().filter(|it| it.decision.as_deref() != Some("rejected"));
        let held = waiting.map(|held| held.count).sum();
        meters::set_aside(account.account_id, held, account.rejected_records);
        for list in &account.resources {
            for (state, rows) in
                [("active", list.active), ("inactive", list.inactive), ("deleted", list.deleted)]
            {
                meters::rows(account.account_id, &list.resource, state, rows);
            }
        }
    }
}

fn answer(well: bool, body: serde_json::Value) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
