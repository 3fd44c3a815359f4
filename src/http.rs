//! `/livez` and `/readyz`: whether the daemon turns, and whether the mirror is fresh.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as FromState;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::store::Store;
use crate::sync::health::Health;

/// A database that does not answer a probe within this is not reachable.
const PROBE: Duration = Duration::from_secs(2);

/// What the probes look at.
pub struct State {
    /// The workers' pulses.
    pub health: Health,
    /// The database.
    pub store: Store,
    /// Three of these without a good cycle make an account stale.
    pub poll_interval: Duration,
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let router =
        Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(Arc::new(state));
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
        Ok(Ok(schema)) => (true, schema.pending == 0),
        Ok(Err(error)) if !error.is_unavailable() => (true, false),
        _ => (false, false),
    };
    let accounts = state.health.readiness(state.poll_interval, Instant::now());
    let ready = database && migrations && accounts.iter().all(|account| account.ready);
    answer(
        ready,
        json!({ "ready": ready, "database": database, "migrations_current": migrations, "accounts": accounts }),
    )
}

fn answer(well: bool, body: serde_json::Value) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
