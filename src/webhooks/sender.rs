//! Sends one message to one endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Response;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use tokio::time::{timeout, timeout_at};

use super::Endpoint;
use super::message::Message;
use super::outcome::{Outcome, of_status, skew, without_response};
use super::signature::signature;
use crate::clock::Clock;
use crate::outbound::{self, NoTls};
use crate::telemetry::instruments;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the five seconds after which servers in Node.js close an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection that is lost so soon was closed by the receiver while it was idle.
const STALE_WITHIN: Duration = Duration::from_secs(1);
/// How much of a body is read, and for how long, so that the connection can be used again.
const MAX_BODY_BYTES: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// How much of a body is kept.
const EXCERPT_BYTES: usize = 512;

/// The connections to all endpoints. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    remote: reqwest::Client,
    /// For receivers on this machine, which no proxy can reach.
    local: reqwest::Client,
    user_agent: String,
    clock: Arc<dyn Clock>,
}

pub(crate) struct Attempt {
    pub outcome: Outcome,
    /// The status, if there was a response.
    pub status: Option<u16>,
    /// From the start of the attempt to the headers of the response.
    pub took: Duration,
    /// The beginning of the response's body.
    pub body: Vec<u8>,
}

impl Sender {
    /// # Errors
    /// If the machine has no certificate authorities.
    pub fn new(user_agent: String, clock: Arc<dyn Clock>) -> Result<Self, NoTls> {
        let client = |is_loopback| {
            outbound::client(is_loopback, |http| {
                http.connect_timeout(CONNECT_TIMEOUT).pool_idle_timeout(IDLE_TIMEOUT).no_gzip()
            })
        };
        Ok(Self { remote: client(false)?, local: client(true)?, user_agent, clock })
    }

    /// Sends the message of an event, or one that belongs to the events.
    pub async fn send(&self, endpoint: &Endpoint, message: &Message) -> Attempt {
        let attempt = self.attempt(endpoint, message).await;
        instruments::webhook_delivery(&endpoint.name, outcome_name(&attempt.outcome), attempt.took);
        attempt
    }

    pub async fn send_notice(&self, endpoint: &Endpoint, message: &Message) -> Attempt {
        let attempt = self.attempt(endpoint, message).await;
        instruments::webhook_notice(&endpoint.name, outcome_name(&attempt.outcome));
        attempt
    }

    /// If the receiver had closed a kept connection, sends the message once more.
    async fn attempt(&self, endpoint: &Endpoint, message: &Message) -> Attempt {
        let mut attempt = self.send_once(endpoint, message).await;
        if is_reset(&attempt.outcome) && attempt.took < STALE_WITHIN {
            attempt = self.send_once(endpoint, message).await;
        }
        attempt
    }

    async fn send_once(&self, endpoint: &Endpoint, message: &Message) -> Attempt {
        let (id, now) = (message.id.to_string(), self.clock.now());
        let http = if outbound::is_loopback(&endpoint.url) { &self.local } else { &self.remote };
        let mut request = http
            .post(endpoint.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, &self.user_agent)
            .header("webhook-timestamp", now.timestamp())
            .header("webhook-signature", signature(&endpoint.keys, &id, now.timestamp(), &message.body))
            .header("webhook-id", id)
            .body(message.body.clone());
        if let Some(authorization) = &endpoint.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let started = Instant::now();
        // Not reqwest's timeout, which would include the body.
        let answer = timeout(endpoint.timeout, request.send()).await;
        let took = started.elapsed();
        let failed = |text| Attempt { outcome: without_response(text), status: None, took, body: Vec::new() };
        let response = match answer {
            Err(_) => return failed("timeout"),
            Ok(Err(error)) => return failed(failure(&error)),
            Ok(Ok(response)) => response,
        };
        let (status, headers) = (response.status().as_u16(), response.headers());
        let server = outbound::server_time(headers, took);
        let retry_after = outbound::retry_after(headers, server.unwrap_or(now));
        let outcome = of_status(status, retry_after, skew(server, now));
        Attempt { outcome, status: Some(status), took, body: read_excerpt(response).await }
    }
}

fn is_reset(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.text == RESET)
}

const RESET: &str = "reset";

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Gone => "gone",
        Outcome::Failed(failure) if failure.is_refusal => "refused",
        Outcome::Failed(_) => "failed",
    }
}

/// The kind of an error. Its text would show the address.
fn failure(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "timeout";
    }
    if !error.is_connect() {
        return RESET;
    }
    if outbound::has_cause(error, &|error| error.is::<rustls::Error>()) {
        return "tls";
    }
    // hyper-util's error for a failed look-up has no type.
    if outbound::has_cause(error, &|error| error.to_string().starts_with("dns error")) {
        return "dns";
    }
    "connect"
}

/// Reads the body to its end, within limits. If it is not read to its end, the connection is closed.
async fn read_excerpt(mut response: Response) -> Vec<u8> {
    let (mut excerpt, mut read) = (Vec::new(), 0);
    let end = tokio::time::Instant::now() + BODY_TIMEOUT;
    while read < MAX_BODY_BYTES {
        let Ok(Ok(Some(bytes))) = timeout_at(end, response.chunk()).await else { break };
        read += bytes.len();
        excerpt.extend_from_slice(&bytes[..bytes.len().min(EXCERPT_BYTES.saturating_sub(excerpt.len()))]);
    }
    excerpt
}
