//! `rosterd explain`: why a row is as it is. People are ids, and fields names: no value is shown.

use std::process::ExitCode;

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{App, Exit, Failure};
use crate::roster::{AccountId, Resource};
use crate::settings::Settings;
use crate::store::explain::{Trouble, Version};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A person
    #[command(after_help = "Example:\n  rosterd explain user 1001")]
    User(Options),
    /// An assignment
    #[command(after_help = "Example:\n  rosterd explain assignment 290021 --json")]
    Assignment(Options),
}

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Harvest's id of the record
    #[arg(value_name = "ID")]
    id: i64,
    /// Only in this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn explain(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::User(options) => record(app, Resource::Users, options).await?,
            Command::Assignment(options) => record(app, Resource::Assignments, options).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn record(app: &App, resource: Resource, options: &Options) -> Result<(), Failure> {
    let only = options.account.map(AccountId);
    let versions = app.store.versions(resource, options.id, only).await?;
    let troubles = app.store.troubles(resource, options.id, only).await?;
    if versions.is_empty() && troubles.is_empty() {
        let nothing = format!("the mirror never had {} {}", resource.aggregate(), options.id);
        return Err(Failure::new(Exit::Differences, nothing));
    }
    if options.json {
        let all = json!({ "id": options.id, "versions": versions, "troubles": troubles });
        let all = serde_json::to_string_pretty(&all).map_err(|error| Failure::new(Exit::Internal, error))?;
        return output::line(all);
    }
    for version in &versions {
        output::line(told(version))?;
    }
    troubles.iter().try_for_each(|trouble| output::line(troubled(trouble)))
}

fn told(version: &Version) -> String {
    let changed = match version.changed.as_deref() {
        None => "its event is no longer kept".to_owned(),
        Some([]) => "everything".to_owned(),
        Some(fields) => fields.join(", "),
    };
    let event = version.event_seq.map(|seq| format!("; event {seq}")).unwrap_or_default();
    let request = version.request.as_deref().map(|request| format!("; {request}")).unwrap_or_default();
    let cycle = version.cycle_id.map(|cycle| {
        let mode = version.mode.as_deref().unwrap_or("one");
        format!(", {mode} cycle {cycle}")
    });
    format!(
        "account {} version {} at {}: {} ({changed}{event}{}{request})",
        version.account_id,
        version.version,
        version.valid_from.to_rfc3339_opts(SecondsFormat::Millis, true),
        version.r#type,
        cycle.unwrap_or_default()
    )
}

fn troubled(trouble: &Trouble) -> String {
    let what = if trouble.what == "held" { "its deletion is held back" } else { "it cannot be read" };
    let since = trouble.since.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("account {} since {since}: {what} ({})", trouble.account_id, trouble.why)
}
