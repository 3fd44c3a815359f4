//! Injected faults: kind, matching requests and number of times.

mod matching;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub(crate) use self::matching::{Faults, Replacement};

/// An injected fault. By default, the fault applies once, to the next request. If several faults match a
/// request, all of them apply, in the order of injection.
///
/// ```
/// use harvest_sim::{Fault, RetryAfter};
///
/// let bad_gateway = Fault::html(502).on("/user_assignments").skip_first(2);
/// let throttle = Fault::html(429).retry_after(RetryAfter::Seconds(2)).times(3);
/// let outage = Fault::html(503).forever();
/// ```
#[derive(Clone)]
pub struct Fault {
    kind: Kind,
    retry_after: Option<RetryAfter>,
    after_processing: bool,
    path: String,
    skip: u32,
    remaining: Option<u32>,
    duration: Option<Duration>,
}

/// The forms of `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// As Harvest sends it.
    Seconds(u64),
    /// An HTTP date, which RFC 2616 also allows: this long after the simulator's time.
    Date(Duration),
}

pub(crate) type Edit = Arc<dyn Fn(&mut Value) + Send + Sync>;
pub(crate) type EditBytes = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;
type Answer = Arc<dyn Fn() -> Response + Send + Sync>;
type Action = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
enum Kind {
    Html(u16),
    Refusal(u16),
    Answer(Answer),
    Delay(Duration),
    HoldRequest(CancellationToken),
    Reset,
    LostResponse,
    SlowResponse(Duration),
    HoldResponse(CancellationToken),
    TruncateBody,
    HideRecords(HashSet<i64>),
    Edit(Edit),
    EditBytes(EditBytes),
    RunBeforeResponse(Action),
}

impl Fault {
    /// Sends an HTML page with this status instead of the response. Without [`retry_after`](Self::retry_after),
    /// there is no `Retry-After` header.
    pub fn html(status: u16) -> Self {
        Self::of(Kind::Html(status))
    }

    /// Sends Harvest's JSON error instead of the response. 401 is an invalid token, 403 a missing permission and
    /// 404 an unknown record. Other statuses have the body format of the 404. At the token endpoint, 400 is
    /// `invalid_grant` and 401 is `invalid_client`.
    pub fn refusal(status: u16) -> Self {
        Self::of(Kind::Refusal(status))
    }

    /// Sends another server's response, which `answer` makes, with the headers that Harvest adds to every response.
    pub fn answer(answer: impl Fn() -> Response + Send + Sync + 'static) -> Self {
        Self::of(Kind::Answer(Arc::new(answer)))
    }

    /// Delays processing. If the client disconnects during the delay, the request has no effect.
    pub fn delay_request(by: Duration) -> Self {
        Self::of(Kind::Delay(by))
    }

    /// Processes the request when the token is cancelled. A write request to the API is then processed even if the
    /// client has disconnected, as by a server that still has the request in its queue.
    pub fn hold_request(until: CancellationToken) -> Self {
        Self::of(Kind::HoldRequest(until))
    }

    /// Resets the connection before the request is processed.
    pub fn reset() -> Self {
        Self::of(Kind::Reset)
    }

    /// Processes the request, then resets the connection. After a token request with rotation, the old refresh
    /// token is invalid and the client does not have the new one.
    pub fn lost_response() -> Self {
        Self::of(Kind::LostResponse)
    }

    /// Processes the request at once and delays the response.
    pub fn slow_response(by: Duration) -> Self {
        Self::of(Kind::SlowResponse(by))
    }

    /// Processes the request at once and sends the response when the token is cancelled.
    pub fn hold_response(until: CancellationToken) -> Self {
        Self::of(Kind::HoldResponse(until))
    }

    /// Sends complete headers and closes the connection in the middle of the body.
    pub fn truncate_body() -> Self {
        Self::of(Kind::TruncateBody)
    }

    /// Empties a list, with `total_entries` 0 and without further pages.
    pub fn empty_list() -> Self {
        Self::edit_body(|body| {
            let Value::Object(envelope) = body else { return };
            for (key, value) in envelope.iter_mut() {
                match (key.as_str(), value) {
                    (_, Value::Array(records)) => records.clear(),
                    ("total_entries", total) => *total = 0.into(),
                    ("page" | "total_pages", number) => *number = 1.into(),
                    ("next_page" | "previous_page", page) => *page = Value::Null,
                    ("links", links) => {
                        links["next"] = Value::Null;
                        links["previous"] = Value::Null;
                    }
                    _ => {}
                }
            }
        })
    }

    /// Removes the records with these ids from lists and subtracts them from `total_entries`. The page boundaries
    /// do not change, so the pages with these records are shorter.
    pub fn hide_records(ids: impl IntoIterator<Item = i64>) -> Self {
        Self::of(Kind::HideRecords(ids.into_iter().collect()))
    }

