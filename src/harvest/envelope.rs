//! A page of a list as Harvest sends it: its records' texts and the address of the next page.
//!
//! Harvest's `links.next` is the next page (with cursors, `next_page` is null on all pages but the last). If a page has
//! no links, `next_page` counts. Links to another origin are refused, because rosterd would send the token there.

use std::fmt;

use reqwest::Url;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::error::not_as_expected;
use super::json::escape_invalid_utf8;

/// Twice the largest page size that Harvest offers.
pub(super) const MAX_RECORDS: usize = 4000;

#[derive(Default)]
pub struct Envelope {
    /// Each record's text, not parsed yet, so that one bad record does not affect the others.
    pub records: Vec<Box<RawValue>>,
    /// The number of records on all pages together.
    pub total: Option<u64>,
    pub pages: Option<u64>,
    pub next_link: Option<String>,
    pub next_page: Option<u64>,
}

impl Envelope {
    /// Reads a page of the list with this name, in one pass over the body.
    ///
    /// # Errors
    /// Why the body is not a page of this list, without a part of the body.
    pub fn parse(body: &[u8], list: &str) -> Result<Self, String> {
        let body = escape_invalid_utf8(body);
        let mut json = Deserializer::from_slice(&body);
        let page = PageOf { list }.deserialize(&mut json);
        let page = page.and_then(|page| json.end().map(|()| page));
        let (records, envelope) = page.map_err(|error| not_as_expected(&error))?;
        let Records { texts, count } = records.ok_or_else(|| format!("it has no list {list:?}"))?;
        if count > MAX_RECORDS {
            return Err(format!("it holds {count} records, more than was asked for"));
        }
        Ok(Self { records: texts, ..envelope })
    }
}

/// Reads an object with the member `list`. Of a key that occurs twice, the last value counts.
struct PageOf<'l> {
    list: &'l str,
}

impl<'de> DeserializeSeed<'de> for PageOf<'_> {
    type Value = (Option<Records>, Envelope);

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PageOf<'_> {
    type Value = (Option<Records>, Envelope);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a page")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Links {
            next: Option<String>,
        }
        let (mut records, mut page) = (None, Envelope::default());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                list if list == self.list => records = Some(map.next_value()?),
                "total_entries" => page.total = number(&mut map)?,
                "total_pages" => page.pages = number(&mut map)?,
                "next_page" => page.next_page = number(&mut map)?,
                "links" => page.next_link = map.next_value::<Option<Links>>()?.and_then(|links| links.next),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((records, page))
    }
}

/// The value as a number; `None` for any other value, because Harvest leaves out what a kind of pagination does not
/// have.
fn number<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<u64>, A::Error> {
    let value: &RawValue = map.next_value()?;
    Ok(serde_json::from_str(value.get()).ok())
}

/// The texts of at most [`MAX_RECORDS`] records, so that memory stays bounded, and the number of all.
struct Records {
    texts: Vec<Box<RawValue>>,
    count: usize,
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Records;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Records, A::Error> {
                let mut texts = Vec::new();
                while texts.len() < MAX_RECORDS {
                    let Some(text) = list.next_element()? else {
                        return Ok(Records { count: texts.len(), texts });
                    };
                    texts.push(text);
                }
                let mut count = texts.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Records { texts, count })
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// The address of the next page.
///
/// # Errors
/// If the link leads to another origin than `base`, or contains a user or a password.
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

/// The number of a page that is addressed by number and not by cursor.
pub(super) fn page_number(url: &Url) -> Option<u64> {
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name);
    if value("cursor").is_some() { None } else { value("page")?.1.parse().ok() }
}

