//! `rosterd explain`: the versions of a record, by ids and names of fields, without values.

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use serde_json::json;

use super::output;
use super::support::with_mirror;
use crate::app::{App, Exit, Failure};
use crate::roster::{AccountId, Resource};
use crate::settings::Settings;
use crate::store::explain::{RecordProblem, RecordVersion};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the versions of a user
    #[command(after_help = "Examples:\n  rosterd explain user 1001\n  rosterd explain user ada@example.com")]
    User {
        /// Harvest's id of the user, or the e-mail address
        #[arg(value_name = "ID|EMAIL", value_parser = parse_user)]
        user: UserKey,
        #[command(flatten)]
        options: Options,
    },
    /// Show the versions of an assignment
    #[command(after_help = "Example:\n  rosterd explain assignment 290021 --json")]
    Assignment {
        /// Harvest's id of the assignment
        #[arg(value_name = "ID")]
        id: i64,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args)]
pub(super) struct Options {
    /// Search only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
pub(super) enum UserKey {
    Id(i64),
    Email(String),
}

fn parse_user(word: &str) -> Result<UserKey, &'static str> {
    match word.parse() {
        Ok(id) => Ok(UserKey::Id(id)),
        Err(_) if word.contains('@') => Ok(UserKey::Email(word.to_owned())),
        Err(_) => Err("give Harvest's id of the user, or an e-mail address"),
    }
}

pub(super) async fn explain(settings: Settings, command: Command) -> Result<(), Failure> {
    with_mirror(settings, async |app| match &command {
        Command::User { user, options } => {
            let only = options.account.map(AccountId);
            let (only, id) = match user {
                UserKey::Id(id) => (only, *id),
                UserKey::Email(email) => user_by_email(app, email, only).await?,
            };
            explain_record(app, Resource::Users, id, only, options.json).await
        }
        Command::Assignment { id, options } => {
            let only = options.account.map(AccountId);
            explain_record(app, Resource::Assignments, *id, only, options.json).await
        }
    })
    .await
}

/// Finds the only user with this address. Messages do not repeat the address.
async fn user_by_email(
    app: &App,
    email: &str,
    only: Option<AccountId>,
) -> Result<(Option<AccountId>, i64), Failure> {
    let advice = match app.store.users_by_email(email, only).await?.as_slice() {
        [(account, id)] => return Ok((Some(*account), *id)),
        [] => "no user in the mirror has this e-mail address".to_owned(),
        several => {
            let users: Vec<_> =
                several.iter().map(|(account, id)| format!("user {id} of account {account}")).collect();
            format!("several users have this e-mail address; give the id instead ({})", users.join(", "))
        }
    };
    Err(Failure::new(Exit::Differences, advice))
}

async fn explain_record(
    app: &App,
    resource: Resource,
    id: i64,
    only: Option<AccountId>,
    json: bool,
) -> Result<(), Failure> {
    let versions = app.store.versions(resource, id, only).await?;
    let troubles = app.store.record_problems(resource, id, only).await?;
    if versions.is_empty() && troubles.is_empty() {
        let advice = format!("neither the mirror nor its history has {} {id}", resource.aggregate());
        return Err(Failure::new(Exit::Differences, advice));
    }
    if json {
        return output::json(&json!({ "id": id, "versions": versions, "troubles": troubles }));
    }
    for version in &versions {
        output::print(version_line(version))?;
    }
    troubles.iter().try_for_each(|trouble| output::print(trouble_line(trouble)))
}

fn version_line(version: &RecordVersion) -> String {
    let changed = match version.changed.as_deref() {
        None => "the event is no longer kept".to_owned(),
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

fn trouble_line(trouble: &RecordProblem) -> String {
    let what =
        if trouble.what == "held" { "its deletion is held for review" } else { "the record was rejected" };
    let since = output::seconds(trouble.since);
    format!("account {} since {since}: {what} ({})", trouble.account_id, trouble.why)
}
