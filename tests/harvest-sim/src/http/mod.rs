//! The HTTP face: the way of a request from the socket to its answer.
//!
//! Everything that decides is plain functions of the request and the company (`respond`, `list`, `page`);
//! this file alone waits, and knows axum.

mod answer;
mod backdrop;
mod call;
mod cut;
mod list;
mod page;
mod query;
mod rates;
mod respond;
mod socket;
mod view;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::answer::Answer;
use self::call::Call;
use self::cut::cut_off;
use self::socket::{Door, Wire};
use crate::clock::Clock;
use crate::faults::{Faults, Instead};
use crate::limit::Gate;
use crate::options::Options;
use crate::state::Company;
use crate::sync::lock;

pub(crate) use self::view::{assignment_values, rate_values, user_values};

/// What answers depend on, and verbs change.
pub(crate) struct World {
    pub company: Company,
    pub clock: Clock,
    pub options: Options,
}

/// Everything the server and its handles share. No two of these locks are ever held together, save
/// `world` before `gate`.
pub(crate) struct Desk {
    pub base_url: String,
    pub world: Mutex<World>,
    pub gate: Mutex<Gate>,
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

/// Serves until `stopping`.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>, stopping: CancellationToken) {
    let app = Router::new().fallback(handle).with_state((desk, stopping.clone()));
    let service = app.into_make_service_with_connect_info::<Wire>();
    let serving =
        axum::serve(Door(listener), service).with_graceful_shutdown(stopping.clone().cancelled_owned());
    // axum's accept loop does not end with an error.
    let _ = serving.await;
}

async fn handle(
    State((desk, stopping)): State<(Arc<Desk>, CancellationToken)>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    let call = Call::of(&request);
    let (number, admitted) = {
        let world = lock(&desk.world);
        // The instant is taken under the lock, so that the log is in the order of time.
        let mut gate = lock(&desk.gate);
        gate.arrive(Instant::now(), call.method.as_str(), call.logged_path(), &world.options)
    };
    let answered = match admitted {
        Err(lifted_in) => Some((Answer::throttled(lifted_in), false)),
        Ok(()) => fare(&desk, &stopping, &call).await,
    };
    let Some((answer, cut)) = answered else {
        wire.reset();
        return Response::default();
    };
    lock(&desk.gate).answered(number, answer.status.as_u16());
    let now = lock(&desk.world).clock.now();
    into_response(answer, cut, &now.http_date(Duration::ZERO), number)
}

/// What becomes of an admitted request: an answer and whether it is cut off, or nothing.
async fn fare(desk: &Desk, stopping: &CancellationToken, call: &Call) -> Option<(Answer, bool)> {
    let blow = lock(&desk.faults).strike(&call.logged_path(), Instant::now());
    if !blow.delay.is_zero() {
        // A stop does not wait for slow answers.
        let _ = tokio::time::timeout(blow.delay, stopping.cancelled()).await;
    }
    let mut answer = match blow.instead {
        Some(Instead::Reset) => return None,
        Some(Instead::Html { status, retry_after }) => {
            Answer::trouble(status, retry_after, lock(&desk.world).clock.now())
        }
        Some(Instead::Refusal(status)) => Answer::refusal(status),
        None => respond::respond(&desk.world(), &desk.base_url, call, &blow.hidden),
    };
    if answer.status == StatusCode::OK {
        if !blow.edits.is_empty() {
            answer.edit(&blow.edits);
        }
        answer.edit_bytes(&blow.byte_edits);
    }
    for act in blow.meanwhile {
        act();
    }
    Some((answer, blow.cut))
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
