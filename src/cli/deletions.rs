//! `rosterd deletions`: list, accept and reject held deletions.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use chrono::SecondsFormat;
use clap::{ArgGroup, Args, Subcommand};

use super::consent::Consent;
use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{App, Exit, Failure};
use crate::roster::{AccountId, Reason, Resource};
use crate::settings::Settings;
use crate::store::deletions::{Decision, HeldDeletion, Selection};
use crate::telemetry::count;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List held deletions, with reason and since when
    #[command(after_help = "Examples:\n  rosterd deletions list --values\n  rosterd deletions list --json")]
    List(ListOptions),
    /// Delete held records permanently, once Harvest confirms it
    #[command(after_help = "Examples:\n  rosterd deletions accept user 1001 1002\n  \
                            rosterd deletions accept --account 123456\n  rosterd deletions accept --all --dry-run")]
    Accept(AcceptOptions),
    /// Keep the rows of records that Harvest no longer shows
    #[command(
        after_help = "Examples:\n  rosterd deletions reject assignment 290021\n  rosterd deletions reject --all"
    )]
    Reject(DecideOptions),
}

#[derive(Args, Debug)]
pub(super) struct ListOptions {
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// On a terminal: show names (they are personal data)
    #[arg(long, conflicts_with = "json")]
    values: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct AcceptOptions {
    #[command(flatten)]
    decide: DecideOptions,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("selection").args(["kind", "account", "all"]).required(true).multiple(true))]
pub(super) struct DecideOptions {
    /// `user`, `assignment`, `billable_rate` or `cost_rate`
    #[arg(value_name = "KIND", requires = "ids", value_parser = kind)]
    kind: Option<Resource>,
    /// Harvest's ids of the records
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// All held deletions
    #[arg(long, conflicts_with_all = ["kind", "account"])]
    all: bool,
    /// Also change earlier decisions
    #[arg(long)]
    again: bool,
    /// Print the decided deletions as one JSON document
    #[arg(long)]
    json: bool,
}

/// A kind of record, in the singular or plural, with or without the prefix of assignments.
fn kind(word: &str) -> Result<Resource, String> {
    let short = |name: &str| name.trim_start_matches("user_") == word;
    let named =
        |it: &Resource| [it.name(), it.aggregate()].into_iter().any(|name| name == word || short(name));
    Resource::ALL.into_iter().find(named).ok_or_else(|| {
        let known: Vec<_> =
            Resource::ALL.into_iter().map(|it| it.aggregate().trim_start_matches("user_")).collect();
        format!("give one of {}", known.join(", "))
    })
}

