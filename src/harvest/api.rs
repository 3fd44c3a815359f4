//! Requests to the API of one account, and the check that a response comes from Harvest and can be used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::auth::Auth;
use super::envelope::with_query;
use super::error::{HarvestError, not_as_expected};
use super::rate_limit::{Priority, RateLimiter};
use super::route::below;
use super::transport::{ApiResponse, ClientOptions, Transport};
use crate::clock::Clock;
use crate::progress::Progress;
use crate::roster::order::Sent;
use crate::roster::{AccountId, Order, Role, SourceRequest};

/// The largest page size before 2022. rosterd falls back to it if a server answers 422 to a larger one.
const OLD_PER_PAGE: u32 = 100;

/// One account at Harvest. Clones share the state.
#[derive(Clone)]
pub struct Client {
    pub(super) transport: Arc<Transport>,
    per_page: Arc<AtomicU32>,
    with_pay_data: bool,
}

impl Client {
    pub fn new(
        options: &ClientOptions,
        account: AccountId,
        auth: Auth,
        limiter: RateLimiter,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let transport = Arc::new(Transport::new(options, account, auth, limiter, clock));
        let per_page = Arc::new(options.per_page.into());
        Self { transport, per_page, with_pay_data: options.with_pay_data }
    }

    pub(crate) fn account(&self) -> AccountId {
        self.transport.account
    }

    /// Requests sent since start, repetitions included.
    pub(crate) fn requests(&self) -> u64 {
        self.transport.requests()
    }

    /// The progress of this account's work; each response counts.
    pub(crate) fn progress(&self) -> &Progress {
        &self.transport.progress
    }

    pub fn order(&self) -> &Order {
        &self.transport.order
    }

    /// How long after it was sent a request may arrive at Harvest.
    pub(crate) fn grace(&self) -> Duration {
        self.transport.limiter.grace()
    }

    /// Whether records keep their pay data.
    pub(crate) fn with_pay_data(&self) -> bool {
        self.with_pay_data
    }

    /// See [`RateLimiter::set_next_poll`].
    pub(crate) fn set_next_poll(&self, at: Option<Instant>) {
        self.transport.limiter.set_next_poll(at);
    }

    /// Waits until this many requests could be sent. Dropping the future costs nothing.
    pub(crate) async fn wait_for_capacity(&self, priority: Priority, requests: u32) {
        self.transport.wait_for_capacity(priority, requests).await;
    }

    pub(super) fn per_page(&self) -> u32 {
        self.per_page.load(Ordering::Relaxed)
    }

    pub(super) fn url(&self, path: &str) -> Url {
        below(&self.transport.base, path)
    }

    /// The response, if it is a 200 with JSON.
    pub(super) async fn get_json(
        &self,
        url: &Url,
        what: &str,
        priority: Priority,
    ) -> Result<ApiResponse, HarvestError> {
        self.expect_json(self.transport.get(url, what, priority).await?, what)
    }

    /// A page, and the address that it was requested from. If the server refuses the page size, rosterd requests 100
    /// records a page from then on.
    pub(super) async fn list_page(
        &self,
        url: Url,
        what: &str,
        priority: Priority,
    ) -> Result<(Url, ApiResponse), HarvestError> {
        let response = self.transport.get(&url, what, priority).await?;
        let per_page = self.per_page();
        if response.status != StatusCode::UNPROCESSABLE_ENTITY || per_page <= OLD_PER_PAGE {
            return Ok((url, self.expect_json(response, what)?));
        }
        tracing::info!(
            account_id = self.account().0,
            "Harvest refuses {per_page} records a page; requesting {OLD_PER_PAGE}"
        );
        let url = with_query(&url, &["per_page"], "per_page", OLD_PER_PAGE.into());
        let response = self.get_json(&url, what, priority).await?;
        self.per_page.store(OLD_PER_PAGE, Ordering::Relaxed);
        Ok((url, response))
    }

    /// Passes on a 200 with JSON; any other response is an error.
    pub(super) fn expect_json(&self, response: ApiResponse, what: &str) -> Result<ApiResponse, HarvestError> {
        match response.status {
            StatusCode::OK if response.is_json() => Ok(response),
            _ => Err(self.refusal(&response, what)),
        }
    }

