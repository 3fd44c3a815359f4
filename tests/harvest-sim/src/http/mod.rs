//! The HTTP server: reads a request, applies faults and sends the response.
//!
//! Only this file and `process` are asynchronous. The other modules compute responses with pure functions.

mod call;
mod company;
mod fields;
mod form;
mod identity;
mod list;
mod page;
mod process;
mod query;
mod rates;
mod respond;
mod response;
mod roles;
mod socket;
mod truncate;
mod view;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, DATE, HeaderName};
use axum::http::{HeaderValue, Method};
use axum::response::Response as HttpResponse;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::call::Call;
use self::fields::Fields;
use self::form::Form;
use self::process::Processing;
use self::response::Response;
use self::socket::{ResetSwitch, ResettableListener};
use crate::clock::Clock;
use crate::faults::Faults;
use crate::oauth::{Issuer, TokenLog};
use crate::options::Options;
use crate::request_log::{Host, RequestLog};
use crate::state::Company;
use crate::sync::lock;

pub(crate) use self::view::{assignment_values, rate_values, user_values};

/// The state that determines responses.
pub(crate) struct World {
    pub company: Company,
    pub clock: Clock,
    pub issuer: Issuer,
    pub options: Options,
}

/// The state that the server and its handles share. To prevent deadlocks, a task holds at most one of these
/// locks. The exception is `world`, which may be locked before `request_log`.
pub(crate) struct AccountState {
    pub base_url: String,
    pub identity_url: String,
    pub world: Mutex<World>,
    pub request_log: Mutex<RequestLog>,
    pub tokens: Mutex<TokenLog>,
    pub faults: Mutex<Faults>,
}

impl AccountState {
    /// Applies changes that are due, then returns the world.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = lock(&self.world);
        let now = world.clock.instant();
        world.company.apply_pending(now);
        world
    }
}

/// Harvest sends this header with every response.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// In bytes.
const MAX_BODY: usize = 64 * 1024;

/// The companies at one address, at least one.
pub(crate) struct Accounts {
    /// Used if the request names no account or an unknown one.
    first: Arc<AccountState>,
    by_account: HashMap<String, Arc<AccountState>>,
}

impl Accounts {
    pub fn of(first: Arc<AccountState>, others: &[Arc<AccountState>]) -> Self {
        let named = |account_state: &Arc<AccountState>| {
            (lock(&account_state.world).company.account_id().to_string(), account_state.clone())
        };
        Self { by_account: others.iter().map(named).collect(), first }
    }

    fn account_state(&self, call: &Call) -> Arc<AccountState> {
        let named = call.account_id.as_ref().and_then(|account| self.by_account.get(account));
        named.unwrap_or(&self.first).clone()
    }
}

/// State that axum passes to each handler.
#[derive(Clone)]
struct HandlerState {
    accounts: Arc<Accounts>,
    host: Host,
    stopping: CancellationToken,
}

/// Serves one of the two hosts until `stopping`.
pub(crate) async fn serve(
    listener: TcpListener,
    host: Host,
    accounts: Arc<Accounts>,
    stopping: CancellationToken,
) {
    let state = HandlerState { accounts, host, stopping: stopping.clone() };
    let app = Router::new().fallback(handle).with_state(state);
    let service = app.into_make_service_with_connect_info::<ResetSwitch>();
    let serving = axum::serve(ResettableListener(listener), service)
        .with_graceful_shutdown(stopping.clone().cancelled_owned());
    // axum's accept loop never returns an error.
    let _ = serving.await;
}

async fn handle(
    State(state): State<HandlerState>,
    ConnectInfo(reset_switch): ConnectInfo<ResetSwitch>,
    request: Request,
) -> HttpResponse {
    let (head, body) = request.into_parts();
    let call = Call::of(&head);
    let account_state = state.accounts.account_state(&call);
    let (number, admitted) = {
        let world = lock(&account_state.world);
        // Read the time under the lock, so that the log is in chronological order.
        let mut request_log = lock(&account_state.request_log);
        request_log.arrive(
            Instant::now(),
            state.host,
            call.method.as_str(),
            call.logged_path(),
            &world.options,
        )
    };
    let is_write = state.host == Host::Api && call.method != Method::GET;
    let is_token_request = state.host == Host::Identity && identity::asks_for_tokens(&call);
    let body = if is_write || is_token_request {
        to_bytes(body, MAX_BODY).await.unwrap_or_default()
    } else {
        Bytes::new()
    };
    let fields = is_write.then(|| Fields::of(&head.headers, &call.query, &body)).flatten();
    if let Some(fields) = &fields {
        lock(&account_state.request_log).update(number, |request| request.fields = Some(fields.value()));
    }
    let processing = Processing::new(account_state.clone(), number, state.stopping);
    let result = match (admitted, state.host) {
        (Err(lifted_in), _) => Some(Response::throttled(lifted_in).into_http(false)),
        (Ok(()), Host::Api) if is_write => processing.write(call, fields).await,
        (Ok(()), Host::Api) => processing.read(&call).await,
        (Ok(()), Host::Identity) if is_token_request => {
            processing.issue_tokens(&call, &Form::of(&head.headers, &body)).await
        }
        (Ok(()), Host::Identity) => processing.identify(&call).await,
    };
    let Some(mut response) = result else {
        reset_switch.reset();
        return HttpResponse::default();
    };
    let status = response.status().as_u16();
    lock(&account_state.request_log).update(number, |request| request.status = Some(status));
    let now = lock(&account_state.world).clock.now();
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [(DATE, now.http_date(Duration::ZERO)), (REQUEST_ID, format!("{number:032x}"))] {
        if let Ok(value) = HeaderValue::try_from(value) {
            fields.insert(name, value);
        }
    }
    response
}
