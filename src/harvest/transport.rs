//! One request: a permit from [`RateLimiter`], headers, repetitions, a limited body, and both clocks. Requests other than
//! GET need a [`WriteAccess`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;
use tokio::time::Instant;

use super::auth::{AccessToken, Auth};
use super::error::HarvestError;
use super::rate_limit::{Priority, RateLimiter};
use super::route::Route;
use crate::clock::Clock;
use crate::outbound::{BodyError, NoTls, read_body, retry_after, server_time};
use crate::progress::Progress;
use crate::roster::order::Sent;
use crate::roster::watermark::ReadStart;
use crate::roster::{AccountId, Order};
use crate::telemetry::instruments;

/// 2,000 users have 1.5 MB. Counts bytes after decompression, because a small compressed body may be a bomb. Until a
/// page is stored, it may take 24 times its size in memory.
pub(super) const MAX_BODY_BYTES: usize = 8 << 20;

#[derive(Clone)]
pub struct ClientOptions {
    pub http: HttpClient,
    /// Such as `https://api.harvestapp.com/v2`.
    pub base: Url,
    /// The `User-Agent`: Harvest requires a name and a contact.
    pub user_agent: String,
    /// Records per page, 1 to 2000.
    pub per_page: u32,
    pub with_pay_data: bool,
}

/// Connections and trusted certificate authorities. All accounts share one client; otherwise each would keep a
/// connection open between polls and its own copy of the authorities in memory.
#[derive(Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    route: Route,
}

impl HttpClient {
    /// A client for the host of `base`; `timeout` covers a request from the connection to the end of the body.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, because the machine has no certificate authorities.
    pub fn new(base: &Url, timeout: Duration) -> Result<Self, NoTls> {
        let route = Route::to(base);
        Ok(Self { client: route.client(timeout, |http| http)?, route })
    }
}

/// The right to send requests other than GET. Only `app` grants it, and only if `write.mode` is `"on"`.
#[derive(Clone, Debug)]
pub struct WriteAccess(());

impl WriteAccess {
    pub fn granted() -> Self {
        Self(())
    }
}

pub(super) struct WriteRequest<'a> {
    pub method: Method,
    pub url: Url,
    /// Names the resource in errors and metrics.
    pub what: &'a str,
    pub body: Option<Value>,
    /// It is not sent later than this.
    pub deadline: Instant,
}

/// Sends requests for one account, and counts them.
pub(super) struct Transport {
    http: HttpClient,
    user_agent: String,
    pub(super) base: Url,
    pub(super) account: AccountId,
    auth: Auth,
    pub(super) limiter: RateLimiter,
    clock: Arc<dyn Clock>,
    /// Counts each response, and knows of each wait for a permit or a token.
    pub(super) progress: Progress,
    requests: AtomicU64,
    pub(super) order: Order,
}

/// A response that is neither a 429 nor a 5xx.
pub(super) struct ApiResponse {
    pub status: StatusCode,
    /// The start of the `Content-Type` header; empty without one.
    pub content_type: String,
    pub body: Vec<u8>,
    pub start: ReadStart,
    pub sent: Sent,
    token: AccessToken,
}

impl ApiResponse {
    pub fn is_json(&self) -> bool {
        self.content_type.contains("json")
    }
}

impl Transport {
    pub fn new(
        options: &ClientOptions,
        account: AccountId,
        auth: Auth,
        limiter: RateLimiter,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let ClientOptions { http, base, user_agent, .. } = options.clone();
        Self {
            http,
            user_agent,
            base,
            account,
            auth,
            limiter,
            clock,
            progress: Progress::default(),
            requests: AtomicU64::new(0),
            order: Order::default(),
        }
    }

    pub fn route(&self) -> &Route {
        &self.http.route
    }

    /// Requests sent since start, repetitions included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Waits until this many requests could be sent. Dropping the future costs nothing. Dropping a request does: it
    /// keeps its permit for as long as Harvest may still receive it.
    pub async fn wait_for_capacity(&self, priority: Priority, requests: u32) {
        self.progress.waits_for(self.limiter.wait_for_capacity(priority, requests)).await;
    }

    /// The response, whatever its status; `what` names the resource in errors and metrics.
    pub async fn get(&self, url: &Url, what: &str, priority: Priority) -> Result<ApiResponse, HarvestError> {
        let response = self.send_with_retries(url, what, priority).await?;
        if self.has_other_token(&response).await? {
            return self.send_with_retries(url, what, priority).await;
        }
        Ok(response)
    }

    /// Whether Harvest refused the token of this request, and another one is available: then it is sent once more.
    async fn has_other_token(&self, response: &ApiResponse) -> Result<bool, HarvestError> {
        if response.status != StatusCode::UNAUTHORIZED || !self.auth.renews() {
            return Ok(false);
        }
        let token = self.progress.waits_for(self.auth.token(Some(response.token.clone()))).await?;
        Ok(token != response.token)
    }

