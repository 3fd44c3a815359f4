//! The HTTP face: the way of a request from the socket to its answer.
//!
//! Everything that decides is plain functions of the request and the company (`respond`, `list`, `page`);
//! this file alone waits, and knows axum.

mod answer;
mod backdrop;
mod call;
mod cut;
mod fields;
mod form;
mod identity;
mod list;
mod page;
mod query;
mod rates;
mod respond;
mod roles;
mod socket;
mod view;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::answer::Answer;
use self::call::Call;
use self::cut::cut_off;
use self::fields::Fields;
use self::form::Form;
use self::socket::{Door, Wire};
use crate::clock::Clock;
use crate::faults::{Faults, Instead};
use crate::limit::{Gate, Host};
use crate::oauth::{Issuer, Outcome, TokenLog};
use crate::options::Options;
use crate::state::Company;
use crate::sync::lock;

pub(crate) use self::view::{assignment_values, rate_values, user_values};

/// What answers depend on, and verbs change.
pub(crate) struct World {
    pub company: Company,
    pub clock: Clock,
    pub issuer: Issuer,
    pub options: Options,
}

/// Everything the server and its handles share. No two of these locks are ever held together, save
/// `world` before `gate`.
pub(crate) struct Desk {
    pub base_url: String,
    pub identity_url: String,
    pub world: Mutex<World>,
    pub gate: Mutex<Gate>,
    pub tokens: Mutex<TokenLog>,
    pub faults: Mutex<Faults>,
}

impl Desk {
    /// The world as it shows: looking at it brings to light what is due.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = lock(&self.world);
        let now = world.clock.instant();
        world.company.surface(now);
        world
    }
}

/// On every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// More than any request has to say.
const LONGEST_BODY: usize = 64 * 1024;

/// The companies behind one address: one at least.
pub(crate) struct House {
    /// Who answers where no company is named, or one that is not here.
    first: Arc<Desk>,
    by_account: HashMap<String, Arc<Desk>>,
}

impl House {
    pub fn of(first: Arc<Desk>, others: &[Arc<Desk>]) -> Self {
        let named = |desk: &Arc<Desk>| (lock(&desk.world).company.account_id().to_string(), desk.clone());
        Self { by_account: others.iter().map(named).collect(), first }
    }

    fn desk(&self, call: &Call) -> Arc<Desk> {
        let named = call.account_id.as_ref().and_then(|account| self.by_account.get(account));
        named.unwrap_or(&self.first).clone()
    }
}

/// What a handler is given.
#[derive(Clone)]
struct Place {
    house: Arc<House>,
    host: Host,
    stopping: CancellationToken,
}

/// Where a request is answered.
struct Counter {
    desk: Arc<Desk>,
    stopping: CancellationToken,
}

/// Serves one of the two hosts until `stopping`.
pub(crate) async fn serve(listener: TcpListener, host: Host, house: Arc<House>, stopping: CancellationToken) {
    let place = Place { house, host, stopping: stopping.clone() };
    let app = Router::new().fallback(handle).with_state(place);
    let service = app.into_make_service_with_connect_info::<Wire>();
    let serving =
        axum::serve(Door(listener), service).with_graceful_shutdown(stopping.clone().cancelled_owned());
    // axum's accept loop does not end with an error.
    let _ = serving.await;
}

