use chrono::TimeDelta;

use super::*;
use crate::store::status::{FirstRead, HeldCount};
use crate::sync::concerns::{self, Limits};

fn overview(accounts: impl IntoIterator<Item = i64>) -> Overview {
    let events_per_hour = (0..24).map(|hour| if hour < 4 { 0 } else { hour * 7 % 40 }).collect();
    Overview { status: Status::example(accounts), events_per_hour }
}

fn concerns_of(overview: &Overview) -> Vec<Concern> {
    let hour = std::time::Duration::from_hours(1);
    let limits = Limits { poll_interval: hour / 60, retention: 720 * hour, accounts: Vec::new() };
    concerns::concerns(&overview.status, &limits)
}

/// A line for each tag, so that a difference can be read.
fn html(overview: Option<&Overview>, concerns: &[Concern], outdated: Option<u64>) -> String {
    let page = Page {
        overview,
        concerns,
        outdated,
        refreshes: outdated.is_none(),
        version: "rosterd 0.1.0 (abc1234)",
    };
    render(&page).replace(STYLE, "/* style */").replace("><", ">\n<")
}

fn page(overview: &Overview) -> String {
    html(Some(overview), &concerns_of(overview), None)
}

fn ill() -> Overview {
    let mut overview = overview([123_456, 234_567, 345_678, 456_789]);
    let now = overview.status.now;
    let [held, stale, first, other] = overview.status.accounts.get_mut(..).unwrap() else { unreachable!() };
    held.held_deletions = vec![HeldCount::example()];
    stale.resources[0].last_success_at = Some(now - TimeDelta::hours(2));
    (stale.holder, stale.lease_expires_at) = (None, Some(now - TimeDelta::hours(2)));
    other.holder = None;
    first.first_read = Some(FirstRead { users: 1200, user_assignments: 1 });
    overview
}

#[test]
fn page_of_a_well_mirror_is_as_agreed() {
    insta::assert_snapshot!(page(&overview([123_456])));
}

#[test]
fn page_with_concerns_lists_them_first() {
    insta::assert_snapshot!(page(&ill()));
}

#[test]
fn page_without_database_shows_the_last_state_and_its_age() {
    let overview = overview([123_456]);
    let unreachable = [Concern::database_unreachable()];
    insta::assert_snapshot!(html(Some(&overview), &unreachable, Some(301)));
    let none = html(None, &unreachable, None);
    assert!(
        none.contains("1 critical concern") && none.contains("not answered since rosterd started"),
        "{none}"
    );
}

#[test]
fn page_of_a_thousand_accounts_shows_fifty_with_the_worst_first() {
    let mut overview = overview(1..=1000);
    overview.status.accounts[899].rejected_records = 1;
    overview.status.accounts[999].resources[0].last_success_at = Some(DateTime::UNIX_EPOCH);
    let html = page(&overview);
    let row = |account: &str| html.find(&format!("</span>{account}</th>"));
    assert!(row("1000").unwrap() < row("900").unwrap() && row("900").unwrap() < row("1").unwrap(), "{html}");
    assert_eq!((row("48").is_some(), row("49")), (true, None));
    assert_eq!(html.matches("scope=\"row\"").count(), 51);
    insta::assert_snapshot!(html);
}

#[test]
fn hostile_consumer_name_is_escaped_and_company_names_are_not_shown() {
    let mut overview = overview([123_456]);
    overview.status.consumers[0].name = "</title><script>alert('&')</script>\" onload=\"x".to_owned();
    overview.status.consumers[0].has_lost_events = true;
    let html = page(&overview);
    for unwanted in ["<script", "\" onload", "Ada", "style=\""] {
        assert!(!html.contains(unwanted), "{unwanted} in {html}");
    }
    insta::assert_snapshot!(html);
}

#[test]
fn policy_allows_the_style_of_the_page_and_nothing_else() {
    let headers = headers().unwrap();
    let policy =
        headers.iter().find(|(name, _)| *name == CONTENT_SECURITY_POLICY).unwrap().1.to_str().unwrap();
    let html = render(&Page { overview: None, concerns: &[], outdated: None, refreshes: false, version: "" });
    let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
    assert!(
        policy.starts_with("default-src 'none';") && policy.contains(&format!("style-src 'sha256-{hash}';"))
    );
}
