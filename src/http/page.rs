//! The status page: HTML without scripts. `maud` escapes all values.

use std::fmt::Display;

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, InvalidHeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::store::overview::Overview;
use crate::store::status::{AccountStatus, ConsumerStatus, Status};
use crate::sync::concerns::{Concern, Severity};
use crate::telemetry::{count, duration};

const STYLE: &str = include_str!("page/style.css");
/// Rows of each list. The accounts with concerns come first.
const MAX_ROWS: usize = 50;
/// The height of the chart, in its own units.
const CHART_HEIGHT: i64 = 48;

pub(super) struct Page<'a> {
    /// The last state of the database that was read; `None` if none was read yet.
    pub overview: Option<&'a Overview>,
    /// What is wrong, the most urgent first.
    pub concerns: &'a [Concern],
    /// How many seconds ago the state was read, if the database does not answer now.
    pub outdated: Option<u64>,
    /// Whether the browser loads the page again every 30 seconds.
    pub refreshes: bool,
    /// Such as `rosterd 0.1.0`.
    pub version: &'a str,
}

/// The headers of each response. The policy allows this page's style and nothing else.
pub(super) fn headers() -> Result<[(HeaderName, HeaderValue); 6], InvalidHeaderValue> {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Ok([
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy)?),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ])
}

pub(super) fn render(page: &Page<'_>) -> String {
    let verdict = verdict(page.concerns);
    let worst = page.concerns.first().map(|concern| concern.severity);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if page.refreshes { meta http-equiv="refresh" content="30"; }
                title { "rosterd: " (verdict) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 class=(class(worst)) { (sign(worst)) "rosterd: " (verdict) }
                    (concerns(page.concerns))
                    @if let Some(overview) = page.overview {
                        (accounts(&overview.status, page.concerns))
                        (consumers(&overview.status))
                        (events(&overview.events_per_hour))
                    }
                }
                (footer(page))
            }
        }
    };
    document.into_string()
}

/// Such as `1 critical concern, 2 warnings`.
fn verdict(concerns: &[Concern]) -> String {
    let critical = concerns.iter().filter(|concern| concern.severity == Severity::Critical).count();
    match (critical, concerns.len() - critical) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, warnings) => count(warnings, "warning"),
        (critical, 0) => count(critical, "critical concern"),
        (critical, warnings) => {
            format!("{}, {}", count(critical, "critical concern"), count(warnings, "warning"))
        }
    }
}

fn class(severity: Option<Severity>) -> &'static str {
    severity.map_or("ok", Severity::name)
}

/// Screen readers get the word, because the colour and the sign alone are not readable for all users.
fn sign(severity: Option<Severity>) -> Markup {
    let sign = match severity {
        None => "✔",
        Some(Severity::Warning) => "▲",
        Some(Severity::Critical) => "✖",
    };
    html! {
        span class={ "sign " (class(severity)) } aria-hidden="true" { (sign) }
        span.hidden { (class(severity)) ": " }
    }
}

fn concerns(concerns: &[Concern]) -> Markup {
    html! {
        @if !concerns.is_empty() {
            ul.concerns {
                @for concern in concerns.iter().take(MAX_ROWS) {
                    li class=(concern.severity.name()) {
                        (sign(Some(concern.severity)))
                        span { (concern.sentence) }
                        code { (concern.command) }
                    }
                }
            }
            (more(concerns.len(), "more concern"))
        }
    }
}

fn more(all: usize, noun: &str) -> Markup {
    html! {
        @if all > MAX_ROWS {
            p.dim { "and " (count(all - MAX_ROWS, noun)) ": see " code { "rosterd status" } }
        }
    }
}

fn accounts(status: &Status, concerns: &[Concern]) -> Markup {
    let worst = |account: &AccountStatus| {
        let of_account = |concern: &&Concern| concern.account_id == Some(account.account_id);
        concerns.iter().find(of_account).map(|concern| concern.severity)
    };
    let mut accounts: Vec<_> = status.accounts.iter().map(|account| (worst(account), account)).collect();
    accounts.sort_by_key(|(worst, _)| worst.map_or(u8::MAX, |severity| severity as u8));
    html! {
        h2 #accounts { "Accounts" }
        table aria-labelledby="accounts" {
            thead { tr { @for column in ["account", "last read", "next full read", "active instance"] { th scope="col" { (column) } } } }
            tbody {
                @for (worst, account) in accounts.iter().take(MAX_ROWS) {
                    tr {
                        th.account scope="row" {
                            @if worst.is_none() && account.holder.is_none() {
                                span.sign.dim aria-hidden="true" { "–" }
                            } @else {
                                (sign(*worst))
                            }
                            (account.account_id)
                        }
                        td { (last_read(account, status.now)) }
                        td { (next_full_read(account, status.now)) }
                        td { (account.holder.as_deref().unwrap_or("none")) }
                    }
                }
            }
        }
        (more(accounts.len(), "more account"))
    }
}