    /// The error for a response that cannot be used. A 403 or a 404 concerns the role or the account only if it is in
    /// Harvest's format.
    pub(super) fn refusal(&self, response: &ApiResponse, what: &str) -> HarvestError {
        let (account, what, status) = (self.account(), what.to_owned(), response.status);
        match status {
            StatusCode::UNAUTHORIZED => HarvestError::Refused { account, what },
            StatusCode::FORBIDDEN if is_forbidden(response) => HarvestError::Forbidden { account, what },
            StatusCode::NOT_FOUND if is_gone(response) && self.has_version() => {
                HarvestError::UnknownAccount { account, what }
            }
            StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                self.not_harvest(response, what)
            }
            status if status.is_redirection() => self.not_harvest(response, what),
            status => HarvestError::Status { what, status },
        }
    }

    /// Whether `harvest.base_url` ends with the API's version.
    fn has_version(&self) -> bool {
        self.transport.base.path().trim_end_matches('/').ends_with("/v2")
    }

    fn not_harvest(&self, response: &ApiResponse, what: String) -> HarvestError {
        let status = response.status;
        let host = self.transport.base.host_str().unwrap_or_default();
        let content_type = match response.content_type.as_str() {
            "" => "no content type",
            content_type => content_type,
        };
        let advice = self.advice(status, host);
        let message = format!("{host} answered {status} with {content_type} when asked for {what}; {advice}");
        HarvestError::NotHarvest { what, status, message }
    }

    /// The probable cause of a foreign response with this status, and the fix.
    fn advice(&self, status: StatusCode, host: &str) -> String {
        let proxy = self.transport.route().proxy_note();
        if !self.has_version() {
            let base = self.transport.base.as_str().trim_end_matches('/');
            format!(
                "harvest.base_url is {base}, and Harvest's API answers below /v2; set harvest.base_url to {base}/v2 \
                 (if a gateway adds /v2, check HARVEST_ACCOUNT_ID)"
            )
        } else if status == StatusCode::OK {
            format!(
                "this looks like the page of a captive portal or a proxy in the place of Harvest's answer; sign in \
                 there, or let requests to {host} through{proxy}"
            )
        } else if status.is_redirection() {
            format!(
                "it redirects, which is not followed; check harvest.base_url, or if a captive portal or a proxy \
                 redirects, let requests to {host} through{proxy}"
            )
        } else {
            format!(
                "this answer is not Harvest's own and says nothing about the account or the token; check \
                 harvest.base_url and what is between rosterd and Harvest{proxy}"
            )
        }
    }
}

/// The request as events name it: by path and filters, and by the page's position in the list instead of its cursor.
pub(super) fn request(url: &Url, page: usize, sent: Sent) -> SourceRequest {
    request_with(&Method::GET, url, page, sent)
}

pub(super) fn request_with(method: &Method, url: &Url, page: usize, sent: Sent) -> SourceRequest {
    let filters = url.query_pairs().filter(|(key, _)| ["updated_since", "user_id"].contains(&key.as_ref()));
    let filters: Vec<String> = filters.map(|(key, value)| format!("{key}={value}")).collect();
    let query = if filters.is_empty() { String::new() } else { format!("?{}", filters.join("&")) };
    let page = if page > 1 { format!(", page {page}") } else { String::new() };
    SourceRequest::new(format!("{method} {}{query}{page}", url.path()), sent)
}

/// Whether this is Harvest's own 404, `{"status":404,"error":"Not Found"}`. Any other 404 (HTML, or a gateway's JSON)
/// does not prove that the record was deleted.
pub(super) fn is_gone(response: &ApiResponse) -> bool {
    #[derive(Deserialize)]
    struct NotFound {
        status: u16,
    }
    response.status == StatusCode::NOT_FOUND
        && response.is_json()
        && serde_json::from_slice::<NotFound>(&response.body).is_ok_and(|body| body.status == 404)
}

/// Whether this is Harvest's own 403, `{"message":"Not authorized!"}`.
fn is_forbidden(response: &ApiResponse) -> bool {
    #[derive(Deserialize)]
    struct Forbidden {
        message: String,
    }
    response.is_json()
        && serde_json::from_slice::<Forbidden>(&response.body).is_ok_and(|body| !body.message.is_empty())
}

pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, HarvestError> {
    serde_json::from_slice(body).map_err(|error| HarvestError::protocol(what)(not_as_expected(&error)))
}

/// A job role; `None` if its fields are not as expected.
pub(super) fn parse_role(body: &[u8]) -> Option<Role> {
    // PostgreSQL cannot store a NUL character.
    serde_json::from_slice(body).ok().filter(|role: &Role| role.id > 0 && !role.name.contains('\0'))
}
