//! `rosterd status`: what the mirror holds and how fresh it is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::output::{self, wrapped};
use super::support::with_mirror;
use crate::app::{Exit, Failure};
use crate::settings::{Account, Settings};
use crate::store::status::{AccountStatus, Status};
use crate::sync::concerns::{Concern, concerns};
use crate::telemetry::{count, duration};

/// How many stale accounts an error names.
const MAX_STALE_NAMED: usize = 20;
/// How many concerns the table begins with.
const MAX_CONCERNS: usize = 20;

#[derive(Args)]
pub(super) struct Options {
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a list was last read longer ago, such as 15m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    fresh_within: Option<Duration>,
}

#[derive(Serialize)]
struct Document<'a> {
    concerns: &'a [Concern],
    #[serde(flatten)]
    status: &'a Status,
}

pub(super) async fn status(settings: Settings, options: Options) -> Result<(), Failure> {
    with_mirror(settings, async |app| {
        let status = app.store.status().await?;
        let concerns = concerns(&status, &app.concern_limits());
        if options.json {
            output::json(&Document { concerns: &concerns, status: &status })?;
        } else {
            output::print(table(&status, &concerns, app.clock.now()))?;
        }
        options.fresh_within.map_or(Ok(()), |within| require_fresh(&status, app.settings.accounts(), within))
    })
    .await
}

/// Fails if a list was last read longer ago, or if an account of the settings was never read.
fn require_fresh(status: &Status, configured: &[Account], within: Duration) -> Result<(), Failure> {
    let within = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    let known = |id| status.accounts.iter().any(|account| account.account_id == id);
    let unread = configured.iter().filter(|account| !known(account.id)).map(|account| (account.id, None));
    let ages = status.accounts.iter().map(|account| (account.account_id, age(account)));
    let stale: Vec<_> = ages.chain(unread).filter(|(_, age)| age.is_none_or(|age| age > within)).collect();
    let mut sentences: Vec<_> =
        stale.iter().take(MAX_STALE_NAMED).map(|(id, age)| stale_sentence(*id, *age, within)).collect();
    if let Some(more) = stale.len().checked_sub(MAX_STALE_NAMED).filter(|more| *more > 0) {
        sentences.push(format!("{} not fresh either", count(more, "more account")));
    }
    if configured.is_empty() && status.accounts.is_empty() {
        sentences.push("no account has been read yet".to_owned());
    }
    if sentences.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Differences, sentences.join("\n")))
}

/// Age of the account's stalest list in seconds; `None` if a list was never read.
fn age(account: &AccountStatus) -> Option<i64> {
    let ages: Option<Vec<_>> = account.resources.iter().map(|list| list.lag_seconds).collect();
    ages?.into_iter().max()
}

fn stale_sentence(account: i64, age: Option<i64>, within: i64) -> String {
    let Some(age) = age else { return format!("account {account} has not been read completely yet") };
    let (age, within) = (duration(age), duration(within));
    format!("the mirror of account {account} is {age} old, more than {within}")
}

fn table(status: &Status, concerns: &[Concern], now: DateTime<Utc>) -> String {
    let mut lines = Vec::new();
    for concern in concerns.iter().take(MAX_CONCERNS) {
        lines.push(format!("{}: {}", concern.severity.name(), concern.sentence));
        lines.push(format!("  {}", concern.command));
    }
    if let Some(more) = concerns.len().checked_sub(MAX_CONCERNS).filter(|more| *more > 0) {
        lines.push(format!("and {}: see `rosterd status --json`", count(more, "more concern")));
    }
    if concerns.is_empty() {
        lines.push("nothing is wrong".to_owned());
    }
    for account in &status.accounts {
        lines.push(head(account));
        if let Some(first) = account.first_read {
            let (users, assignments) =
                (count(first.users, "user"), count(first.user_assignments, "assignment"));
            lines.push(format!("  first read: {users} and {assignments} so far"));
        }
        lists(account, now, &mut lines);
        problems(account, &mut lines);
    }
    lines.push(format!("outbox: head {} (oldest kept: {})", status.outbox.seq, status.outbox.floor_seq + 1));
    for consumer in &status.consumers {
        lines.push(format!(
            "  consumer {}: acknowledged {}, lag {}",
            consumer.name,
            consumer.acked_seq,
            count(consumer.behind, "event")
        ));
    }
    lines.iter().map(|line| wrapped(line.trim_end())).collect::<Vec<_>>().join("\n")
}

fn lists(account: &AccountStatus, now: DateTime<Utc>, lines: &mut Vec<String>) {
    lines.push(format!(
        "  {:<16}{:>8}{:>10}{:>9}  {:<16}{}",
        "", "active", "inactive", "deleted", "last read", "next full read"
    ));
    for list in &account.resources {
        let last_read =
            list.lag_seconds.map_or_else(|| "never".to_owned(), |lag| format!("{} ago", duration(lag)));
        lines.push(format!(
            "  {:<16}{:>8}{:>10}{:>9}  {last_read:<16}{}",
            list.resource,
            list.active,
            list.inactive,
            list.deleted,
            until(list.next_full_at, now)
        ));
    }
}

fn problems(account: &AccountStatus, lines: &mut Vec<String>) {
    if account.rejected_records > 0 {
        lines.push(format!(
            "  {} rejected: see roster.rejected_records",
            count(account.rejected_records, "record")
        ));
    }
    for held in &account.held_deletions {
        lines.push(format!(
            "  {} of {} {} held ({}{}): see `rosterd deletions list`",
            count(held.count, "deletion"),
            held.resource,
            if held.count == 1 { "is" } else { "are" },
            held.reason,
            held.decision.as_ref().map(|decision| format!(", {decision}")).unwrap_or_default()
        ));
    }
    let open = &account.open_writes;
    for (writes, state, option) in [
        (open.waiting, "waiting", "--open"),
        (open.held, "held for a person", "--held"),
        (open.in_doubt, "without an answer", "--open"),
    ] {
        if writes > 0 {
            lines.push(format!("  {} {state}: see `rosterd writes list {option}`", count(writes, "write")));
        }
    }
    for list in account.resources.iter().filter(|list| list.unexplained_total.is_some()) {
        lines.push(format!(
            "  Harvest's total of {} is {} instead of {}; a full read does not explain it",
            list.resource,
            list.unexplained_total.unwrap_or_default(),
            list.unexplained_expected.unwrap_or_default()
        ));
    }
    if let Some(error) = &account.last_error {
        lines.push(format!("  last cycle failed: {error}"));
    }
}

fn head(account: &AccountStatus) -> String {
    let name = account.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    let holder = account
        .holder
        .as_deref()
        .map_or_else(|| "no active instance".to_owned(), |holder| format!("written by {holder}"));
    format!("account {}{name}: {holder}", account.account_id)
}

fn until(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match time.map(|time| (time - now).num_seconds()) {
        None => "-".to_owned(),
        Some(..=0) => "due".to_owned(),
        Some(seconds) => format!("in {}", duration(seconds)),
    }
}
