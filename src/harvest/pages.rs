//! Reads all pages of a list and checks that they contradict neither each other nor the total.
//!
//! A list that is paged by number shifts if a record disappears during pagination: the records behind it move up by
//! one, and one of them moves to a page that was read already. Cursors (a keyset on the id) do not have this gap.

use std::collections::HashSet;
use std::marker::PhantomData;

use reqwest::Url;

use super::api::{Client, request};
use super::envelope::{Envelope, next_url, page_number};
use super::error::HarvestError;
use super::prefetch::{Prefetch, PrefetchedPage, unblocking};
use super::rate_limit::Priority;
use super::wire::{self, Decode, UnreadableRecord};
use crate::roster::watermark::ReadStart;
use crate::roster::{Authority, Fetched, IdSet, SourceRequest};

/// No account's list has more pages: a limit for a server that always names another one.
const MAX_PAGES: usize = 20_000;

pub struct ListPage<R> {
    /// The page's records. They have full authority if the list is not filtered by `updated_since`, except for records
    /// that an earlier page had already.
    pub(crate) records: Vec<Fetched<R>>,
    pub(crate) rejected: Vec<UnreadableRecord>,
    /// The number of records in the list, if Harvest sends it.
    pub(crate) total: Option<u64>,
    /// Both clocks at the time of the request for this page.
    pub(crate) start: ReadStart,
    pub(crate) last: bool,
}

/// A read of a list. Call [`ListReader::next`] until it returns `None`.
pub struct ListReader<R> {
    client: Client,
    prefetch: Prefetch,
    next: Option<Url>,
    progress: ListProgress,
    /// Whether the list is filtered by `updated_since`.
    is_filtered: bool,
    record: PhantomData<R>,
}

impl<R: Decode> ListReader<R> {
    pub(super) fn new(client: Client, first: Url, priority: Priority) -> Self {
        let prefetch = Prefetch::new(client.clone(), R::RESOURCE.name(), priority);
        Self {
            client,
            prefetch,
            is_filtered: first.query_pairs().any(|(key, _)| key == "updated_since"),
            next: Some(first),
            progress: ListProgress::default(),
            record: PhantomData,
        }
    }

    /// The next page; `None` after the last. The page after it is requested at the same time.
    ///
    /// # Errors
    /// Any error of the request; [`HarvestError::Protocol`] for an invalid page or a link to another origin;
    /// [`HarvestError::Drifted`] if the list changed during pagination, so that it must be read again from the start.
    pub(crate) async fn next(&mut self) -> Result<Option<ListPage<R>>, HarvestError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let is_first = self.progress.requested.is_empty();
        let page = self.prefetch.take(url).await;
        let page = page.map_err(|error| if is_first { error } else { error.of_later_page() })?;
        let PrefetchedPage { url, start, sent, envelope } = page;
        let protocol = HarvestError::protocol(R::RESOURCE.name());
        let (link, number) = (envelope.next_link.as_deref(), envelope.next_page);
        self.next = next_url(&url, &self.client.transport.base, link, number).map_err(&protocol)?;
        self.prefetch.request(self.next.as_ref(), envelope.total.and(envelope.pages));
        let total = envelope.total;
        let request = request(&url, self.progress.requested.len() + 1, sent);
        let decoded = self.decode(envelope, request).await;
        let (mut records, mut rejected) = (Vec::with_capacity(decoded.len()), Vec::new());
        for record in decoded {
            match record {
                Ok(fetched) => records.push(fetched),
                Err(unreadable) => rejected.push(unreadable),
            }
        }
        let mut page = ListPage { records, rejected, total, start, last: self.next.is_none() };
        let repeats = self.limit_authority(&mut page);
        if !page.last && page.records.len() == repeats && page.rejected.is_empty() {
            return Err(protocol("a page before the last has no new record".into()));
        }
        self.progress.see(&page, repeats);
        let drifted = |problem| HarvestError::Drifted { what: R::RESOURCE.name().to_owned(), problem };
        self.progress.add(&url, total, repeats, self.next.as_ref()).map_err(drifted)?;
        Ok(Some(page))
    }

    async fn decode(&self, envelope: Envelope, request: SourceRequest) -> Vec<Decoded<R>> {
        let (with_pay_data, texts) = (self.client.with_pay_data(), envelope.records);
        let bytes = texts.iter().map(|text| text.get().len()).sum();
        unblocking(bytes, move || {
            texts.iter().map(|text| wire::read(text, with_pay_data, &request)).collect()
        })
        .await
    }

    /// Removes full authority from the records of a filtered list and from records that an earlier page had. Returns
    /// the number of the latter.
    fn limit_authority(&self, page: &mut ListPage<R>) -> usize {
        let incremental = Authority::Incremental { now: page.start.server.unwrap_or(page.start.local) };
        let mut repeats = 0;
        for fetched in &mut page.records {
            let is_repeat = self.progress.seen.contains(fetched.id());
            repeats += usize::from(is_repeat);
            if self.is_filtered || is_repeat {
                fetched.authority = incremental;
            }
        }
        repeats
    }

    /// The ids of all records that the pages had, including records that cannot be read; and the list's total, if all
    /// pages agreed on it.
    pub(crate) fn into_seen(self) -> (IdSet, Option<u64>) {
        let ListProgress { seen, last_total, total_changed, .. } = self.progress;
        (seen, last_total.filter(|_| !total_changed))
    }
}

