//! Signed webhooks: delivers the events of the outbox to endpoints, in the format of
//! [Standard Webhooks](https://www.standardwebhooks.com).
//!
//! A [`dispatcher`] per endpoint reads events as the consumer `webhook:NAME`, sends them with the [`sender`], and
//! acknowledges what the receiver accepted. An event is delivered at least once, with the same id at each attempt. A
//! [`notifier`] sends [`notices`], which are no events. This module uses neither Harvest nor the settings.

pub(crate) mod dispatcher;
pub(crate) mod message;
pub(crate) mod notices;
pub(crate) mod notifier;
pub(crate) mod outcome;
pub(crate) mod route;
pub(crate) mod sender;
pub(crate) mod signature;

mod window;

use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::store::webhooks::EventFilter;
use signature::SigningKey;

pub(crate) struct Endpoint {
    pub name: String,
    /// Often holds a secret, so that only [`Self::origin`] is shown.
    pub url: Url,
    /// Each message is signed with all of them.
    pub keys: Vec<SigningKey>,
    /// An `Authorization` header, marked as sensitive.
    pub authorization: Option<HeaderValue>,
    pub filter: EventFilter,
    /// Whether a new endpoint begins with the oldest event instead of the next one.
    pub from_beginning: bool,
    /// With 1, events are delivered in the order of `seq`; with more, each record's events in their order.
    pub in_flight: usize,
    /// From the start of an attempt to the headers of the response.
    pub timeout: Duration,
    /// Whether an event that the receiver keeps refusing is passed over.
    pub sets_aside: bool,
}

impl Endpoint {
    /// Scheme, host and port of the address.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}
