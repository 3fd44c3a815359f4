//! Walking a list to its end.
//!
//! `links.next` leads on (under cursor paging `next_page` is null on middle pages); where there are no links,
//! `next_page` does. Links to another origin are refused: the token goes nowhere else. Lists paged by number drift
//! when a row vanishes in mid-walk: the rows behind slide up by one, and one of them lands on a page that was read
//! already. Cursors (a keyset on the id) have no such hole.

use std::collections::{BTreeMap, HashSet};

use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::HarvestError;
use super::ahead::{Ahead, Asked, number, off_the_socket};
use super::client::{Client, request};
use super::pace::Lane;
use super::wire::{self, Decode, Read, Rejected};
use crate::roster::Ids;
use crate::roster::watermark::ReadStart;

/// No list is longer; a server that pages for ever is not believed for ever.
const MOST_PAGES: usize = 20_000;
/// Twice what can be asked for.
const MOST_RECORDS: usize = 4000;

/// One page of a list.
pub struct Page<R> {
    /// Records that no earlier page of this walk had.
    pub records: Vec<Read<R>>,
    /// Records that an earlier page had already.
    pub repeats: Vec<Read<R>>,
    /// Records that cannot be read.
    pub rejected: Vec<Rejected>,
    /// How many rows the list has, where Harvest says so.
    pub total: Option<u64>,
    /// Both clocks when this page was asked for.
    pub start: ReadStart,
    /// Whether the walk is complete with it.
    pub last: bool,
}

/// A walk under way. Ask for [`Pages::next`] until it says `None`.
pub struct Pages<R> {
    client: Client,
    asked: Ahead,
    next: Option<Url>,
    walk: Walk,
    record: std::marker::PhantomData<R>,
}

impl<R: Decode> Pages<R> {
    pub(super) fn new(client: Client, first: Url, lane: Lane) -> Self {
        let asked = Ahead::new(client.clone(), R::RESOURCE.name(), lane);
        Self { client, asked, next: Some(first), walk: Walk::default(), record: std::marker::PhantomData }
    }

    /// The next page; `None` after the last. What comes after it is asked for meanwhile.
    ///
    /// # Errors
    /// Whatever the request gives; [`HarvestError::Protocol`] for a page that is no page or a link to elsewhere;
    /// [`HarvestError::Drifted`] when the list moved under the walk, which then starts again from the front.
    pub async fn next(&mut self) -> Result<Option<Page<R>>, HarvestError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let what = R::RESOURCE.name();
        let is_first = self.walk.asked.is_empty();
        let asked = self.asked.take(url).await;
        let Asked { url, start, sent, envelope } =
            asked.map_err(|error| if is_first { error } else { error.of_later_page() })?;
        let protocol = |problem: String| HarvestError::Protocol { what: what.to_owned(), problem };
        self.next = next_url(&url, self.client.base(), envelope.next_link.as_deref(), envelope.next_page)
            .map_err(protocol)?;
        self.asked.ask(self.next.as_ref(), envelope.total.and(envelope.pages));
        let request = request(&url, self.walk.asked.len() + 1, sent);
        let (with_pay, total) = (self.client.with_pay(), envelope.total);
        let read = off_the_socket(envelope.list.get().len(), move || {
            let records = envelope.records()?.into_iter();
            Ok(records.map(|raw| wire::read::<R>(raw, with_pay, &request)).collect::<Vec<_>>())
        });
        let read = read.await.map_err(protocol)?;
        let mut page = Page {
            records: Vec::with_capacity(read.len()),
            repeats: Vec::new(),
            rejected: Vec::new(),
            total,
            start,
            last: self.next.is_none(),
        };
        for record in read {
            match record {
                Ok(read) if self.walk.seen.contains(read.fetched.record.id()) => page.repeats.push(read),
                Ok(read) => page.records.push(read),
                Err(rejected) => page.rejected.push(rejected),
            }
        }
        self.walk.seen.extend(page.records.iter().map(|read| read.fetched.record.id()));
        self.walk.seen.extend(page.rejected.iter().filter_map(|rejected| rejected.id));
        self.walk.unreadable += page.rejected.iter().filter(|rejected| rejected.id.is_none()).count() as u64;
        let drifted = |problem| HarvestError::Drifted { what: what.to_owned(), problem };
        if !page.last && page.records.is_empty() && page.rejected.is_empty() {
            return Err(protocol("its pages lead on without bringing anything new".into()));
        }
        self.walk.step(&url, page.total, page.repeats.len(), self.next.as_ref()).map_err(drifted)?;
        Ok(Some(page))
    }

    /// Every id that the walk has shown so far, those of records that cannot be read included; and how many rows the
    /// list has, where all its pages said the same.
    pub fn into_seen(self) -> (Ids, Option<u64>) {
        let Walk { seen, last_total, moved, .. } = self.walk;
        (seen, last_total.filter(|_| !moved))
    }
}