type Decoded<R> = Result<Fetched<R>, UnreadableRecord>;

#[derive(Default)]
struct ListProgress {
    requested: HashSet<String>,
    seen: IdSet,
    /// Records without a readable id.
    without_id: u64,
    /// Records that a page has twice. They count for the total: no other page has the records that would be missing.
    repeated: u64,
    least_total: Option<u64>,
    last_total: Option<u64>,
    total_changed: bool,
}

impl ListProgress {
    /// `repeats`: how many of its records an earlier page had.
    fn see<R: Decode>(&mut self, page: &ListPage<R>, repeats: usize) {
        let seen = self.seen.len();
        self.seen.extend(page.records.iter().map(Fetched::id));
        self.repeated += (page.records.len() - repeats) as u64 - (self.seen.len() - seen);
        self.seen.extend(page.rejected.iter().filter_map(|rejected| rejected.id));
        self.without_id += page.rejected.iter().filter(|rejected| rejected.id.is_none()).count() as u64;
    }

    /// Adds a page; the error says why the read of the list is not reliable.
    fn add(
        &mut self,
        url: &Url,
        total: Option<u64>,
        repeats: usize,
        next: Option<&Url>,
    ) -> Result<(), String> {
        if !self.requested.insert(url.to_string()) || self.requested.len() > MAX_PAGES {
            return Err("a page links to an earlier one, or there are too many pages".into());
        }
        if page_number(url).is_some() && repeats > 0 {
            return Err("a record was on two pages".into());
        }
        if let (Some(before), Some(now)) = (self.last_total, total)
            && now < before
            && (page_number(url).is_some() || next.and_then(page_number).is_some())
        {
            return Err(format!("its total fell from {before} to {now} records"));
        }
        self.total_changed |= matches!((self.last_total, total), (Some(before), Some(now)) if now != before);
        self.last_total = total.or(self.last_total);
        self.least_total = [self.least_total, total].into_iter().flatten().min();
        // Records may appear or disappear during the read, but those that existed all the time must have been seen.
        let seen = self.seen.len() + self.without_id + self.repeated;
        match self.least_total {
            Some(total) if next.is_none() && seen < total => {
                Err(format!("only {seen} of {total} records were on its pages"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "https://api.harvestapp.com/v2/users?per_page=2000";

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    #[test]
    fn same_page_twice_fails_the_read() {
        let mut progress = ListProgress::default();
        let page = url(LIST);
        assert!(progress.add(&page, None, 0, Some(&page)).is_ok());
        assert!(progress.add(&page, None, 0, Some(&page)).is_err());
    }

    #[test]
    fn record_that_a_page_has_twice_counts_twice() {
        let mut progress = ListProgress { seen: (1..=3).collect(), repeated: 1, ..ListProgress::default() };
        assert!(progress.add(&url(LIST), Some(4), 0, None).is_ok());
    }

    #[test]
    fn more_pages_than_allowed_fail_the_read() {
        let mut progress = ListProgress::default();
        let page = |n: usize| url(&format!("{LIST}&cursor={n}"));
        let mut pages = (0..=MAX_PAGES).map(|n| progress.add(&page(n), None, 0, Some(&page(n + 1))));
        assert!(pages.by_ref().take(MAX_PAGES).all(|page| page.is_ok()));
        assert!(pages.next().expect("one more").is_err());
    }

    #[test]
    fn numbered_list_that_shrinks_or_repeats_a_record_fails_the_read() {
        let (first, second) = (url(LIST), url(&format!("{LIST}&page=2")));
        // All remaining records were seen, so only the smaller total shows the change.
        let mut shrunk = ListProgress { seen: (1..=3).collect(), ..ListProgress::default() };
        assert!(shrunk.add(&first, Some(4), 0, Some(&second)).is_ok());
        assert!(shrunk.add(&second, Some(3), 0, None).is_err(), "a smaller total");
        let mut repeated = ListProgress { seen: (1..=4).collect(), ..ListProgress::default() };
        assert!(repeated.add(&first, Some(4), 0, Some(&second)).is_ok());
        assert!(repeated.add(&second, Some(4), 1, None).is_err(), "a repeated record");
    }

    #[test]
    fn read_is_complete_if_as_many_records_as_the_least_total_were_seen() {
        let (first, second) = (url(LIST), url(&format!("{LIST}&cursor=x")));
        let read = |seen: i64, totals: [u64; 2]| {
            let mut progress = ListProgress { seen: (0..seen).collect(), ..ListProgress::default() };
            progress
                .add(&first, Some(totals[0]), 0, Some(&second))
                .and_then(|()| progress.add(&second, Some(totals[1]), 0, None))
        };
        assert!(read(4, [4, 4]).is_ok());
        assert!(read(4, [4, 5]).is_ok(), "a user was created during the read");
        assert!(read(3, [4, 3]).is_ok(), "a user was deleted during the read");
        assert!(read(3, [4, 4]).is_err(), "a user was not seen");
    }
}
