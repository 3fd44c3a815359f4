//! `/livez`, `/readyz` and `/metrics`: whether the daemon turns, whether the mirror is fresh, and what has been counted.

mod look;
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

use look::Look;

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

/// What the handlers share.
struct Probed {
    state: State,
    database: Look<(bool, Option<bool>)>,
    tables: Look<()>,
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(counted))
        .with_state(Arc::new(Probed { state, database: Look::default(), tables: Look::default() }));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(event = "http.failed", %error, "/livez, /readyz and /metrics no longer answer");
    }
}

/// Turns false when a worker is stuck, not when Harvest or PostgreSQL is away.
async fn livez(FromState(probed): FromState<Arc<Probed>>) -> Response {
    let alive = probed.state.health.is_alive(Instant::now());
    answer(alive, json!({ "alive": alive }))
}

async fn readyz(FromState(probed): FromState<Arc<Probed>>) -> Response {
    let state = &probed.state;
    let (database, migrations) =
        probed.database.share(|| database(state.store.clone())).await.unwrap_or_default();
    let accounts = state.health.readiness(state.poll_interval, Instant::now());
    let ready = database && migrations == Some(true) && accounts.iter().all(|account| account.ready);
    answer(
        ready,
        json!({ "ready": ready, "database": database, "migrations_current": migrations, "accounts": accounts }),
    )
}

/// Whether the database answers, and whether it has all migrations.
async fn database(store: Store) -> (bool, Option<bool>) {
    match timeout(PROBE, store.has_schema()).await {
        Ok(Ok(current)) => (true, Some(current)),
        Ok(Err(error)) if !error.is_unavailable() => (true, Some(false)),
        _ => (false, None),
    }
}

/// If the database does not answer, gauges of its tables keep their last values.
async fn counted(FromState(probed): FromState<Arc<Probed>>) -> Response {
    let Some(metrics) = &probed.state.metrics else { return StatusCode::NOT_FOUND.into_response() };
    let store = probed.state.store.clone();
    let look = async move {
        if let Ok(Ok(status)) = timeout(PROBE, store.glance()).await {
            note(&status);
        }
    };
    probed.tables.share(|| look).await;
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
