//! One GET: leave from [`Pace`], headers, retries, a bounded body, and both clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use reqwest::{Response, StatusCode, Url};

use super::HarvestError;
use super::auth::{Auth, Token};
use super::pace::{self, Lane, Pace, Permit, Throttle};
use super::route::{NoTls, Route};
use crate::clock::Clock;
use crate::progress::Progress;
use crate::roster::order::Sent;
use crate::roster::watermark::ReadStart;
use crate::roster::{AccountId, Order};
use crate::telemetry::meters;

/// 2,000 users are 1.5 MB. Counted after decompression, so that a small bomb is a bomb. In memory a page may become two
/// dozen times as much until it is stored.
const MOST_BYTES: usize = 8 << 20;

/// How requests are made; handed in by `app`.
#[derive(Clone)]
pub struct Options {
    /// What sends them.
    pub http: Http,
    /// Such as `https://api.harvestapp.com/v2`.
    pub base: Url,
    /// The `User-Agent`: Harvest asks for a name and a way to reach the sender.
    pub user_agent: String,
}

/// Sends requests: the connections, and whom to trust. All accounts share one, or each would keep a connection open from
/// poll to poll and the certificate authorities in memory.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    route: Route,
}

impl Http {
    /// For requests to the host of `base`, each of which may take so long, from the connection to the end of the body.
    ///
    /// # Errors
    /// When the HTTP client cannot be built (no TLS roots on the machine).
    pub fn new(base: &Url, timeout: Duration) -> Result<Self, NoTls> {
        let route = Route::to(base);
        Ok(Self { client: route.client(timeout, |http| http)?, route })
    }
}

/// Sends GETs for one account, and counts them.
pub(super) struct Transport {
    http: Http,
    user_agent: String,
    pub(super) base: Url,
    pub(super) account: AccountId,
    auth: Auth,
    pace: Pace,
    clock: Arc<dyn Clock>,
    /// Each response, and each wait for a permit or a token.
    pub(super) progress: Progress,
    requests: AtomicU64,
    /// The order in which they were sent.
    pub(super) order: Order,
}

/// An answer that is neither a 429 nor a 5xx.
pub(super) struct Answer {
    pub status: StatusCode,
    /// The `Content-Type` header, shortened; empty where there is none.
    pub content_type: String,
    pub body: Vec<u8>,
    pub start: ReadStart,
    /// The request that it answers.
    pub sent: Sent,
    /// What was shown for it.
    token: Token,
}

impl Answer {
    /// Whether the content type says that the body is JSON.
    pub fn is_json(&self) -> bool {
        self.content_type.contains("json")
    }
}

impl Transport {
    pub fn new(options: &Options, account: AccountId, auth: Auth, pace: Pace, clock: Arc<dyn Clock>) -> Self {
        let Options { http, base, user_agent } = options.clone();
        Self {
            http,
            user_agent,
            base,
            account,
            auth,
            pace,
            clock,
            progress: Progress::default(),
            requests: AtomicU64::new(0),
            order: Order::default(),
        }
    }

    /// The way to Harvest.
    pub fn route(&self) -> &Route {
        &self.http.route
    }

    /// Requests sent so far, retries included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Waits until so many requests could leave. Safe to drop, at no cost, which a request under way is not: given up, it
    /// keeps its permit for as long as Harvest may still see it.
    pub async fn room(&self, lane: Lane, requests: u32) {
        self.progress.waits_for(self.pace.room(lane, requests)).await;
    }

    /// GETs; once more with another token where Harvest refuses one that can be renewed.
    pub async fn get(&self, url: &Url, what: &str, lane: Lane) -> Result<Answer, HarvestError> {
        let answer = self.tries(url, what, lane).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.auth.renews() {
            let other = self.progress.waits_for(self.auth.token(Some(answer.token.clone()))).await?;
            if other != answer.token {
                return self.tries(url, what, lane).await;
            }
        }
        Ok(answer)
    }

