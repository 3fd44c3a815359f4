//! `/livez`: whether the workers are alive. `/readyz`: whether the mirror is fresh. `/metrics`: metrics for Prometheus.

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

use super::shared_query::SharedQuery;
use crate::daemon::health::Health;
use crate::store::Store;
use crate::store::status::Status;
use crate::telemetry::instruments::{self, Metrics};

/// If the database does not answer within this time, the probe reports it as unreachable.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The sources of the responses.
pub struct State {
    /// The state of the workers.
    pub health: Health,
    /// The database.
    pub store: Store,
    /// If `None`, `/metrics` responds with 404.
    pub metrics: Option<Metrics>,
    /// An account without a successful cycle for three intervals is stale.
    pub poll_interval: Duration,
}

struct Shared {
    state: State,
    database: SharedQuery<(bool, Option<bool>)>,
    tables: SharedQuery<()>,
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Shared {
            state,
            database: SharedQuery::default(),
            tables: SharedQuery::default(),
        }));
    serve_router(listener, router).await;
}

/// `/livez` and `/metrics` of `rosterd scim`, whose database role can read neither the state of accounts nor the migrations.
pub(crate) async fn serve_scim_probes(listener: TcpListener, metrics: Option<Metrics>) {
    let livez = || async { response(true, json!({ "alive": true })) };
    let metrics = move || async move { render(metrics.as_ref()) };
    serve_router(listener, Router::new().route("/livez", get(livez)).route("/metrics", get(metrics))).await;
}

async fn serve_router(listener: TcpListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(event = "http.failed", %error, "the HTTP server failed: /livez, /readyz and /metrics no longer respond");
    }
}

/// Fails if a worker is stuck. An outage of Harvest or PostgreSQL does not make it fail.
async fn livez(FromState(shared): FromState<Arc<Shared>>) -> Response {
    let alive = shared.state.health.is_alive(Instant::now());
    response(alive, json!({ "alive": alive }))
}

async fn readyz(FromState(shared): FromState<Arc<Shared>>) -> Response {
    let state = &shared.state;
    let (database, migrations) =
        shared.database.get(|| database(state.store.clone())).await.unwrap_or_default();
    let accounts = state.health.readiness(state.poll_interval, Instant::now());
    let ready = database && migrations == Some(true) && accounts.iter().all(|account| account.ready);
    response(
        ready,
        json!({ "ready": ready, "database": database, "migrations_current": migrations, "accounts": accounts }),
    )
}

/// Whether the database answers, and whether it has all migrations (`None` if it does not answer).
async fn database(store: Store) -> (bool, Option<bool>) {
    match timeout(DATABASE_TIMEOUT, store.has_schema()).await {
        Ok(Ok(current)) => (true, Some(current)),
        Ok(Err(error)) if !error.is_unavailable() => (true, Some(false)),
        _ => (false, None),
    }
}

/// If the database does not answer, the gauges of its tables keep their last values.
async fn metrics(FromState(shared): FromState<Arc<Shared>>) -> Response {
    let store = shared.state.store.clone();
    let update = async move {
        if let Ok(Ok(status)) = timeout(DATABASE_TIMEOUT, store.status_for_metrics()).await {
            update_gauges(&status);
        }
    };
    if shared.state.metrics.is_some() {
        shared.tables.get(|| update).await;
    }
    render(shared.state.metrics.as_ref())
}

fn render(metrics: Option<&Metrics>) -> Response {
    let Some(metrics) = metrics else { return StatusCode::NOT_FOUND.into_response() };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

fn update_gauges(status: &Status) {
    instruments::outbox_head(status.outbox.seq);
    for consumer in &status.consumers {
        instruments::consumer_lag(&consumer.name, consumer.behind);
    }
    for it in &status.webhooks {
        instruments::webhook(&it.name, &it.state, it.oldest_seconds.unwrap_or(0), it.set_aside.len());
    }
    for account in &status.accounts {
        // A rejected deletion needs no review any more.
        let waiting = account.held_deletions.iter().filter(|it| it.decision.as_deref() != Some("rejected"));
        let held = waiting.map(|held| held.count).sum();
        instruments::held_and_rejected(account.account_id, held, account.rejected_records);
        let open = &account.open_writes;
        for (state, writes) in [("waiting", open.waiting), ("held", open.held), ("in_doubt", open.in_doubt)] {
            instruments::open_writes(account.account_id, state, writes);
        }
        for list in &account.resources {
            for (state, rows) in
                [("active", list.active), ("inactive", list.inactive), ("deleted", list.deleted)]
            {
                instruments::rows(account.account_id, &list.resource, state, rows);
            }
        }
    }
}

fn response(is_ok: bool, body: serde_json::Value) -> Response {
    let status = if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
