//! Sends writes. Whether Harvest carried out a write without an answer is unknown, so none is repeated here.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::api::{Client, is_gone, parse, parse_role, request_with};
use super::error::HarvestError;
use super::json::escape_invalid_utf8;
use super::transport::{ApiResponse, WriteAccess, WriteRequest};
use super::wire::{self, Decode};
use crate::roster::write::{Write, WriteKind};
use crate::roster::{Fetched, Record, Role, SourceRequest};

/// A write is sent within this time after the journal says so, or not at all: once its result counts as certain, it must
/// not arrive any more.
pub const MAX_SEND_DELAY: Duration = Duration::from_secs(10);

/// The statuses by which Harvest refuses a write. Other errors may come from a gateway.
const REFUSALS: [u16; 5] = [400, 402, 403, 409, 422];

/// Longer messages of Harvest are cut.
const MAX_MESSAGE_CHARACTERS: usize = 300;

#[derive(Clone)]
pub struct Writer {
    client: Client,
    access: WriteAccess,
}

pub enum WriteAnswer<T> {
    /// The record as it is now.
    Stored(Box<T>, StatusCode),
    /// Harvest did it, and its answer holds no record that rosterd can read.
    Unreadable(StatusCode),
    Deleted,
    /// Harvest's own 404: there is no such record.
    NotFound,
    Refused {
        status: StatusCode,
        /// Harvest's message, or a sentence instead of it.
        message: String,
    },
}

/// A write without an answer that says what Harvest did.
pub enum WriteError {
    /// Harvest certainly has not carried it out; it may be sent again.
    NotSent(HarvestError),
    /// Harvest may have carried it out, or may still do so.
    Unknown(HarvestError),
}

impl WriteError {
    pub fn error(&self) -> &HarvestError {
        match self {
            Self::NotSent(error) | Self::Unknown(error) => error,
        }
    }
}

impl Writer {
    pub(super) fn new(client: Client, access: WriteAccess) -> Self {
        Self { client, access }
    }

    /// Sends a write whose record is an `R`. The journal has said so since `marked`.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn send<R: Decode + Record>(
        &self,
        write: &Write,
        marked: Instant,
    ) -> Result<WriteAnswer<Fetched<R>>, WriteError> {
        let read = |body: &[u8], what: &str, request: SourceRequest| {
            let record = wire::read(parse(body, what).ok()?, self.client.with_pay_data(), &request);
            record.ok()
        };
        self.exchange(write, write.body(), marked, read).await
    }

    /// Sends a write of a job role with this body.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn send_role(
        &self,
        write: &Write,
        body: Option<Json>,
        marked: Instant,
    ) -> Result<WriteAnswer<Role>, WriteError> {
        self.exchange(write, body, marked, |body, _, _| parse_role(body)).await
    }

    async fn exchange<T>(
        &self,
        write: &Write,
        body: Option<Json>,
        marked: Instant,
        read: impl FnOnce(&[u8], &str, SourceRequest) -> Option<T>,
    ) -> Result<WriteAnswer<T>, WriteError> {
        let Some(what) = write.path() else {
            let message = "an id is missing in the journal".to_owned();
            return Ok(WriteAnswer::Refused { status: StatusCode::BAD_REQUEST, message });
        };
        let (method, url) = (method(write.kind), self.client.url(&what));
        let request = WriteRequest {
            method: method.clone(),
            url: url.clone(),
            what: &what,
            body,
            deadline: marked + MAX_SEND_DELAY,
        };
        let response = self.client.transport.write(&self.access, request).await.map_err(|error| {
            if is_before_harvest(&error) { WriteError::NotSent(error) } else { WriteError::Unknown(error) }
        })?;
        let status = response.status;
        match status {
            _ if is_gone(&response) => Ok(WriteAnswer::NotFound),
            StatusCode::UNAUTHORIZED => Err(WriteError::NotSent(self.client.refusal(&response, &what))),
            status if status.is_success() && write.kind.is_deletion() => Ok(WriteAnswer::Deleted),
            status if status.is_success() && response.is_json() => {
                let body = escape_invalid_utf8(&response.body);
                let record = read(&body, &what, request_with(&method, &url, 1, response.sent));
                Ok(record.map_or(WriteAnswer::Unreadable(status), |record| {
                    WriteAnswer::Stored(Box::new(record), status)
                }))
            }
            status if REFUSALS.contains(&status.as_u16()) && response.is_json() => {
                Ok(WriteAnswer::Refused { status, message: message(&response) })
            }
            // A gateway's answer says nothing about the write.
            _ => Err(WriteError::Unknown(self.client.refusal(&response, &what))),
        }
    }
}

fn method(kind: WriteKind) -> Method {
    match kind {
        kind if kind.is_creation() => Method::POST,
        kind if kind.is_deletion() => Method::DELETE,
        _ => Method::PATCH,
    }
}

/// Whether the request cannot have reached Harvest, or Harvest refused it because of its limit.
fn is_before_harvest(error: &HarvestError) -> bool {
    match error {
        HarvestError::Unreachable { source, .. } => source.is_connect(),
        HarvestError::Throttled { .. } | HarvestError::NotSent { .. } => true,
        error => error.is_without_token(),
    }
}

/// Harvest's message in a 4xx. It names fields; rosterd keeps it in the journal only.
fn message(response: &ApiResponse) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let given =
        serde_json::from_slice::<Message>(&response.body).map(|body| body.message).unwrap_or_default();
    let given: String = given.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARACTERS).collect();
    if given.is_empty() { format!("Harvest answered {}", response.status) } else { given }
}