    /// Tries again what is worth it: four times at the most, with jitter, after any silence that Harvest asked for.
    async fn tries(&self, url: &Url, what: &str, lane: Lane) -> Result<Answer, HarvestError> {
        let policy = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_factor(3.0)
            .with_max_times(3)
            .with_jitter();
        (|| self.once(url, what, lane))
            .retry(policy)
            .when(HarvestError::is_transient)
            .notify(|error, after| {
                tracing::warn!(
                    event = "harvest.retried",
                    account_id = self.account.0,
                    error = %crate::telemetry::chain(error),
                    retry_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                    "Harvest did not answer as it should, trying again"
                );
            })
            .await
    }

    async fn once(&self, url: &Url, what: &str, lane: Lane) -> Result<Answer, HarvestError> {
        if self.auth.renews() {
            // The token shall not end while it waits for leave.
            self.room(lane, 1).await;
        }
        let token = self.progress.waits_for(self.auth.token(None)).await?;
        let permit = self.progress.waits_for(self.pace.permit(lane)).await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        // Not before it has leave: what is stored while it waits is older than its answer.
        let sent = self.order.sent();
        let (local, started) = (self.clock.now(), std::time::Instant::now());
        let no_answer = |source: reqwest::Error| HarvestError::Unreachable {
            sentence: format!(
                "at {} when asked for {what}; {}",
                self.base.origin().ascii_serialization(),
                self.route().advice(&source, "harvest.base_url")
            ),
            source: source.without_url(),
        };
        let response = self
            .http
            .client
            .get(url.clone())
            .header(USER_AGENT, &self.user_agent)
            .header(AUTHORIZATION, token.header())
            .header("Harvest-Account-Id", HeaderValue::from(self.account.0))
            .header(ACCEPT, "application/json")
            .send()
            .await
            .inspect(|_| self.progress.made())
            .inspect_err(|_| meters::request(self.account.0, what, None))
            .map_err(no_answer)?;
        let start = ReadStart { local, server: server_time(response.headers(), started.elapsed()) };
        let status = response.status();
        meters::request(self.account.0, what, Some(status.as_u16()));
        tracing::debug!(account_id = self.account.0, status = status.as_u16(), "asked Harvest for {what}");
        let silence = retry_after(response.headers(), start.server.unwrap_or(local));
        heard(permit, status, silence);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(HarvestError::Throttled { what: what.to_owned() });
        }
        if status.is_server_error() {
            return Err(HarvestError::Status { what: what.to_owned(), status });
        }
        let content_type = content_type(response.headers());
        let body =
            read_body(response).await.inspect(|_| self.progress.made()).map_err(|error| match error {
                BodyError::Network(source) => no_answer(source),
                BodyError::TooLong => HarvestError::Protocol {
                    what: what.to_owned(),
                    problem: format!(
                        "it is longer than {} MiB; a smaller harvest.per_page asks for less",
                        MOST_BYTES >> 20
                    ),
                },
            })?;
        Ok(Answer { status, content_type, body, start, sent, token })
    }
}

/// Tells the pace what an answer's status line says. It says `harvest.throttled` in the log.
pub(super) fn heard(permit: Permit, status: StatusCode, silence: Option<Duration>) {
    match (status, silence) {
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            meters::throttled();
            permit.throttled(Throttle::TooMany, silence);
        }
        (StatusCode::SERVICE_UNAVAILABLE, Some(_)) => permit.throttled(Throttle::Unavailable, silence),
        _ => permit.answered(),
    }
}

/// Harvest's clock when the request was sent: its `Date` less the time the answer took.
pub fn server_time(headers: &HeaderMap, elapsed: Duration) -> Option<DateTime<Utc>> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(DateTime::<Utc>::from(date) - TimeDelta::from_std(elapsed).ok()?)
}

pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    pace::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// The `Content-Type`, at most 60 characters of it: it goes into errors. Empty where there is none.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.chars().take(60).collect()
}

pub(super) enum BodyError {
    Network(reqwest::Error),
    TooLong,
}

pub(super) async fn read_body(mut response: Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Network)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: reqwest::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a header"))])
    }

    #[test]
    fn the_servers_clock_is_taken_from_before_the_answer() {
        let date = headers(DATE, "Sun, 01 Mar 2026 10:00:07 GMT");
        let expected = "2026-03-01T10:00:05Z".parse().ok();
        assert_eq!(server_time(&date, Duration::from_secs(2)), expected);
        assert_eq!(server_time(&headers(DATE, "yesterday"), Duration::ZERO), None);
    }
}