/// The account's list that was read longest ago counts.
fn last_read(account: &AccountStatus, now: DateTime<Utc>) -> String {
    if let Some(first) = account.first_read {
        let (users, assignments) = (count(first.users, "user"), count(first.user_assignments, "assignment"));
        return format!("first read: {users}, {assignments} so far");
    }
    let reads: Option<Vec<_>> = account.resources.iter().map(|list| list.last_success_at).collect();
    reads.and_then(|reads| reads.into_iter().min()).map_or_else(|| "never".to_owned(), |at| ago(now, at))
}

fn next_full_read(account: &AccountStatus, now: DateTime<Utc>) -> String {
    match account.resources.iter().filter_map(|list| list.next_full_at).min() {
        None => "–".to_owned(),
        Some(at) if at <= now => "due".to_owned(),
        Some(at) => format!("in {}", duration((at - now).num_seconds())),
    }
}

fn ago(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    format!("{} ago", duration((now - at).num_seconds()))
}

fn consumers(status: &Status) -> Markup {
    let row = |consumer: &ConsumerStatus| {
        html! {
            tr {
                th scope="row" { (consumer.name) }
                (number(consumer.acked_seq))
                (number(consumer.behind))
                (number(consumer.oldest_at.map_or_else(|| "–".to_owned(), |at| ago(status.now, at))))
            }
        }
    };
    html! {
        h2 #consumers { "Consumers" }
        @if status.consumers.is_empty() {
            p.dim { "No consumer is registered." }
        } @else {
            table aria-labelledby="consumers" {
                thead {
                    tr {
                        th scope="col" { "consumer" }
                        @for column in ["acknowledged", "lag", "oldest event"] { th.number scope="col" { (column) } }
                    }
                }
                tbody { @for consumer in status.consumers.iter().take(MAX_ROWS) { (row(consumer)) } }
            }
            (more(status.consumers.len(), "more consumer"))
        }
    }
}

fn number(value: impl Display) -> Markup {
    html! { td.number { (value.to_string()) } }
}

fn events(per_hour: &[i64]) -> Markup {
    let (sum, most) = (per_hour.iter().sum::<i64>(), per_hour.iter().copied().max().unwrap_or(0));
    let hours = per_hour.len();
    // An hour without events has a thin line; an hour with one event is higher than that.
    let height = |events: i64| if events == 0 { 1 } else { (events * CHART_HEIGHT / most.max(1)).max(3) };
    let title = |index: usize, events: i64| match hours - index {
        1 => format!("last hour: {}", count(events, "event")),
        ago => format!("{ago} h ago: {}", count(events, "event")),
    };
    html! {
        h2 #events { "Events per hour" }
        svg role="img" aria-labelledby="events counts" viewBox={ "0 0 " (hours * 10) " " (CHART_HEIGHT) } preserveAspectRatio="none" {
            @for (index, events) in per_hour.iter().copied().enumerate() {
                rect class=[(events == 0).then_some("none")] x=(index * 10 + 1) y=(CHART_HEIGHT - height(events)) width="8" height=(height(events)) {
                    title { (title(index, events)) }
                }
            }
        }
        p.dim #counts { "In the last " (hours) " hours: " (count(sum, "event")) ", at most " (most) " in an hour." }
    }
}

fn footer(page: &Page<'_>) -> Markup {
    html! {
        footer {
            @if let Some(Overview { status, .. }) = page.overview {
                p {
                    (status.now.format("%Y-%m-%d %H:%M:%S UTC")) " by the database's clock"
                    @if let Some(seconds) = page.outdated {
                        ", " (duration(i64::try_from(seconds).unwrap_or(i64::MAX))) " ago"
                    }
                    ". "
                    @if page.refreshes {
                        "The page refreshes every 30 s; " a href="/?still" { "stop that" } "."
                    } @else {
                        a href="/" { "Refresh every 30 s" } "."
                    }
                }
                p {
                    (page.version) ". Outbox: events " (status.outbox.floor_seq + 1) " to " (status.outbox.seq) "."
                }
            } @else {
                p { (page.version) ". The database has not answered since rosterd started." }
            }
        }
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