    /// Sends the request up to four times while the error is transient, with jitter. The rate limiter adds the back-off
    /// that Harvest requests.
    async fn send_with_retries(
        &self,
        url: &Url,
        what: &str,
        priority: Priority,
    ) -> Result<ApiResponse, HarvestError> {
        let policy = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_factor(3.0)
            .with_max_times(3)
            .with_jitter();
        (|| self.send(url, what, priority))
            .retry(policy)
            .when(HarvestError::is_transient)
            .notify(|error, after| {
                tracing::warn!(
                    event = "harvest.retried",
                    account_id = self.account.0,
                    error = %crate::telemetry::chain(error),
                    retry_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                    "a request to Harvest failed; trying again"
                );
            })
            .await
    }

    /// Sends the request without repetitions.
    pub async fn write(
        &self,
        _access: &WriteAccess,
        request: WriteRequest<'_>,
    ) -> Result<ApiResponse, HarvestError> {
        let WriteRequest { method, url, what, body, deadline } = request;
        let send = async || {
            let build = |token: &AccessToken| {
                let request = self.http_request(method.clone(), &url, token);
                match &body {
                    Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
                    None => request,
                }
            };
            self.send_request(build, what, Priority::Write, Some(deadline)).await
        };
        let mut response = send().await?;
        if self.has_other_token(&response).await? {
            response = send().await?;
        }
        // Older answers than this one are in flight: of two answers about one record, the later one counts.
        Ok(ApiResponse { sent: self.order.sent(), ..response })
    }

    async fn send(&self, url: &Url, what: &str, priority: Priority) -> Result<ApiResponse, HarvestError> {
        let build = |token: &AccessToken| self.http_request(Method::GET, url, token);
        self.send_request(build, what, priority, None).await
    }

    async fn send_request(
        &self,
        build: impl Fn(&AccessToken) -> RequestBuilder,
        what: &str,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<ApiResponse, HarvestError> {
        if self.auth.renews() {
            // Otherwise the token could expire while the request waits for a permit.
            self.wait_for_capacity(priority, 1).await;
        }
        let token = self.progress.waits_for(self.auth.token(None)).await?;
        let permit = self.progress.waits_for(self.limiter.permit(priority)).await;
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(HarvestError::NotSent { what: what.to_owned() });
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        // After the wait for the permit: a write during the wait happens before this request.
        let sent = self.order.sent();
        let (local, started) = (self.clock.now(), std::time::Instant::now());
        let response = build(&token).send().await;
        let response = response
            .inspect(|_| self.progress.made())
            .inspect_err(|_| instruments::request(self.account.0, what, None))
            .map_err(|error| self.unreachable(error, what))?;
        let start = ReadStart { local, server: server_time(response.headers(), started.elapsed()) };
        let status = response.status();
        instruments::request(self.account.0, what, Some(status.as_u16()));
        tracing::debug!(account_id = self.account.0, status = status.as_u16(), "asked Harvest for {what}");
        let retry_after = retry_after(response.headers(), start.server.unwrap_or(local));
        permit.answered(status, retry_after);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(HarvestError::Throttled { what: what.to_owned() });
        }
        if status.is_server_error() {
            return Err(HarvestError::Status { what: what.to_owned(), status });
        }
        let content_type = content_type(response.headers());
        let body = read_body(response, MAX_BODY_BYTES).await.inspect(|_| self.progress.made());
        let body = body.map_err(|error| match error {
            BodyError::Network(error) => self.unreachable(error, what),
            BodyError::TooLong => HarvestError::Protocol {
                what: what.to_owned(),
                problem: format!(
                    "it is longer than {} MiB; a smaller harvest.per_page asks for less",
                    MAX_BODY_BYTES >> 20
                ),
            },
        })?;
        Ok(ApiResponse { status, content_type, body, start, sent, token })
    }

    fn http_request(&self, method: Method, url: &Url, token: &AccessToken) -> RequestBuilder {
        self.http
            .client
            .request(method, url.clone())
            .header(USER_AGENT, &self.user_agent)
            .header(AUTHORIZATION, token.header())
            .header("Harvest-Account-Id", HeaderValue::from(self.account.0))
            .header(ACCEPT, "application/json")
    }

    fn unreachable(&self, error: reqwest::Error, what: &str) -> HarvestError {
        let origin = self.base.origin().ascii_serialization();
        let advice = self.route().advice(&error, "harvest.base_url");
        HarvestError::Unreachable {
            details: format!("at {origin} when asked for {what}; {advice}"),
            source: error.without_url(),
        }
    }
}

/// The first 60 characters of the `Content-Type`, for errors. Empty without one.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.chars().take(60).collect()
}
