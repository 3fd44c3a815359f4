//! `rosterd writes`: shows the journal of writes to Harvest, and decides about held ones.

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::carry_out::line;
use super::confirmation::{CHANGES_HARVEST, Confirmation};
use super::output;
use super::support::{operator, with_mirror};
use crate::app::{App, Exit, Failure};
use crate::settings::Settings;
use crate::store::writes::{JournalEntry, WriteSelection};
use crate::telemetry::count;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List writes, the newest first
    #[command(after_help = "Examples:\n  rosterd writes list --open\n  rosterd writes list --held --json")]
    List(List),
    /// Show writes by id
    #[command(after_help = "Example:\n  rosterd writes show 0195f7a0-0000-7000-8000-000000000000")]
    Show(Show),
    /// Send held writes
    #[command(after_help = "Examples:\n  rosterd writes accept 0195f7a0-0000-7000-8000-000000000000\n  \
                            rosterd writes accept --all 12")]
    Accept(Accept),
    /// Drop held writes
    #[command(after_help = "Example:\n  rosterd writes reject --all 12")]
    Reject(Decide),
}

#[derive(Args)]
pub(super) struct List {
    /// List only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// List only writes that are not finished
    #[arg(long)]
    open: bool,
    /// List only held writes
    #[arg(long)]
    held: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Show {
    /// Ids of writes
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Uuid>,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Decide {
    /// Ids of held writes
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<Uuid>,
    /// Decide about all held writes; give their number
    #[arg(long, value_name = "NUMBER", conflicts_with = "ids")]
    all: Option<usize>,
    /// Decide only about this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Print the decided writes as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Accept {
    #[command(flatten)]
    decide: Decide,
    #[command(flatten)]
    confirmation: Confirmation,
}

pub(super) async fn writes(settings: Settings, command: Command) -> Result<(), Failure> {
    if let Command::Accept(accept) = &command {
        accept.confirmation.require_possible()?;
    }
    with_mirror(settings, async |app| match &command {
        Command::List(List { account, open, held, json }) => {
            let selection =
                WriteSelection { account: *account, open: *open, held: *held, ..WriteSelection::default() };
            print(&app.store.list_writes(&selection).await?, *json)
        }
        Command::Show(Show { ids, json }) => {
            let selection = WriteSelection { ids: ids.clone(), ..WriteSelection::default() };
            let entries = app.store.list_writes(&selection).await?;
            print(&entries, *json)?;
            require_each(ids, &entries)
        }
        Command::Accept(Accept { decide, confirmation }) => {
            self::decide(app, decide, Some(confirmation)).await
        }
        Command::Reject(options) => decide(app, options, None).await,
    })
    .await
}

fn print(entries: &[JournalEntry], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json(&json!({ "writes": entries }));
    }
    if entries.is_empty() {
        output::message("no such write");
    }
    entries.iter().try_for_each(|entry| output::print(line(entry)))
}

fn require_each(ids: &[Uuid], entries: &[JournalEntry]) -> Result<(), Failure> {
    match ids.iter().find(|id| !entries.iter().any(|entry| entry.id == **id)) {
        Some(id) => Err(Failure::new(
            Exit::Differences,
            format!("there is no such write: {id}; see `rosterd writes list`"),
        )),
        None => Ok(()),
    }
}

/// Accepts the writes if there is a `confirmation`, which is permanent; rejects them otherwise.
async fn decide(app: &App, options: &Decide, confirmation: Option<&Confirmation>) -> Result<(), Failure> {
    let selection = WriteSelection {
        account: options.account,
        ids: options.ids.clone(),
        held: true,
        ..WriteSelection::default()
    };
    let held = app.store.list_writes(&selection).await?;
    require_each(&options.ids, &held)?;
    // Writes that are held meanwhile are not decided unseen.
    if options.all.is_some_and(|number| number != held.len()) {
        let advice = format!(
            "{} held, which is another number; see `rosterd writes list --held`",
            count(held.len(), "write")
        );
        return Err(Failure::new(Exit::Differences, advice));
    }
    if let Some(confirmation) = confirmation {
        let preview = async || Ok(held.iter().map(line).collect::<Vec<_>>().join("\n"));
        if !confirmation.obtain(CHANGES_HARVEST, preview).await? {
            return Ok(());
        }
    }
    let ids: Vec<Uuid> = held.iter().map(|entry| entry.id).collect();
    let decided = app.store.decide_writes(&ids, confirmation.is_some(), &operator()).await?;
    let effect = if confirmation.is_some() {
        "accepted: the running daemon, or the next command that writes, sends them"
    } else {
        "rejected: they are not sent"
    };
    output::print_unless_json(options.json, format_args!("{} {effect}", count(decided.len(), "write")))?;
    if options.json {
        let selection = WriteSelection { ids: decided, ..WriteSelection::default() };
        return output::json(&json!({ "writes": app.store.list_writes(&selection).await? }));
    }
    Ok(())
}
