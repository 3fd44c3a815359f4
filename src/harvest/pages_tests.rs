//! Where a list goes on, and when a walk cannot be trusted.

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
    Envelope::parse(body, "users")?.records().map(|records| records.len())
}

#[test]
fn the_link_leads_on_even_where_there_is_a_page_number() {
    let link = "https://api.harvestapp.com/api/v2/users?cursor=abc&per_page=2000&ref=next_cursor";
    assert_eq!(next(Some(link), Some(2)), Ok(Some(url(link))));
}

#[test]
fn without_links_the_page_number_leads_on_and_keeps_the_filters() {
    let expected =
        "https://api.harvestapp.com/v2/users?updated_since=2026-01-01T00%3A00%3A00Z&per_page=2000&page=2";
    assert_eq!(next(None, Some(2)), Ok(Some(url(expected))));
    assert_eq!(next(None, None), Ok(None));
}

#[test]
fn a_link_to_elsewhere_is_refused() {
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
fn envelopes_of_all_years_are_read() {
    let body = br#"{"users":[{"id":2},{"id":1}],"per_page":2000,"total_pages":3,"total_entries":257,"next_page":null,
        "previous_page":null,"page":null,"links":{"first":"f","next":"n","previous":null,"last":"l"}}"#;
    let envelope = Envelope::parse(body, "users").expect("an envelope");
    assert_eq!(envelope.records().map(|records| records.len()), Ok(2));
    assert_eq!((envelope.total, envelope.pages), (Some(257), Some(3)));
    assert_eq!((envelope.next_link.as_deref(), envelope.next_page), (Some("n"), None));
    let bare = Envelope::parse(br#"{"users":[],"links":null}"#, "users").expect("an envelope");
    assert!(bare.total.is_none() && bare.next_link.is_none() && bare.next_page.is_none());
}

#[test]
fn what_is_no_page_is_refused_without_being_quoted() {
    for body in [
        &b"<!DOCTYPE html><p>Jane"[..],
        b"",
        b"[]",
        b"{\"people\":[]}",
        b"{\"users\":{}}",
        b"{\"users\":[\xff]}",
    ] {
        let problem = count(body).expect_err("refused");
        assert!(!problem.contains("Jane"), "{problem}");
    }
}

#[test]
fn pages_in_a_circle_end_the_walk() {
    let mut walk = Walk::default();
    let page = url(CURRENT);
    assert!(walk.step(&page, None, 0, Some(&page)).is_ok());
    assert!(walk.step(&page, None, 0, Some(&page)).is_err());
}

#[test]
fn pages_without_end_end_the_walk() {
    let mut walk = Walk::default();
    let page = |n: usize| url(&format!("{CURRENT}&cursor={n}"));
    let mut walked = (0..=MOST_PAGES).map(|n| walk.step(&page(n), None, 0, Some(&page(n + 1))));
    assert!(walked.by_ref().take(MOST_PAGES).all(|step| step.is_ok()));
    assert!(walked.next().expect("one more").is_err());
}

#[test]
fn a_page_of_more_records_than_can_be_asked_for_is_refused() {
    let page = |count: usize| format!(r#"{{"users":[{}0]}}"#, "0,".repeat(count - 1));
    assert_eq!(count(page(MOST_RECORDS).as_bytes()), Ok(4000));
    let problem = count(page(MOST_RECORDS + 1).as_bytes());
    assert_eq!(problem, Err("it holds 4001 records, more than was asked for".to_owned()));
}

#[test]
fn a_numbered_list_that_moves_under_the_walk_is_not_trusted() {
    let (first, second) = (url(CURRENT), url(&format!("{CURRENT}&page=2")));
    // All that is left came up: only that it moved is against it.
    let mut shrunk = Walk { seen: (1..=3).collect(), ..Walk::default() };
    assert!(shrunk.step(&first, Some(4), 0, Some(&second)).is_ok());
    assert!(shrunk.step(&second, Some(3), 0, None).is_err(), "it shrank");
    let mut repeated = Walk { seen: (1..=4).collect(), ..Walk::default() };
    assert!(repeated.step(&first, Some(4), 0, Some(&second)).is_ok());
    assert!(repeated.step(&second, Some(4), 1, None).is_err(), "a row came up twice");
}

#[test]
fn a_walk_is_complete_when_all_that_were_there_throughout_came_up() {
    let (first, second) = (url(CURRENT), url(&format!("{CURRENT}&cursor=x")));
    let walk = |seen: i64, totals: [u64; 2]| {
        let mut walk = Walk { seen: (0..seen).collect(), ..Walk::default() };
        walk.step(&first, Some(totals[0]), 0, Some(&second))
            .and_then(|()| walk.step(&second, Some(totals[1]), 0, None))
    };
    assert!(walk(4, [4, 4]).is_ok());
    assert!(walk(4, [4, 5]).is_ok(), "somebody was hired meanwhile");
    assert!(walk(3, [4, 3]).is_ok(), "somebody left meanwhile");
    assert!(walk(3, [4, 4]).is_err(), "a row is missing");
}