pub(super) async fn deletions(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    if let Command::Accept(options) = &command {
        options.consent.require_terminal()?;
    }
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::List(options) => list(app, options).await?,
            Command::Accept(AcceptOptions { decide, consent }) => {
                settle(app, decide, Decision::Accepted, Some(consent)).await?;
            }
            Command::Reject(options) => settle(app, options, Decision::Rejected, None).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn list(app: &App, options: &ListOptions) -> Result<(), Failure> {
    let held =
        app.store.held_deletions(&Selection { account: options.account, ..Selection::default() }).await?;
    if options.json {
        return output::json(&held);
    }
    let names = options.values && output::is_terminal();
    if options.values && !names {
        output::say("names are shown on a terminal only");
    }
    for deletion in &held {
        output::line(line(deletion, names))?;
    }
    if held.is_empty() {
        output::say("no deletion is held");
    }
    Ok(())
}

fn line(deletion: &HeldDeletion, names: bool) -> String {
    let HeldDeletion {
        account_id,
        resource,
        record_id,
        found_at,
        reason,
        decision,
        decided_at,
        decided_by,
        name,
    } = deletion;
    let name = name.as_ref().filter(|_| names).map(|name| format!(" ({name})")).unwrap_or_default();
    let found_at = found_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let decision = match (decision, decided_at, decided_by) {
        (Some(decision), Some(at), by) => {
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            format!("{decision} at {}{by}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        _ => "undecided".to_owned(),
    };
    format!(
        "account {account_id} {resource} {record_id}{name}: absent since {found_at}, held because {} ({reason}); {decision}",
        because(reason)
    )
}

fn because(reason: &str) -> &'static str {
    match Reason::ALL.into_iter().find(|known| known.name() == reason) {
        Some(Reason::NotAdministrator) => "the token's owner is no administrator and may not see the record",
        Some(Reason::EmptyList) => "Harvest's list was empty",
        Some(Reason::Guard) | None => "too many records were absent at once",
    }
}

/// Accepts or rejects; `consent` for what cannot be undone.
async fn settle(
    app: &App,
    options: &DecideOptions,
    decision: Decision,
    consent: Option<&Consent>,
) -> Result<(), Failure> {
    let DecideOptions { kind, ids, account, again, json, .. } = options;
    let selection = Selection { account: *account, records: kind.map(|resource| (resource, ids.clone())) };
    let mut held = app.store.held_deletions(&selection).await?;
    require_each(&held, &selection)?;
    let all = held.len();
    held.retain(|it| match &it.decision {
        None => true,
        Some(earlier) => *again && earlier != decision.name(),
    });
    if held.is_empty() {
        output::say(match all {
            0 => "no deletion is held",
            _ => "all of these were decided before: change the decision with --again",
        });
    } else if let Some(consent) = consent {
        let blind = held.iter().filter(|it| it.reason == Reason::NotAdministrator.name()).count();
        if blind > 0 {
            output::say(format_args!(
                "{} held because the token's owner is no administrator: records that such a token may not see look deleted, \
                 so these wait until an administrator's token confirms them",
                count(blind as u64, "deletion")
            ));
        }
        if *json && consent.is_dry_run() {
            return output::json(&held);
        }
        if !consent.ask(preview(&held)).await? {
            return Ok(());
        }
    }
    if !held.is_empty() {
        let decided = app.store.decide(&selection, decision, *again, &decider()).await?;
        app.store.ring(account.map(AccountId)).await?;
        let effect = match decision {
            Decision::Accepted => {
                "accepted: the running daemon, or the next `rosterd sync`, deletes those that Harvest confirms"
            }
            Decision::Rejected => "rejected: the rows stay as they are",
        };
        let said = format!("{} {effect}", count(decided, "deletion"));
        if *json { output::say(said) } else { output::line(said)? }
    }
    if *json {
        let keys: BTreeSet<_> = held.iter().map(HeldDeletion::key).collect();
        let mut now = app.store.held_deletions(&selection).await?;
        now.retain(|it| keys.contains(&it.key()));
        return output::json(&now);
    }
    Ok(())
}

/// Refuses ids that are not held, and ids that are held in several accounts.
fn require_each(held: &[HeldDeletion], selection: &Selection) -> Result<(), Failure> {
    let Some((resource, ids)) = &selection.records else { return Ok(()) };
    let mut accounts: BTreeMap<i64, Vec<i64>> = ids.iter().map(|id| (*id, Vec::new())).collect();
    for it in held {
        accounts.entry(it.record_id).or_default().push(it.account_id);
    }
    let absent: Vec<_> =
        accounts.iter().filter(|(_, in_)| in_.is_empty()).map(|(id, _)| id.to_string()).collect();
    if !absent.is_empty() {
        let advice = format!(
            "no deletion of {} {} is held; see `rosterd deletions list`",
            resource.aggregate(),
            absent.join(", ")
        );
        return Err(Failure::new(Exit::Differences, advice));
    }
    match accounts.iter().find(|(_, in_)| in_.len() > 1) {
        None => Ok(()),
        Some((id, in_)) => {
            let in_: Vec<_> = in_.iter().map(ToString::to_string).collect();
            let advice = format!(
                "{} {id} is held in accounts {}: say which with --account",
                resource.aggregate(),
                in_.join(", ")
            );
            Err(Failure::new(Exit::Usage, advice))
        }
    }
}

fn preview(held: &[HeldDeletion]) -> String {
    let mut groups: BTreeMap<(i64, &str, &str), u64> = BTreeMap::new();
    for it in held {
        *groups.entry((it.account_id, &it.resource, &it.reason)).or_default() += 1;
    }
    let lines = groups.into_iter().map(|((account, resource, reason), records)| {
        format!(
            "would accept {} of {resource} in account {account}: {} ({reason})",
            count(records, "deletion"),
            because(reason)
        )
    });
    let lines: Vec<_> = lines.collect();
    format!("{}\n`rosterd deletions list` shows each", lines.join("\n"))
}

/// For the table: login and host of the person who runs the command.
fn decider() -> String {
    let login = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let login = login.filter(|login| !login.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    // A replica's name is host and process id.
    let host = App::replica().name;
    format!("{login}@{}", host.split(':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_accepted_in_singular_and_plural_and_others_are_refused() {
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
            assert_eq!(kind(word), Ok(resource), "{word}");
        }
        assert_eq!(kind("project"), Err("give one of user, assignment, billable_rate, cost_rate".to_owned()));
    }
}
