//! Pages asked for before their turn.
//!
//! Each page says where its list goes on: the next one is on its way while this one is read and stored. A list by numbers
//! says with its first page how many there are, and several are on their way at once, each with leave of its own as any
//! request. Whatever order they are answered in, the walk looks at them in the list's, and its checks hold as they do for pages
//! asked for one by one: a row is lost only between two neighbours of which the first was answered before the list slid up
//! and the second after, and between those two the total falls. So a list that tells no total is read one by one.

use std::collections::VecDeque;
use std::panic::resume_unwind;

use reqwest::Url;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::HarvestError;
use super::client::Client;
use super::pace::Lane;
use super::pages::{Envelope, with_query};
use super::transport::Answer;
use super::unicode;
use crate::roster::order::Sent;
use crate::roster::watermark::ReadStart;

/// So many are under way. At half a second each they are as many as the limit lets through; more would only wait in
/// memory, a page of 2,000 being up to two megabytes.
const AT_ONCE: usize = 4;
/// What is shorter is read sooner than handed to another thread.
const SHORT: usize = 64 << 10;
/// So many pages are read at once, whatever the accounts: each takes a thread, and memory.
static READERS: Semaphore = Semaphore::const_new(4);

/// A page that came.
pub(super) struct Asked {
    /// Where it was found.
    pub url: Url,
    /// Both clocks when it was asked for.
    pub start: ReadStart,
    /// The request that it answers.
    pub sent: Sent,
    pub envelope: Envelope,
}

type Task = AbortOnDropHandle<Result<Asked, HarvestError>>;

/// The pages of one list that are asked for.
pub(super) struct Ahead {
    client: Client,
    what: &'static str,
    lane: Lane,
    under_way: VecDeque<(Url, Task)>,
    at_once: usize,
}

impl Ahead {
    pub fn new(client: Client, what: &'static str, lane: Lane) -> Self {
        Self { client, what, lane, under_way: VecDeque::new(), at_once: AT_ONCE }
    }

    /// The page at this address, which is that of the last [`Ahead::ask`] if there was one.
    pub async fn take(&mut self, url: Url) -> Result<Asked, HarvestError> {
        let page = self.under_way.pop_front().map(|(_, page)| page);
        ended(page.unwrap_or_else(|| self.send(url)).await).await
    }

    /// Asks for the page where the list goes on and, where it goes by numbers, for some of those behind it.
    pub fn ask(&mut self, next: Option<&Url>, pages: Option<u64>) {
        let Some(next) = next else { return self.under_way.clear() };
        if self.under_way.front().is_some_and(|(asked, _)| !is_same(asked, next)) {
            // It leads elsewhere than its numbers do: they are no guide.
            self.under_way.clear();
            self.at_once = 1;
        }
        if self.under_way.is_empty() {
            self.under_way.push_back((next.clone(), self.send(next.clone())));
        }
        while self.under_way.len() < self.at_once
            && let Some(url) = self.under_way.back().and_then(|(last, _)| behind(last, pages?))
        {
            self.under_way.push_back((url.clone(), self.send(url)));
        }
    }

    fn send(&self, url: Url) -> Task {
        let (client, what, lane) = (self.client.clone(), self.what, self.lane);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let (url, Answer { body, start, sent, .. }) = client.list_page(url, what, lane).await?;
            let envelope = Envelope::parse(&unicode::escaped(&body), what)
                .map_err(|problem| HarvestError::Protocol { what: what.to_owned(), problem })?;
            Ok(Asked { url, start, sent, envelope })
        }))
    }
}

/// Does work on so many bytes where it holds up neither an answer on its way nor the database's.
pub(super) async fn off_the_socket<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < SHORT {
        return work();
    }
    let _turn = READERS.acquire().await;
    ended(tokio::task::spawn_blocking(work).await).await
}

/// What a task came to. Nobody aborts one that is waited for: a panic of its own goes on here, and when the runtime ends
/// so does whoever waits.
async fn ended<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => std::future::pending().await,
    }
}

/// The number of the page that is asked for, where it is asked for by number rather than by cursor.
pub(super) fn number(url: &Url) -> Option<u64> {
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name);
    if value("cursor").is_some() { None } else { value("page")?.1.parse().ok() }
}

/// The page after this one, of so many.
fn behind(url: &Url, pages: u64) -> Option<Url> {
    let number = number(url).filter(|number| *number < pages)?;
    Some(with_query(url, &["page"], "page", number + 1))
}

/// Whether two addresses ask the same, however they are escaped.
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
    fn a_list_by_numbers_leads_on_to_its_last_page() {
        let second = url("page=2&per_page=2000&ref=next&updated_since=2026-01-01T00:00:00Z");
        let third = behind(&second, 3).expect("a page");
        let linked = url("page=3&per_page=2000&ref=next&updated_since=2026-01-01T00:00:00Z");
        assert!(is_same(&third, &linked), "{third}");
        assert_eq!(behind(&third, 3), None);
    }

    #[test]
    fn a_cursor_leads_to_one_page_only() {
        assert_eq!(behind(&url("cursor=abc&per_page=2000"), 9), None);
        assert_eq!(behind(&url("cursor=abc&page=2"), 9), None, "of both the cursor counts");
        assert!(!is_same(&url("cursor=abc"), &url("cursor=abd")));
    }
}