/// The address with `key=value` at the place of the parameters `instead_of`, or at the end; other parameters stay.
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

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: &str =
        "https://api.harvestapp.com/v2/users?updated_since=2026-01-01T00%3A00%3A00Z&per_page=2000";

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    fn next(link: Option<&str>, page: Option<u64>) -> Result<Option<Url>, String> {
        next_url(&url(CURRENT), &url("https://api.harvestapp.com/v2"), link, page)
    }

    fn count(body: &[u8]) -> Result<usize, String> {
        Envelope::parse(body, "users").map(|envelope| envelope.records.len())
    }

    #[test]
    fn next_link_takes_precedence_over_next_page() {
        let link = "https://api.harvestapp.com/api/v2/users?cursor=abc&per_page=2000&ref=next_cursor";
        assert_eq!(next(Some(link), Some(2)), Ok(Some(url(link))));
    }

    #[test]
    fn next_page_without_link_keeps_the_other_parameters() {
        let expected =
            "https://api.harvestapp.com/v2/users?updated_since=2026-01-01T00%3A00%3A00Z&per_page=2000&page=2";
        assert_eq!(next(None, Some(2)), Ok(Some(url(expected))));
        assert_eq!(next(None, None), Ok(None));
    }

    #[test]
    fn link_to_another_origin_is_refused() {
        for link in [
            "https://evil.example.com/v2/users?cursor=abc",
            "http://api.harvestapp.com/v2/users?cursor=abc",
            "https://api.harvestapp.com:8443/v2/users",
            "https://user@api.harvestapp.com/v2/users",
            "https://api.harvestapp.com.evil.example.com/v2/users",
            "//evil.example.com/v2/users",
            "data:application/json,{}",
        ] {
            assert!(next(Some(link), None).is_err(), "{link}");
        }
    }

    #[test]
    fn envelopes_with_and_without_pagination_are_read() {
        let body = br#"{"users":[{"id":2},{"id":1}],"per_page":2000,"total_pages":3,"total_entries":257,
            "next_page":null,"previous_page":null,"page":null,
            "links":{"first":"f","next":"n","previous":null,"last":"l"}}"#;
        let envelope = Envelope::parse(body, "users").expect("an envelope");
        assert_eq!(envelope.records.len(), 2);
        assert_eq!((envelope.total, envelope.pages), (Some(257), Some(3)));
        assert_eq!((envelope.next_link.as_deref(), envelope.next_page), (Some("n"), None));
        let bare = Envelope::parse(br#"{"users":[],"links":null}"#, "users").expect("an envelope");
        assert!(bare.total.is_none() && bare.next_link.is_none() && bare.next_page.is_none());
    }

    #[test]
    fn pagination_fields_of_another_type_are_ignored_and_the_last_of_two_keys_counts() {
        let body = br#"{"total_entries":"many","total_pages":-1,"next_page":{},"users":[0],"users":[1,2]}"#;
        let envelope = Envelope::parse(body, "users").expect("an envelope");
        assert_eq!(envelope.records.iter().map(|text| text.get()).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((envelope.total, envelope.pages, envelope.next_page), (None, None, None));
    }

    #[test]
    fn invalid_utf8_in_a_record_affects_only_that_record() {
        let envelope = Envelope::parse(b"{\"users\":[{\"name\":\"caf\xe9\"},{\"id\":1}]}", "users");
        let records = envelope.expect("an envelope").records;
        assert_eq!(
            records.iter().map(|text| text.get()).collect::<Vec<_>>(),
            [r#"{"name":"caf\udce9"}"#, r#"{"id":1}"#]
        );
    }

    #[test]
    fn body_that_is_not_a_page_is_refused_without_being_quoted() {
        for body in [
            &b"<!DOCTYPE html><p>Jane"[..],
            b"",
            b"[]",
            b"{\"people\":[]}",
            b"{\"users\":{}}",
            b"{\"users\":[\xff]}",
            b"{\"users\":[]} Jane",
            b"{\"users\":[],\"links\":\"Jane\"}",
        ] {
            let problem = count(body).expect_err("refused");
            assert!(!problem.contains("Jane"), "{problem}");
        }
    }

    #[test]
    fn page_with_more_records_than_allowed_is_refused() {
        let page = |count: usize| format!(r#"{{"users":[{}0]}}"#, "0,".repeat(count - 1));
        assert_eq!(count(page(MAX_RECORDS).as_bytes()), Ok(4000));
        let problem = count(page(MAX_RECORDS + 1).as_bytes());
        assert_eq!(problem, Err("it holds 4001 records, more than was asked for".to_owned()));
    }
}
