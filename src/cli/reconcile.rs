//! `rosterd reconcile`: makes Harvest's users as a list says.

mod list;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use list::ListFormat;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::carry_out::{WriteOptions, confirm, send};
use super::support::{operator, with_app};
use super::{output, signals, sync};
use crate::app::{App, Exit, Failure};
use crate::roster::reconcile::{Desired, DesiredUsers, LineError, ReconcilePlan, ReconcileRules, UserPlan};
use crate::roster::write::{Write, WriteKind};
use crate::roster::{AccountId, Field, User};
use crate::settings::Settings;
use crate::telemetry::count;

/// Longer lists are refused.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
const MAX_ERRORS: usize = 20;

#[derive(Args)]
pub(super) struct Options {
    /// The list: CSV or JSON lines; - for stdin
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// A domain of --deactivate-missing; can be repeated
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    scope_domain: Vec<String>,
    /// Deactivate users of the domains who are not in the list
    #[arg(long, requires = "scope_domain")]
    deactivate_missing: bool,
    /// The exact number of deactivations beyond write.guard
    #[arg(long, value_name = "N")]
    accept_deactivations: Option<usize>,
    /// Print e-mail addresses of users to create
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    write: WriteOptions,
}

fn domain(text: &str) -> Result<String, String> {
    let domain = text.trim().trim_start_matches('@').to_lowercase();
    if domain.is_empty() || domain.contains(['@', ' ', ',', '*']) {
        return Err("expected one domain, such as example.com".to_owned());
    }
    Ok(domain)
}

pub(super) async fn reconcile(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    let confirmation = &options.write.confirmation;
    if options.is_stdin() && !confirmation.is_given() && !confirmation.is_dry_run() {
        let advice = "stdin holds the list, so the command cannot ask for confirmation; see what would happen with \
                      --dry-run, then add --yes";
        return Err(Failure::new(Exit::Usage, advice));
    }
    options.write.check(&settings)?;
    signals::until_stopped(async |stop| {
        let (content, options) = tokio::task::spawn_blocking(move || (read(&options), options))
            .await
            .map_err(|error| Failure::new(Exit::Internal, error))?;
        let extension = options.file.extension().and_then(|extension| extension.to_str());
        let content = content?;
        let lines = list::decode(&content, ListFormat::of(extension, &content)).map_err(|e| refused(&e))?;
        let desired = DesiredUsers::new(&lines).map_err(|errors| refused(&errors))?;
        Box::pin(with_app(settings, async |app| {
            Reconcile { app, options: &options, stop, lines: &lines }.run(&desired).await
        }))
        .await
    })
    .await
}

impl Options {
    fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }
}

/// Reads the whole list, because nothing may be planned from a part of it.
fn read(options: &Options) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = if options.is_stdin() {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut content)
    } else {
        std::fs::File::open(&options.file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
    };
    read.map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read {}: {error}", options.file.display()))
    })?;
    if content.len() as u64 > MAX_BYTES {
        return Err(Failure::new(Exit::Data, "the list is larger than 64 MiB"));
    }
    Ok(content)
}

fn refused(errors: &[LineError]) -> Failure {
    let mut sentences = vec!["the list cannot be used, and nothing was planned".to_owned()];
    sentences.extend(errors.iter().take(MAX_ERRORS).map(ToString::to_string));
    if let Some(more) = errors.len().checked_sub(MAX_ERRORS).filter(|more| *more > 0) {
        sentences.push(format!("{} not shown", count(more, "more error")));
    }
    Failure::new(Exit::Data, sentences.join("\n  "))
}

/// One call of the command, with a list that can be used.
struct Reconcile<'a> {
    app: &'a App,
    options: &'a Options,
    stop: &'a CancellationToken,
    lines: &'a [Desired],
}

