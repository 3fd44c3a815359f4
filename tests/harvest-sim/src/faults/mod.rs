//! Trouble, scripted: what goes wrong, for which requests, and how often.

mod strike;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub(crate) use self::strike::{Faults, Instead};

/// One kind of trouble. Strikes the next request whatever it asks for, once, until the builder says
/// otherwise. Several that fit the same request strike it together, in the order of their injection.
///
/// ```
/// use harvest_sim::{Fault, RetryAfter};
///
/// let stumble = Fault::html(502).on("/user_assignments").skipping(2);
/// let throttle = Fault::html(429).retry_after(RetryAfter::Seconds(2)).times(3);
/// let outage = Fault::html(503).forever();
/// ```
#[derive(Clone)]
pub struct Fault {
    kind: Kind,
    retry_after: Option<RetryAfter>,
    path: String,
    skip: u32,
    left: Option<u32>,
    lasting: Option<Duration>,
}

/// The forms of `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// As Harvest sends it.
    Seconds(u64),
    /// As RFC 2616 allows it too: an HTTP date so far ahead of the simulator's clock.
    Date(Duration),
}

pub(crate) type Edit = Arc<dyn Fn(&mut Value) + Send + Sync>;
pub(crate) type EditBytes = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;
type Act = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
enum Kind {
    Html(u16),
    Refusal(u16),
    Delay(Duration),
    Reset,
    Lost,
    SlowAnswer(Duration),
    Held(CancellationToken),
    Cut,
    Hide(HashSet<i64>),
    Edit(Edit),
    EditBytes(EditBytes),
    Meanwhile(Act),
}

impl Fault {
    /// An HTML page with this status instead of an answer: 429 without `Retry-After`, 5xx.
    pub fn html(status: u16) -> Self {
        Self::of(Kind::Html(status))
    }

    /// Harvest's own JSON instead of an answer: that of a bad token for 401, that of too few permissions for
    /// 403, that of a missing record for 404; any other status has the shape of the 404. At the token endpoint
    /// 400 is `invalid_grant` and 401 `invalid_client`.
    pub fn refusal(status: u16) -> Self {
        Self::of(Kind::Refusal(status))
    }

    /// The request is looked at so much later: whoever goes away in the meantime asked for nothing.
    pub fn delay(by: Duration) -> Self {
        Self::of(Kind::Delay(by))
    }

    /// The connection is reset instead of an answer; nothing is done.
    pub fn reset() -> Self {
        Self::of(Kind::Reset)
    }

    /// What was asked for is done, then the connection is reset instead of the answer: a rotated token is
    /// dead, and nobody has the new one.
    pub fn lost_answer() -> Self {
        Self::of(Kind::Lost)
    }

    /// What was asked for is done at once, the answer comes so much later.
    pub fn slow_answer(by: Duration) -> Self {
        Self::of(Kind::SlowAnswer(by))
    }

    /// What was asked for is done at once, the answer comes when the token is cancelled.
    pub fn held(until: CancellationToken) -> Self {
        Self::of(Kind::Held(until))
    }

    /// The answer's head is right, its body ends in the middle.
    pub fn cut() -> Self {
        Self::of(Kind::Cut)
    }

    /// A list is empty, and says that this is all.
    pub fn empty_list() -> Self {
        Self::edit(|body| {
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

    /// The records with these ids are on no page of a list, and every page's `total_entries` knows as little of
    /// them. The pages that are left are those of the whole list: one that held them is shorter.
    pub fn hide(ids: impl IntoIterator<Item = i64>) -> Self {
        Self::of(Kind::Hide(ids.into_iter().collect()))
    }

    /// A list's `total_entries` is off by so many.
    pub fn total(delta: i64) -> Self {
        Self::edit(move |body| {
            let Some(total) = body.get_mut("total_entries") else { return };
            if let Some(true_total) = total.as_i64() {
                *total = true_total.saturating_add(delta).into();
            }
        })
    }

    /// A list's links lead to `base` (`https://harvest.example.net/v2`) instead of here.
    pub fn links_to(base: impl Into<String>) -> Self {
        let base = base.into();
        Self::edit(move |body| {
            let Some(links) = body.get_mut("links").and_then(Value::as_object_mut) else { return };
            for link in links.values_mut() {
                if let Some((_, path)) = link.as_str().and_then(|link| link.split_once("/v2/")) {
                    *link = format!("{base}/{path}").into();
                }
            }
        })
    }

    /// Every record has this field with this value, whether it had one or not.
    pub fn field(name: impl Into<String>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        Self::edit_records(move |record| {
            record.insert(name.clone(), value.clone());
        })
    }

    /// No record has this field.
    pub fn without_field(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::edit_records(move |record| {
            record.remove(&name);
        })
    }

    /// Changes each record of a list, or the single object.
    pub fn edit_records(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self::edit(move |body| {
            let Value::Object(object) = body else { return };
            if !object.contains_key("links") {
                return edit(object);
            }
            let lists = object.values_mut().filter_map(Value::as_array_mut);
            lists.flatten().filter_map(Value::as_object_mut).for_each(&edit);
        })
    }

    /// Changes the whole JSON body of a good answer. Its keys lose their order, nothing else.
    pub fn edit(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::of(Kind::Edit(Arc::new(edit)))
    }

    /// Changes the bytes of a good answer, after all changes of its JSON: for what is no longer JSON, or no
    /// JSON that can be told otherwise. The head fits the new bytes.
    pub fn edit_bytes(edit: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Self {
        Self::of(Kind::EditBytes(Arc::new(edit)))
    }

    /// Something happens between the making of an answer and its sending: the place for changes in the
    /// middle of a walk. A `Sim` kept in `act` is kept alive until the fault has struck.
    pub fn meanwhile(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self::of(Kind::Meanwhile(Arc::new(act)))
    }

    /// The HTML page says when to come back.
    #[must_use]
    pub fn retry_after(self, when: RetryAfter) -> Self {
        Self { retry_after: Some(when), ..self }
    }

    /// Only requests whose method, path and query contain this: `/users`, or `POST /v2/users`.
    #[must_use]
    pub fn on(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Lets so many fitting requests pass first.
    #[must_use]
    pub fn skipping(self, requests: u32) -> Self {
        Self { skip: requests, ..self }
    }

    /// Strikes so many requests.
    #[must_use]
    pub fn times(self, requests: u32) -> Self {
        Self { left: Some(requests), ..self }
    }

    /// Strikes until the faults are cleared.
    #[must_use]
    pub fn forever(self) -> Self {
        Self { left: None, ..self }
    }

    /// Strikes every fitting request for so long after its injection.
    #[must_use]
    pub fn lasting(self, time: Duration) -> Self {
        Self { lasting: Some(time), ..self.forever() }
    }

    fn of(kind: Kind) -> Self {
        Self { kind, retry_after: None, path: String::new(), skip: 0, left: Some(1), lasting: None }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Html(status) => return write!(f, "Fault(html {status} on {:?})", self.path),
            Kind::Refusal(status) => return write!(f, "Fault(refusal {status} on {:?})", self.path),
            Kind::Delay(_) => "delay",
            Kind::Reset => "reset",
            Kind::Lost => "lost answer",
            Kind::SlowAnswer(_) => "slow answer",
            Kind::Held(_) => "held",
            Kind::Cut => "cut",
            Kind::Hide(_) => "hide",
            Kind::Edit(_) => "edit",
            Kind::EditBytes(_) => "edit bytes",
            Kind::Meanwhile(_) => "meanwhile",
        };
        write!(f, "Fault({kind} on {:?})", self.path)
    }
}
