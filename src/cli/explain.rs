//! `rosterd explain`: the versions of a record, by ids and names of fields. No value is shown.

use std::fmt;
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
    /// Explain the versions of a user
    #[command(after_help = "Examples:\n  rosterd explain user 1001\n  rosterd explain user ada@example.com")]
    User {
        /// Harvest's id of the user, or the e-mail address
        #[arg(value_name = "ID|EMAIL", value_parser = who)]
        who: Who,
        #[command(flatten)]
        options: Options,
    },
    /// Explain the versions of an assignment
    #[command(after_help = "Example:\n  rosterd explain assignment 290021 --json")]
    Assignment {
        /// Harvest's id of the assignment
        #[arg(value_name = "ID")]
        id: i64,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only in this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// How the command line names a user.
#[derive(Clone)]
pub(super) enum Who {
    Id(i64),
    Email(String),
}

/// Without the address, which is personal data.
impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Who(…)")
    }
}

fn who(word: &str) -> Result<Who, &'static str> {
    match word.parse() {
        Ok(id) => Ok(Who::Id(id)),
        Err(_) if word.contains('@') => Ok(Who::Email(word.to_owned())),
        Err(_) => Err("give Harvest's id of the user, or an e-mail address"),
    }
}

pub(super) async fn explain(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::User { who, options } => {
                let only = options.account.map(AccountId);
                let (only, id) = match who {
                    Who::Id(id) => (only, *id),
                    Who::Email(email) => by_email(app, email, only).await?,
                };
                record(app, Resource::Users, id, only, options.json).await?;
            }
            Command::Assignment { id, options } => {
                let only = options.account.map(AccountId);
                record(app, Resource::Assignments, *id, only, options.json).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// The one user who has this address. Messages do not repeat it.
async fn by_email(
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
            format!("several users have this e-mail address: give the id instead ({})", users.join(", "))
        }
    };
    Err(Failure::new(Exit::Differences, advice))
}

async fn record(
    app: &App,
    resource: Resource,
    id: i64,
    only: Option<AccountId>,
    json: bool,
) -> Result<(), Failure> {
    let versions = app.store.versions(resource, id, only).await?;
    let troubles = app.store.troubles(resource, id, only).await?;
    if versions.is_empty() && troubles.is_empty() {
        let nothing = format!("the mirror never had {} {id}", resource.aggregate());
        return Err(Failure::new(Exit::Differences, nothing));
    }
    if json {
        return output::json(&json!({ "id": id, "versions": versions, "troubles": troubles }));
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