/// What a walk remembers.
#[derive(Default)]
struct Walk {
    asked: HashSet<String>,
    seen: Ids,
    unreadable: u64,
    least_total: Option<u64>,
    last_total: Option<u64>,
    /// Two pages told different totals.
    moved: bool,
}

impl Walk {
    /// Notes a page; says why the walk cannot be trusted.
    fn step(
        &mut self,
        url: &Url,
        total: Option<u64>,
        repeats: usize,
        next: Option<&Url>,
    ) -> Result<(), String> {
        if !self.asked.insert(url.to_string()) || self.asked.len() > MOST_PAGES {
            return Err("its pages lead in a circle".into());
        }
        if number(url).is_some() && repeats > 0 {
            return Err("a row came up twice".into());
        }
        if let (Some(before), Some(now)) = (self.last_total, total)
            && now < before
            && (number(url).is_some() || next.and_then(number).is_some())
        {
            return Err(format!("it shrank from {before} to {now} rows"));
        }
        self.moved |= matches!((self.last_total, total), (Some(before), Some(now)) if now != before);
        self.last_total = total.or(self.last_total);
        self.least_total = [self.least_total, total].into_iter().flatten().min();
        // Rows may be added or vanish while we read, but all that were there throughout must have been seen.
        let seen = self.seen.len() + self.unreadable;
        match self.least_total {
            Some(total) if next.is_none() && seen < total => {
                Err(format!("only {seen} of {total} rows came up"))
            }
            _ => Ok(()),
        }
    }
}

/// Where the list goes on.
///
/// # Errors
/// For a link that leads away from `base`.
pub fn next_url(
    current: &Url,
    base: &Url,
    link: Option<&str>,
    page: Option<u64>,
) -> Result<Option<Url>, String> {
    if let Some(link) = link {
        let next = current.join(link).map_err(|_| "its next link is no address".to_owned())?;
        if next.origin() != base.origin() || !next.username().is_empty() || next.password().is_some() {
            return Err("its next link leads to a foreign host, which the token must not see".into());
        }
        return Ok(Some(next));
    }
    Ok(page.map(|page| with_query(current, &["page", "cursor"], "page", page)))
}

/// The address with `key=value` where `instead_of` was, or at its end; its other parameters stay.
pub(super) fn with_query(url: &Url, instead_of: &[&str], key: &str, value: u64) -> Url {
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let old = |(key, _): &(String, String)| instead_of.contains(&key.as_str());
    let place = pairs.iter().position(old).unwrap_or(pairs.len());
    pairs.retain(|pair| !old(pair));
    pairs.insert(place, (key.to_owned(), value.to_string()));
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url
}

/// Where JSON could not be read, not what stands there: nothing of a body gets out.
pub(super) fn not_as_expected(error: &serde_json::Error) -> String {
    format!("not JSON as expected, at line {} column {}", error.line(), error.column())
}

/// A page as it is on the wire, and where it leads: that is known before its records are read.
pub struct Envelope {
    /// The list's text, left alone.
    pub list: Box<RawValue>,
    /// How many rows the list has.
    pub total: Option<u64>,
    /// How many pages.
    pub pages: Option<u64>,
    /// Where it goes on.
    pub next_link: Option<String>,
    /// The number of the page where it goes on.
    pub next_page: Option<u64>,
}

/// How many rows a list says it has.
pub(super) fn total_of(body: &[u8], list: &str) -> Result<Option<u64>, String> {
    Ok(Envelope::parse(body, list)?.total)
}

impl Envelope {
    /// Reads a page of the list of that name.
    ///
    /// # Errors
    /// Why it is none, without quoting it.
    pub fn parse(body: &[u8], list: &str) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        struct Links {
            next: Option<String>,
        }
        let bad = |error: serde_json::Error| not_as_expected(&error);
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).map_err(bad)?;
        let list = fields.get(list).ok_or_else(|| format!("it has no list {list:?}"))?;
        // All that leads on is optional: Harvest leaves out what does not fit the way a list is paged.
        let number = |key| fields.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok());
        let links: Links = match fields.get("links") {
            Some(raw) => serde_json::from_str::<Option<Links>>(raw.get()).map_err(bad)?.unwrap_or_default(),
            None => Links::default(),
        };
        Ok(Self {
            list: (*list).to_owned(),
            total: number("total_entries"),
            pages: number("total_pages"),
            next_link: links.next,
            next_page: number("next_page"),
        })
    }

    /// Each record's text: a bad one spoils nothing.
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    pub fn records(&self) -> Result<Vec<&RawValue>, String> {
        let records: Vec<&RawValue> =
            serde_json::from_str(self.list.get()).map_err(|error| not_as_expected(&error))?;
        if records.len() > MOST_RECORDS {
            return Err(format!("it holds {} records, more than was asked for", records.len()));
        }
        Ok(records)
    }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
