//! `rosterd deletions`: list, accept and reject held deletions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;

use clap::{ArgGroup, Args, Subcommand};

use super::confirmation::{Confirmation, PERMANENT};
use super::output::{self, seconds};
use super::support::{operator, with_mirror};
use crate::app::{App, Exit, Failure};
use crate::roster::{AccountId, HoldReason, Resource};
use crate::settings::Settings;
use crate::store::missing::{Decision, HeldDeletion, Selection};
use crate::telemetry::count;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List held deletions with reason and time
    #[command(after_help = "Examples:\n  rosterd deletions list --values\n  rosterd deletions list --json")]
    List(ListOptions),
    /// Delete held records permanently if Harvest confirms
    #[command(after_help = "Examples:\n  rosterd deletions accept user 1001 1002\n  \
                            rosterd deletions accept --account 123456\n  rosterd deletions accept --all --dry-run")]
    Accept(AcceptOptions),
    /// Keep the rows of records that Harvest no longer shows
    #[command(
        after_help = "Examples:\n  rosterd deletions reject assignment 290021\n  rosterd deletions reject --all"
    )]
    Reject(DecideOptions),
}

#[derive(Args)]
pub(super) struct ListOptions {
    /// List only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Show names, which are personal data, on a terminal
    #[arg(long, conflicts_with = "json")]
    values: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct AcceptOptions {
    #[command(flatten)]
    decide: DecideOptions,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Args)]
#[command(group = ArgGroup::new("selection").args(["kind", "account", "all"]).required(true).multiple(true))]
pub(super) struct DecideOptions {
    /// `user`, `assignment`, `billable_rate` or `cost_rate`
    #[arg(value_name = "KIND", requires = "ids", value_parser = parse_kind)]
    kind: Option<Resource>,
    /// Harvest's ids of the records
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Decide only about this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Decide about all held deletions
    #[arg(long, conflicts_with_all = ["kind", "account"])]
    all: bool,
    /// Change earlier decisions too
    #[arg(long)]
    again: bool,
    /// Print the decided deletions as one JSON document
    #[arg(long)]
    json: bool,
}

/// Accepts the singular and the plural, and assignments without the prefix `user_`.
fn parse_kind(word: &str) -> Result<Resource, String> {
    let short = |name: &str| name.trim_start_matches("user_") == word;
    let named =
        |it: &Resource| [it.name(), it.aggregate()].into_iter().any(|name| name == word || short(name));
    Resource::ALL.into_iter().find(named).ok_or_else(|| {
        let known: Vec<_> =
            Resource::ALL.into_iter().map(|it| it.aggregate().trim_start_matches("user_")).collect();
        format!("give one of {}", known.join(", "))
    })
}

pub(super) async fn deletions(settings: Settings, command: Command) -> Result<(), Failure> {
    if let Command::Accept(options) = &command {
        options.confirmation.require_possible()?;
    }
    with_mirror(settings, async |app| match &command {
        Command::List(options) => list(app, options).await,
        Command::Accept(AcceptOptions { decide: options, confirmation }) => {
            decide(app, options, Decision::Accepted, Some(confirmation)).await
        }
        Command::Reject(options) => decide(app, options, Decision::Rejected, None).await,
    })
    .await
}

async fn list(app: &App, options: &ListOptions) -> Result<(), Failure> {
    let held =
        app.store.held_deletions(&Selection { account: options.account, ..Selection::default() }).await?;
    if options.json {
        return output::json(&held);
    }
    let with_names = options.values && std::io::stdout().is_terminal();
    if options.values && !with_names {
        output::message("--values shows names on a terminal only");
    }
    for deletion in &held {
        output::print(line(deletion, with_names))?;
    }
    if held.is_empty() {
        output::message("no deletion is held");
    }
    Ok(())
}

fn line(deletion: &HeldDeletion, with_name: bool) -> String {
    let HeldDeletion { account_id, resource, record_id, found_at, reason, decided_at, decided_by, .. } =
        deletion;
    let name = deletion.name.as_ref().filter(|_| with_name).map(|name| format!(" ({name})"));
    let decision = deletion.decision.as_ref().zip(*decided_at).map(|(decision, at)| {
        let by = decided_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        format!("{decision} at {}{by}", seconds(at))
    });
    format!(
        "account {account_id} {resource} {record_id}{}: absent since {}, held because {} ({reason}); {}",
        name.unwrap_or_default(),
        seconds(*found_at),
        explanation(reason),
        decision.as_deref().unwrap_or("undecided")
    )
}

fn explanation(reason: &str) -> &'static str {
    match HoldReason::of_name(reason) {
        HoldReason::NotAdministrator => "the token's owner is no administrator and may not see the record",
        HoldReason::EmptyList => "Harvest's list was empty",
        HoldReason::Guard => "too many records were absent at once",
    }
}