    /// Adds `delta` to a list's `total_entries`.
    pub fn wrong_total(delta: i64) -> Self {
        Self::edit_body(move |body| {
            let Some(total) = body.get_mut("total_entries") else { return };
            if let Some(true_total) = total.as_i64() {
                *total = true_total.saturating_add(delta).into();
            }
        })
    }

    /// Replaces the base address of a list's links, for example by `https://harvest.example.net/v2`.
    pub fn links_to(base: impl Into<String>) -> Self {
        let base = base.into();
        Self::edit_body(move |body| {
            let Some(links) = body.get_mut("links").and_then(Value::as_object_mut) else { return };
            for link in links.values_mut() {
                if let Some((_, path)) = link.as_str().and_then(|link| link.split_once("/v2/")) {
                    *link = format!("{base}/{path}").into();
                }
            }
        })
    }

    /// Sets a field in all records of the response.
    pub fn set_field(name: impl Into<String>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        Self::edit_records(move |record| {
            record.insert(name.clone(), value.clone());
        })
    }

    /// Removes a field from all records of the response.
    pub fn remove_field(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::edit_records(move |record| {
            record.remove(&name);
        })
    }

    /// Changes each record of a list, or the single object.
    pub fn edit_records(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self::edit_body(move |body| {
            let Value::Object(object) = body else { return };
            if !object.contains_key("links") {
                return edit(object);
            }
            let lists = object.values_mut().filter_map(Value::as_array_mut);
            lists.flatten().filter_map(Value::as_object_mut).for_each(&edit);
        })
    }

    /// Changes the JSON body of a successful response. The keys of the new body are in a different order.
    pub fn edit_body(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::of(Kind::Edit(Arc::new(edit)))
    }

    /// Changes the bytes of a successful response, after all changes of its JSON. `Content-Length` is the new
    /// length. Use this for invalid JSON, or for JSON that `serde_json` does not produce.
    pub fn edit_bytes(edit: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Self {
        Self::of(Kind::EditBytes(Arc::new(edit)))
    }

    /// Runs `action` after the response was computed and before it is sent, for example to change the company
    /// during pagination. A `Sim` in `action` keeps the server running until the fault was applied.
    pub fn run_before_response(action: impl Fn() + Send + Sync + 'static) -> Self {
        Self::of(Kind::RunBeforeResponse(Arc::new(action)))
    }

    /// Adds `Retry-After` to the HTML page.
    #[must_use]
    pub fn retry_after(self, when: RetryAfter) -> Self {
        Self { retry_after: Some(when), ..self }
    }

    /// Processes the request before the fault replaces the response: [`html`](Self::html),
    /// [`refusal`](Self::refusal) or [`reset`](Self::reset).
    #[must_use]
    pub fn after_processing(self) -> Self {
        Self { after_processing: true, ..self }
    }

    /// Limits the fault to requests whose method, path and query contain this text: `/users` or `POST /v2/users`.
    #[must_use]
    pub fn on(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Skips the first matching requests.
    #[must_use]
    pub fn skip_first(self, requests: u32) -> Self {
        Self { skip: requests, ..self }
    }

    /// Sets the number of matching requests to which the fault applies.
    #[must_use]
    pub fn times(self, requests: u32) -> Self {
        Self { remaining: Some(requests), ..self }
    }

    /// Applies to all matching requests until the faults are cleared.
    #[must_use]
    pub fn forever(self) -> Self {
        Self { remaining: None, ..self }
    }

    /// Applies to all matching requests for this time after the injection.
    #[must_use]
    pub fn for_duration(self, time: Duration) -> Self {
        Self { duration: Some(time), ..self.forever() }
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            retry_after: None,
            after_processing: false,
            path: String::new(),
            skip: 0,
            remaining: Some(1),
            duration: None,
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Html(status) => return write!(f, "Fault(html {status} on {:?})", self.path),
            Kind::Refusal(status) => return write!(f, "Fault(refusal {status} on {:?})", self.path),
            Kind::Answer(_) => "answer",
            Kind::Delay(_) => "delay",
            Kind::HoldRequest(_) => "hold request",
            Kind::Reset => "reset",
            Kind::LostResponse => "lost response",
            Kind::SlowResponse(_) => "slow response",
            Kind::HoldResponse(_) => "hold response",
            Kind::TruncateBody => "truncate body",
            Kind::HideRecords(_) => "hide records",
            Kind::Edit(_) => "edit",
            Kind::EditBytes(_) => "edit bytes",
            Kind::RunBeforeResponse(_) => "run before response",
        };
        write!(f, "Fault({kind} on {:?})", self.path)
    }
}
