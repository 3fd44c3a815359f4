//! `rosterd status`

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;

use super::output::{words, wrapped};
use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{Exit, Failure};
use crate::settings::{Account, Settings};
use crate::store::status::{AccountStatus, Status};
use crate::telemetry::count;

/// So many accounts that are too old are named.
const MOST_NAMED: usize = 20;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a list was last read longer ago (15m)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    fresh_within: Option<Duration>,
}

pub(super) async fn status(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        let status = app.store.status().await?;
        if options.json {
            output::json(&status)?;
        } else {
            output::line(table(&status, app.clock.now()).trim_end())?;
        }
        match options.fresh_within {
            Some(within) => require_fresh(&status, app.settings.accounts(), within),
            None => Ok(ExitCode::SUCCESS),
        }
    })
    .await
}

/// Fails if a list of an account was last read longer ago, or an account of the settings never.
fn require_fresh(status: &Status, configured: &[Account], within: Duration) -> Result<ExitCode, Failure> {
    let within = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    let known = |id| status.accounts.iter().any(|account| account.account_id == id);
    let unread = configured.iter().filter(|account| !known(account.id)).map(|account| (account.id, None));
    let ages = status.accounts.iter().map(|account| (account.account_id, age(account)));
    let old: Vec<_> = ages.chain(unread).filter(|(_, age)| age.is_none_or(|age| age > within)).collect();
    let mut sentences: Vec<_> =
        old.iter().take(MOST_NAMED).map(|(id, age)| sentence(*id, *age, within)).collect();
    if let Some(more) = old.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        sentences.push(format!("{} not fresh either", count(more, "more account")));
    }
    if configured.is_empty() && status.accounts.is_empty() {
        sentences.push("no account has been read yet".to_owned());
    }
    if sentences.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(Exit::Differences, sentences.join("\n")))
}

/// How long ago the list was read that was read the longest ago, in seconds; `None` if one was never read.
fn age(account: &AccountStatus) -> Option<i64> {
    let ages: Option<Vec<_>> = account.resources.iter().map(|list| list.lag_seconds).collect();
    ages?.into_iter().max()
}

fn sentence(account: i64, age: Option<i64>, within: i64) -> String {
    match age {
        Some(age) => {
            format!("the mirror of account {account} is {} old, more than {}", words(age), words(within))
        }
        None => format!("account {account} has not been read completely yet"),
    }
}

fn table(status: &Status, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    let mut line = |parts: String| {
        text.push_str(&wrapped(parts.trim_end()));
        text.push('\n');
    };
    for account in &status.accounts {
        line(head(account));
        line(format!(
            "  {:<16}{:>8}{:>10}{:>9}  {:<16}{}",
            "", "active", "inactive", "deleted", "last read", "next full read"
        ));
        for list in &account.resources {
            let lag =
                list.lag_seconds.map_or_else(|| "never".to_owned(), |lag| format!("{} ago", words(lag)));
            line(format!(
                "  {:<16}{:>8}{:>10}{:>9}  {lag:<16}{}",
                list.resource,
                list.active,
                list.inactive,
                list.deleted,
                until(list.next_full_at, now)
            ));
        }
        if account.rejected_records > 0 {
            line(format!(
                "  {} cannot be read: see roster.rejected_records",
                count(account.rejected_records, "record")
            ));
        }
        for held in &account.held_deletions {
            line(format!(
                "  {} of {} {} held ({}{}): see `rosterd deletions list`",
                count(held.count, "deletion"),
                held.resource,
                if held.count == 1 { "is" } else { "are" },
                held.reason,
                held.decision.as_ref().map(|decision| format!(", {decision}")).unwrap_or_default()
            ));
        }
        for list in account.resources.iter().filter(|list| list.unexplained_total.is_some()) {
            line(format!(
                "  Harvest says it has {} {} but should have {}; a full read does not explain it",
                list.unexplained_total.unwrap_or_default(),
                list.resource,
                list.unexplained_expected.unwrap_or_default()
            ));
        }
        if let Some(error) = &account.last_error {
            line(format!("  last cycle failed: {error}"));
        }
    }
    if status.accounts.is_empty() {
        line("no account has been read yet".to_owned());
    }
    line(format!("outbox: head {} (oldest kept: {})", status.outbox.seq, status.outbox.floor_seq + 1));
    for consumer in &status.consumers {
        line(format!(
            "  consumer {}: acknowledged {}, lag {}",
            consumer.name,
            consumer.acked_seq,
            count(consumer.behind, "event")
        ));
    }
    text
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
        Some(seconds) => format!("in {}", words(seconds)),
    }
}
