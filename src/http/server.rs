//! `/`: the status page. `/livez`: whether the workers are alive. `/readyz`: whether the mirror is fresh. `/metrics`: metrics for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State as FromState};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::page::{self, Page};
use super::shared_query::SharedQuery;
use crate::daemon::health::Health;
use crate::store::Store;
use crate::store::overview::Overview;
use crate::store::status::Status;
use crate::sync::concerns::{Concern, Limits, concerns};
use crate::telemetry::instruments::{self, Metrics};

/// If the database does not answer within this time, the probe reports it as unreachable.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct State {
    pub health: Health,
    pub store: Store,
    /// If `None`, `/metrics` responds with 404.
    pub metrics: Option<Metrics>,
    /// What counts as wrong. For `/readyz`, an account without a successful cycle for three poll intervals is stale.
    pub limits: Limits,
    /// Whether `/` responds with the status page. If false, it responds with 404.
    pub page: bool,
}

struct Shared {
    state: State,
    database: SharedQuery<(bool, Option<bool>)>,
    tables: SharedQuery<()>,
    overview: SharedQuery<Reading>,
    last_overview: LastOverview,
}

type LastOverview = Arc<Mutex<Option<(Instant, Arc<Overview>)>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Current,
    MigrationsPending,
    Unreachable,
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let router = if state.page { Router::new().route("/", get(status_page)) } else { Router::new() };
    let router = router
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Shared {
            state,
            database: SharedQuery::default(),
            tables: SharedQuery::default(),
            overview: SharedQuery::default(),
            last_overview: LastOverview::default(),
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
        tracing::error!(event = "http.failed", %error, "the HTTP server failed: /, /livez, /readyz and /metrics no longer respond");
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
    let accounts = state.health.readiness(state.limits.poll_interval, Instant::now());
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

/// Always 200 while it can be shown: `/readyz` is for probes. All visitors share one query. If the database does not
/// answer, the page shows the last state that was read.
async fn status_page(FromState(shared): FromState<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let state = &shared.state;
    let read = || read_overview(state.store.clone(), shared.last_overview.clone());
    let reading = shared.overview.get(read).await.unwrap_or(Reading::Unreachable);
    let last = shared.last_overview.lock().clone();
    let mut all = match reading {
        Reading::Current => Vec::new(),
        Reading::MigrationsPending => vec![Concern::migrations_pending()],
        Reading::Unreachable => vec![Concern::database_unreachable()],
    };
    if let Some((_, overview)) = &last {
        all.extend(concerns(&overview.status, &state.limits));
        all.sort_by_key(|concern| concern.severity);
    }
    let outdated = last.as_ref().filter(|_| reading != Reading::Current);
    let html = page::render(&Page {
        overview: last.as_ref().map(|(_, overview)| overview.as_ref()),
        concerns: &all,
        outdated: outdated.map(|(at, _)| at.elapsed().as_secs()),
        refreshes: query.as_deref() != Some("still"),
        version: concat!("rosterd ", env!("CARGO_PKG_VERSION"), " (", env!("ROSTERD_REVISION"), ")"),
    });
    match page::headers() {
        Ok(headers) => (headers, html).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn read_overview(store: Store, last: LastOverview) -> Reading {
    match timeout(DATABASE_TIMEOUT, store.overview()).await {
        Ok(Ok(overview)) => {
            *last.lock() = Some((Instant::now(), Arc::new(overview)));
            Reading::Current
        }
        // A table or column may be absent.
        Ok(Err(error)) if !error.is_unavailable() && !matches!(store.has_schema().await, Ok(true)) => {
            Reading::MigrationsPending
        }
        _ => Reading::Unreachable,
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