async fn handle(
    State(place): State<Place>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let call = Call::of(&head);
    let counter = Counter { desk: place.house.desk(&call), stopping: place.stopping };
    let desk = &counter.desk;
    let (number, admitted) = {
        let world = lock(&desk.world);
        // The instant is taken under the lock, so that the log is in the order of time.
        let mut gate = lock(&desk.gate);
        gate.arrive(Instant::now(), place.host, call.method.as_str(), call.logged_path(), &world.options)
    };
    let answered = match (admitted, place.host) {
        (Err(lifted_in), _) => Some((Answer::throttled(lifted_in), false)),
        (Ok(()), Host::Api) if call.method != Method::GET => {
            let body = to_bytes(body, LONGEST_BODY).await.unwrap_or_default();
            let fields = Fields::of(&head.headers, &call.query, &body);
            if let Some(fields) = &fields {
                lock(&desk.gate).wrote(number, fields.value());
            }
            let origin = desk.base_url.trim_end_matches("/v2");
            let respond = |_: &HashSet<i64>| write::write(&mut desk.world(), origin, &call, fields.as_ref());
            fare(&counter, &call, respond, Answer::refusal).await
        }
        (Ok(()), Host::Api) => {
            let respond =
                |hidden: &HashSet<i64>| respond::respond(&desk.world(), &desk.base_url, &call, hidden);
            fare(&counter, &call, respond, Answer::refusal).await
        }
        (Ok(()), Host::Identity) if identity::asks_for_tokens(&call) => {
            let body = to_bytes(body, LONGEST_BODY).await.unwrap_or_default();
            fare_with_form(&counter, &call, &Form::of(&head.headers, &body)).await
        }
        (Ok(()), Host::Identity) => {
            let respond = |_: &HashSet<i64>| identity::respond(&mut desk.world(), &call);
            fare(&counter, &call, respond, Answer::refusal).await
        }
    };
    let Some((answer, cut)) = answered else {
        wire.reset();
        return Response::default();
    };
    lock(&desk.gate).answered(number, answer.status.as_u16());
    let now = lock(&desk.world).clock.now();
    into_response(answer, cut, &now.http_date(Duration::ZERO), number)
}

/// What becomes of a token request, which is on record as long as it is under way.
async fn fare_with_form(counter: &Counter, call: &Call, form: &Form) -> Option<(Answer, bool)> {
    let ticket = Ticket::of(&counter.desk.tokens, form);
    let respond = |_: &HashSet<i64>| {
        let (answer, outcome) = identity::token(&mut counter.desk.world(), call, form);
        ticket.decided(outcome);
        answer
    };
    fare(counter, call, respond, identity::token_refusal).await
}

/// What becomes of an admitted request: an answer and whether it is cut off, or nothing.
async fn fare(
    counter: &Counter,
    call: &Call,
    respond: impl FnOnce(&HashSet<i64>) -> Answer,
    refusal: fn(u16) -> Answer,
) -> Option<(Answer, bool)> {
    let Counter { desk, stopping } = counter;
    let asked = format!("{} {}", call.method, call.logged_path());
    let blow = lock(&desk.faults).strike(&asked, Instant::now());
    pause(blow.delay, stopping).await;
    let mut answer = match blow.instead {
        Some(Instead::Reset) => return None,
        Some(Instead::Html { status, retry_after }) => {
            Answer::trouble(status, retry_after, lock(&desk.world).clock.now())
        }
        Some(Instead::Refusal(status)) => refusal(status),
        None => respond(&blow.hidden),
    };
    if answer.status.is_success() {
        if !blow.edits.is_empty() {
            answer.edit(&blow.edits);
        }
        answer.edit_bytes(&blow.byte_edits);
    }
    for act in blow.meanwhile {
        act();
    }
    pause(blow.answer_delay, stopping).await;
    for held in blow.held {
        tokio::select! {
            () = held.cancelled() => {}
            () = stopping.cancelled() => {}
        }
    }
    (!blow.lost).then_some((answer, blow.cut))
}

/// A stop does not wait for slow answers.
async fn pause(time: Duration, stopping: &CancellationToken) {
    if !time.is_zero() {
        let _ = tokio::time::timeout(time, stopping.cancelled()).await;
    }
}

/// A token request's place on record. It is under way until this is dropped, be it because the client went.
struct Ticket<'d> {
    log: &'d Mutex<TokenLog>,
    number: u64,
}

impl<'d> Ticket<'d> {
    fn of(log: &'d Mutex<TokenLog>, form: &Form) -> Self {
        let shown = form.get("refresh_token").map(str::to_owned);
        let mut held = lock(log);
        let number = held.arrive(Instant::now(), form.grant(), shown);
        drop(held);
        Self { log, number }
    }

    fn decided(&self, outcome: Option<Outcome>) {
        lock(self.log).decided(self.number, outcome);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(self.log).left();
    }
}

fn into_response(answer: Answer, cut: bool, date: &str, number: u64) -> Response {
    let Answer { status, content_type, headers, body } = answer;
    let length = body.len();
    let body = if cut { cut_off(body) } else { Body::from(body) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.extend(headers);
    for (name, value) in [(DATE, date), (REQUEST_ID, &format!("{number:032x}"))] {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(name, value);
        }
    }
    response
}
