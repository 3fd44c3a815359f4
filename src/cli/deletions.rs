//! `rosterd deletions`: see and settle deletions that are held back.

use std::process::ExitCode;

use chrono::SecondsFormat;
use clap::{Args, Subcommand};

use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{App, Exit, Failure};
use crate::roster::{AccountId, Reason};
use crate::settings::Settings;
use crate::store::deletions::{Decision, HeldDeletion};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What is held, since when and why
    #[command(after_help = "Example:\n  rosterd deletions list --json")]
    List(ListOptions),
    /// Lets the held deletions happen, each once Harvest has confirmed it
    #[command(after_help = "Example:\n  rosterd deletions accept --account 123456")]
    Accept(DecideOptions),
    /// Keeps the rows, although Harvest no longer shows the records
    #[command(after_help = "Example:\n  rosterd deletions reject --account 123456")]
    Reject(DecideOptions),
}

#[derive(Args, Debug)]
pub(super) struct ListOptions {
    #[command(flatten)]
    scope: Scope,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DecideOptions {
    #[command(flatten)]
    scope: Scope,
    /// Also those that somebody has decided otherwise before
    #[arg(long)]
    again: bool,
}

#[derive(Args, Debug)]
pub(super) struct Scope {
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
}

pub(super) async fn deletions(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::List(options) => list(app, options).await?,
            Command::Accept(options) => decide(app, options, Decision::Accepted).await?,
            Command::Reject(options) => decide(app, options, Decision::Rejected).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn list(app: &App, options: &ListOptions) -> Result<(), Failure> {
    let held = app.store.held_deletions(options.scope.account).await?;
    if options.json {
        let json =
            serde_json::to_string_pretty(&held).map_err(|error| Failure::new(Exit::Internal, error))?;
        return output::line(json);
    }
    for deletion in &held {
        output::line(line(deletion))?;
    }
    if held.is_empty() {
        output::say(format_args!("nothing is held back"));
    }
    Ok(())
}

fn line(deletion: &HeldDeletion) -> String {
    let HeldDeletion { account_id, resource, record_id, found_at, reason, decision, decided_at, decided_by } =
        deletion;
    let found_at = found_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let decision = match (decision, decided_at, decided_by) {
        (Some(decision), Some(at), by) => {
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            format!("{decision} at {}{by}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        _ => "undecided".to_owned(),
    };
    format!("account {account_id} {resource} {record_id}: missing since {found_at} ({reason}), {decision}")
}

async fn decide(app: &App, options: &DecideOptions, decision: Decision) -> Result<(), Failure> {
    let DecideOptions { scope: Scope { account }, again } = *options;
    let held = app.store.held_deletions(account).await?;
    let blind = held.iter().filter(|it| it.reason == Reason::NotAdministrator.name()).count();
    let decided = app.store.decide(account, decision, again, &decider()).await?;
    app.store.ring(account.map(AccountId)).await?;
    if blind > 0 && decision == Decision::Accepted {
        output::say(format_args!(
            "{blind} of them are held because the token's owner is no administrator: whom such a token may not see looks \
             deleted to it, so they wait until an administrator's token confirms them"
        ));
    }
    output::line(match (decided, decision) {
        (0, _) if held.is_empty() => "nothing is held back".to_owned(),
        (0, _) => "all that is held back has been decided before; --again decides it anew".to_owned(),
        (_, Decision::Accepted) => format!(
            "{decided} deletions accepted: the running daemon, or the next `rosterd sync`, carries out those that \
             Harvest confirms"
        ),
        (_, Decision::Rejected) => format!("{decided} deletions rejected: the rows stay as they are"),
    })
}

/// For the table: login and host of whoever runs the command.
fn decider() -> String {
    let login = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let login = login.filter(|login| !login.is_empty()).unwrap_or_else(|| "somebody".to_owned());
    // A replica's name is host and process id.
    let host = App::replica().name;
    format!("{login}@{}", host.split(':').next().unwrap_or_default())
}