/// Records the decision. `confirmation` is there if the decision is permanent.
async fn decide(
    app: &App,
    options: &DecideOptions,
    decision: Decision,
    confirmation: Option<&Confirmation>,
) -> Result<(), Failure> {
    let DecideOptions { kind, ids, account, again, json, .. } = options;
    let selection = Selection { account: *account, records: kind.map(|resource| (resource, ids.clone())) };
    let mut held = app.store.held_deletions(&selection).await?;
    require_each(&held, &selection)?;
    let selected = held.len();
    held.retain(|deletion| match &deletion.decision {
        None => true,
        Some(earlier) => *again && earlier != decision.name(),
    });
    if held.is_empty() {
        output::message(match selected {
            0 => "no deletion is held",
            _ => "all of these deletions were decided before; add --again to change the decision",
        });
        return if *json { output::json(&held) } else { Ok(()) };
    }
    if let Some(confirmation) = confirmation
        && !is_confirmed(&held, *json, confirmation).await?
    {
        return Ok(());
    }
    let decided = app.store.decide(&selection, decision, *again, &operator()).await?;
    app.store.notify_daemon(account.map(AccountId)).await?;
    let effect = match decision {
        Decision::Accepted => {
            "accepted: the running daemon, or the next `rosterd sync`, deletes those that Harvest confirms"
        }
        Decision::Rejected => "rejected: the rows stay as they are",
    };
    output::print_unless_json(*json, format_args!("{} {effect}", count(decided, "deletion")))?;
    if *json {
        let keys: BTreeSet<_> = held.iter().map(HeldDeletion::key).collect();
        let mut now = app.store.held_deletions(&selection).await?;
        now.retain(|deletion| keys.contains(&deletion.key()));
        return output::json(&now);
    }
    Ok(())
}

async fn is_confirmed(
    held: &[HeldDeletion],
    json: bool,
    confirmation: &Confirmation,
) -> Result<bool, Failure> {
    let not_administrator = HoldReason::NotAdministrator.name();
    let unconfirmable = held.iter().filter(|deletion| deletion.reason == not_administrator).count();
    if unconfirmable > 0 {
        output::message(format_args!(
            "{} held because the token's owner is no administrator. Records that such a token may not see look deleted, so \
             rosterd deletes none of these before an administrator's token confirms them",
            count(unconfirmable, "deletion")
        ));
    }
    if json && confirmation.is_dry_run() {
        output::json(&held)?;
        return Ok(false);
    }
    confirmation.obtain(PERMANENT, async || Ok(preview(held))).await
}

/// Refuses ids without a held deletion, and ids with held deletions in several accounts.
fn require_each(held: &[HeldDeletion], selection: &Selection) -> Result<(), Failure> {
    let Some((resource, ids)) = &selection.records else { return Ok(()) };
    let kind = resource.aggregate();
    let accounts_of = |id: &i64| -> Vec<String> {
        held.iter().filter(|it| it.record_id == *id).map(|it| it.account_id.to_string()).collect()
    };
    let unknown: Vec<_> =
        ids.iter().filter(|id| accounts_of(id).is_empty()).map(ToString::to_string).collect();
    if !unknown.is_empty() {
        let advice =
            format!("no deletion of {kind} {} is held; see `rosterd deletions list`", unknown.join(", "));
        return Err(Failure::new(Exit::Differences, advice));
    }
    for id in ids {
        let accounts = accounts_of(id);
        if accounts.len() > 1 {
            let advice =
                format!("{kind} {id} is held in accounts {}; choose one with --account", accounts.join(", "));
            return Err(Failure::new(Exit::Usage, advice));
        }
    }
    Ok(())
}

fn preview(held: &[HeldDeletion]) -> String {
    let mut groups: BTreeMap<(i64, &str, &str), u64> = BTreeMap::new();
    for deletion in held {
        let group = (deletion.account_id, &*deletion.resource, &*deletion.reason);
        *groups.entry(group).or_default() += 1;
    }
    let lines = groups.into_iter().map(|((account, resource, reason), records)| {
        format!(
            "would accept {} of {resource} in account {account}: {} ({reason})",
            count(records, "deletion"),
            explanation(reason)
        )
    });
    let lines: Vec<_> = lines.collect();
    format!("{}\nsee `rosterd deletions list` for each record", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_kind_accepts_singular_and_plural_and_refuses_other_kinds() {
        for (word, resource) in [
            ("user", Resource::Users),
            ("users", Resource::Users),
            ("assignment", Resource::Assignments),
            ("assignments", Resource::Assignments),
            ("user_assignment", Resource::Assignments),
            ("user_assignments", Resource::Assignments),
            ("billable_rate", Resource::BillableRates),
            ("cost_rates", Resource::CostRates),
        ] {
            assert_eq!(parse_kind(word), Ok(resource), "{word}");
        }
        assert_eq!(
            parse_kind("project"),
            Err("give one of user, assignment, billable_rate, cost_rate".to_owned())
        );
    }
}
