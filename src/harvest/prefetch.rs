//! Requests the next pages of a list while the current one is read and stored.
//!
//! Each page names the next one. A list that is paged by number says on its first page how many pages there are, so
//! several are requested at once; each takes its own permit. The reader still gets the pages in the list's order, and
//! its checks work as for pages requested one after the other. A deletion can hide a record only between two adjacent
//! pages, if the first was answered before the deletion moved the list up and the second after it. Then the total falls
//! between the two. So a list without a total is read page by page.

use std::collections::VecDeque;
use std::panic::resume_unwind;

use reqwest::Url;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::api::Client;
use super::envelope::{Envelope, page_number, with_query};
use super::error::HarvestError;
use super::rate_limit::Priority;
use super::transport::ApiResponse;
use crate::roster::order::Sent;
use crate::roster::watermark::ReadStart;

/// Requests in flight. At half a second each they use the whole rate limit; more would only hold memory (a page of
/// 2,000 records has up to two megabytes).
const MAX_IN_FLIGHT: usize = 4;
/// Below this many bytes, decoding takes less time than the move to another thread.
const INLINE_BYTES: usize = 64 << 10;
/// Limits the pages that are decoded at once, of all accounts together: each takes a thread and memory.
static DECODERS: Semaphore = Semaphore::const_new(4);

pub(super) struct PrefetchedPage {
    pub url: Url,
    /// Both clocks at the time of the request.
    pub start: ReadStart,
    pub sent: Sent,
    pub envelope: Envelope,
}

type Task = AbortOnDropHandle<Result<PrefetchedPage, HarvestError>>;

/// The requested pages of one list.
pub(super) struct Prefetch {
    client: Client,
    what: &'static str,
    priority: Priority,
    in_flight: VecDeque<(Url, Task)>,
    limit: usize,
}

impl Prefetch {
    pub fn new(client: Client, what: &'static str, priority: Priority) -> Self {
        Self { client, what, priority, in_flight: VecDeque::new(), limit: MAX_IN_FLIGHT }
    }

    /// Waits for the page at this address: the `next` of the last [`Prefetch::request`], or the first page.
    pub async fn take(&mut self, url: Url) -> Result<PrefetchedPage, HarvestError> {
        let page = self.in_flight.pop_front().map(|(_, page)| page);
        finished(page.unwrap_or_else(|| self.send(url)).await).await
    }

    /// Requests the next page and, if the list is paged by number, some of the following ones.
    pub fn request(&mut self, next: Option<&Url>, pages: Option<u64>) {
        let Some(next) = next else { return self.in_flight.clear() };
        if self.in_flight.front().is_some_and(|(requested, _)| !is_same(requested, next)) {
            // The link differs from the predicted page, so page numbers do not predict this list.
            self.in_flight.clear();
            self.limit = 1;
        }
        if self.in_flight.is_empty() {
            self.in_flight.push_back((next.clone(), self.send(next.clone())));
        }
        while self.in_flight.len() < self.limit
            && let Some(url) = self.in_flight.back().and_then(|(last, _)| following(last, pages?))
        {
            self.in_flight.push_back((url.clone(), self.send(url)));
        }
    }

    fn send(&self, url: Url) -> Task {
        let (client, what, priority) = (self.client.clone(), self.what, self.priority);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let (url, ApiResponse { body, start, sent, .. }) = client.list_page(url, what, priority).await?;
            let envelope = Envelope::parse(&body, what).map_err(HarvestError::protocol(what))?;
            Ok(PrefetchedPage { url, start, sent, envelope })
        }))
    }
}

/// Runs work on this many bytes, on another thread if it would block connections to Harvest and the database for long.
pub(super) async fn unblocking<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < INLINE_BYTES {
        return work();
    }
    let _permit = DECODERS.acquire().await;
    finished(tokio::task::spawn_blocking(work).await).await
}

/// A task's result. A panic in the task continues here. No code aborts a task that is awaited, so a task is only
/// cancelled when the runtime ends; then the caller never continues.
async fn finished<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => std::future::pending().await,
    }
}

/// The address of the page after this one, if the list is paged by number and has more pages.
fn following(url: &Url, pages: u64) -> Option<Url> {
    let number = page_number(url).filter(|number| *number < pages)?;
    Some(with_query(url, &["page"], "page", number + 1))
}

/// Whether two addresses have the same path and parameters, however they are escaped.
fn is_same(one: &Url, other: &Url) -> bool {
    one.path() == other.path() && one.query_pairs().eq(other.query_pairs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(query: &str) -> Url {
        format!("https://api.harvestapp.com/v2/users?{query}").parse().expect("a URL")
    }

    #[test]
    fn numbered_page_is_followed_by_the_next_number_up_to_the_last_page() {
        let second = url("page=2&per_page=2000&ref=next&updated_since=2026-01-01T00:00:00Z");
        let third = following(&second, 3).expect("a page");
        let linked = url("page=3&per_page=2000&ref=next&updated_since=2026-01-01T00:00:00Z");
        assert!(is_same(&third, &linked), "{third}");
        assert_eq!(following(&third, 3), None);
    }

    #[test]
    fn page_with_cursor_predicts_no_following_page() {
        assert_eq!(following(&url("cursor=abc&per_page=2000"), 9), None);
        assert_eq!(following(&url("cursor=abc&page=2"), 9), None, "the cursor takes precedence");
        assert!(!is_same(&url("cursor=abc"), &url("cursor=abd")));
    }
}
