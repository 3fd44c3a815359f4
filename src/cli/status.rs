//! `rosterd status`

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;

use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{Exit, Failure};
use crate::settings::Settings;
use crate::store::status::{AccountStatus, Status};

#[derive(Args, Debug)]
pub(super) struct Options {
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        let status = app.store.status().await?;
        if options.json {
            let json =
                serde_json::to_string_pretty(&status).map_err(|error| Failure::new(Exit::Internal, error))?;
            output::line(json)?;
        } else {
            output::line(table(&status).trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |parts: String| {
        text.push_str(parts.trim_end());
        text.push('\n');
    };
    for account in &status.accounts {
        line(head(account));
        line(format!(
            "  {:<18}{:>8}{:>10}{:>9}   {:<24}{:<24}{}",
            "", "active", "inactive", "deleted", "last good read", "watermark", "next full read"
        ));
        for list in &account.resources {
            let lag = list.lag_seconds.map_or_else(|| "never".to_owned(), |lag| format!("{lag} s ago"));
            line(format!(
                "  {:<18}{:>8}{:>10}{:>9}   {:<24}{:<24}{}",
                list.resource,
                list.active,
                list.inactive,
                list.deleted,
                lag,
                time(list.watermark),
                time(list.next_full_at)
            ));
        }
        if account.rejected_records > 0 {
            line(format!(
                "  {} records cannot be read: see roster.rejected_records",
                account.rejected_records
            ));
        }
        for held in &account.held_deletions {
            line(format!(
                "  {} deletions of {} are held ({}{}): see `rosterd deletions list`",
                held.count,
                held.resource,
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
            "  {} has dealt with {}, {} behind",
            consumer.name, consumer.acked_seq, consumer.behind
        ));
    }
    text
}

fn head(account: &AccountStatus) -> String {
    let name = account.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    let holder = account
        .holder
        .as_deref()
        .map_or_else(|| "nobody writes it".to_owned(), |holder| format!("written by {holder}"));
    format!("account {}{name}: {holder}", account.account_id)
}

fn time(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