impl Reconcile<'_> {
    async fn run(&self, desired: &DesiredUsers) -> Result<ExitCode, Failure> {
        let Options { write: options, .. } = self.options;
        let account = options.account(self.app)?;
        sync::refresh(self.app, account, self.stop).await?;
        let users = self.app.store.live_users(AccountId(account.id)).await?;
        let plan = self.plan(desired, &users, AccountId(account.id)).await?;
        if plan.users.is_empty() {
            self.print_plan(&plan, &["nothing to do".to_owned()])?;
            return Ok(ExitCode::SUCCESS);
        }
        let is_dry_run = options.confirmation.is_dry_run();
        let is_shown_by_question = !is_dry_run && !options.confirmation.is_given();
        if !is_shown_by_question {
            self.print_plan(&plan, &[])?;
        }
        let actor = self.actor(&plan, &users)?;
        if is_dry_run {
            output::message("nothing was changed (--dry-run)");
            return Ok(Exit::Differences.into());
        }
        if is_shown_by_question && !confirm(self.app, options, self.lines(&plan)).await? {
            return Ok(ExitCode::SUCCESS);
        }
        let writes: Vec<Write> = plan.users.into_iter().flat_map(|user| user.writes).collect();
        send(self.app, options, &writes, &actor, self.stop).await?;
        Ok(ExitCode::SUCCESS)
    }

    async fn plan(
        &self,
        desired: &DesiredUsers,
        users: &[User],
        account: AccountId,
    ) -> Result<ReconcilePlan, Failure> {
        let scope_domains: BTreeSet<String> = self.options.scope_domain.iter().cloned().collect();
        let rules = ReconcileRules {
            scope_domains: &scope_domains,
            deactivate_missing: self.options.deactivate_missing,
            owner: self.app.store.account_state(account).await?.owner.map(|owner| owner.id),
            protected: &self.app.settings.write.rules.protected,
        };
        ReconcilePlan::new(desired, users, &rules).map_err(|errors| refused(&errors))
    }

    /// In whose name the writes are requested. A person who gives the exact number means each deactivation, as with
    /// `rosterd user deactivate`, so the guard of the lease holder lets them pass.
    ///
    /// # Errors
    /// If the deactivations exceed the guard and the number is not given.
    fn actor(&self, plan: &ReconcilePlan, users: &[User]) -> Result<String, Failure> {
        let number = plan.count(WriteKind::UserDeactivate);
        if number > 0 && self.options.accept_deactivations == Some(number) {
            return Ok(format!("cli:{}", operator()));
        }
        let active = users.iter().filter(|user| user.is_active == Field::Value(true)).count();
        if self.app.settings.write.rules.guard.holds(number, active as u64) {
            let advice = format!(
                "{} of {} exceed write.guard, and nothing was sent; if they are right, add --accept-deactivations {number}",
                count(number, "deactivation"),
                count(active, "active user")
            );
            return Err(Failure::new(Exit::Differences, advice));
        }
        Ok(format!("reconcile:{}", operator()))
    }

    /// Prints the plan to stdout, or to stderr before the JSON document of the writes.
    fn print_plan(&self, plan: &ReconcilePlan, notes: &[String]) -> Result<(), Failure> {
        let options = &self.options.write;
        let has_no_other_document = options.confirmation.is_dry_run() || plan.users.is_empty();
        if options.json && has_no_other_document {
            return output::json(&document(plan));
        }
        let lines: Vec<String> = self.lines(plan).into_iter().chain(notes.iter().cloned()).collect();
        output::print_unless_json(options.json, lines.join("\n"))
    }

    fn lines(&self, plan: &ReconcilePlan) -> Vec<String> {
        let mut lines: Vec<String> = plan.users.iter().map(|user| self.line(user)).collect();
        for skipped in &plan.skipped {
            lines.push(format!("skipped {}: {}", name(skipped.line, skipped.user), skipped.reason));
        }
        lines.extend(plan.only_in_harvest.iter().map(|id| format!("only in Harvest: user {id}")));
        let number = |kind, noun: &str| count(plan.count(kind), noun);
        if plan.count(WriteKind::UserCreate) > 0 {
            let note = "Harvest sends an invitation to each created user, and seats may be charged";
            lines.push(note.to_owned());
        }
        lines.push(format!(
            "{}, {}, {}, {}, {} unchanged, {} only in Harvest",
            number(WriteKind::UserDeactivate, "deactivation"),
            number(WriteKind::UserUpdate, "update"),
            number(WriteKind::UserReactivate, "reactivation"),
            number(WriteKind::UserCreate, "creation"),
            plan.unchanged,
            plan.only_in_harvest.len(),
        ));
        lines
    }

    /// The line of a user: ids and field names.
    fn line(&self, user: &UserPlan) -> String {
        let name = name(user.line, user.user);
        let deeds: Vec<String> = user.writes.iter().map(deed).collect();
        let is_shown = self.options.values && user.user.is_none();
        let line = self.lines.iter().find(|line| is_shown && Some(line.line) == user.line);
        let email = line.map(|line| format!(" ({})", line.email)).unwrap_or_default();
        format!("{name}: would {}{email}", deeds.join(" and "))
    }
}

fn name(line: Option<u64>, user: Option<i64>) -> String {
    match (user, line) {
        (Some(id), _) => format!("user {id}"),
        (None, Some(line)) => format!("line {line}"),
        (None, None) => "a user".to_owned(),
    }
}

fn deed(write: &Write) -> String {
    match write.kind {
        WriteKind::UserCreate => "create a user".to_owned(),
        WriteKind::UserUpdate => format!("change {}", write.fields.names().join(", ")),
        WriteKind::UserDeactivate => "deactivate, with all assignments".to_owned(),
        WriteKind::UserReactivate => "reactivate, without the former assignments".to_owned(),
        other => other.name().to_owned(),
    }
}

/// The plan without values.
fn document(plan: &ReconcilePlan) -> serde_json::Value {
    let write = |line: Option<u64>, write: &Write| {
        json!({
            "kind": write.kind.name(), "user_id": write.user, "line": line, "fields": write.fields.names(),
        })
    };
    let writes = plan.users.iter().flat_map(|user| user.writes.iter().map(|it| write(user.line, it)));
    let skipped =
        plan.skipped.iter().map(|it| json!({ "user_id": it.user, "line": it.line, "reason": it.reason }));
    json!({
        "planned": writes.collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
        "unchanged": plan.unchanged,
        "only_in_harvest": plan.only_in_harvest,
    })
}
