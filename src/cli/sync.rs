//! `rosterd sync`: runs one cycle for each account, or lets the running daemon do it.

mod delegation;

use std::fmt::Display;

use clap::Args;
use delegation::{Runner, acquire_or_delegate};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::accounts::{self, AccountResult};
use super::findings::Findings;
use super::progress::Bars;
use super::support::{DATABASE_WAIT, require_schema, with_app};
use super::{output, signals};
use crate::app::{App, Exit, Failure};
use crate::daemon::{schedule, worker};
use crate::harvest::Client;
use crate::roster::AccountId;
use crate::settings::{Account, Settings};
use crate::store::Fence;
use crate::store::missing::Selection;
use crate::store::requests::{Outcome, RequestKind};
use crate::sync::cycle::{Cycle, CycleMemory, ProgressFn};
use crate::sync::error::CycleError;
use crate::sync::mirror::dry_run::{DryRun, Planned};
use crate::sync::mirror::{Mirror, PostgresMirror};
use crate::sync::report::{CycleMode, CycleReport};
use crate::sync::{absent_rates, rates, user};
use crate::telemetry::count;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
pub(super) struct Options {
    /// Read everything, not only what changed
    #[arg(long)]
    full: bool,
    /// Print what would change and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With --dry-run, print values, which are personal data
    #[arg(long, requires = "dry_run")]
    values: bool,
    /// Read only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Read one user and their assignments again
    #[arg(long, value_name = "ID", conflicts_with_all = ["full", "dry_run"])]
    user: Option<i64>,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn sync(settings: Settings, options: Options) -> Result<(), Failure> {
    accounts::require(&settings, options.account)?;
    if options.user.is_some() && options.account.is_none() && settings.accounts().len() > 1 {
        let advice = "the settings have several accounts; add --account to choose the account of --user";
        return Err(Failure::new(Exit::Settings, advice));
    }
    signals::until_stopped(async |stop| {
        Box::pin(with_app(settings, async |app| {
            let sync = Sync { app, options: &options, stop };
            if options.dry_run { sync.plan().await } else { sync.apply(options.json).await }
        }))
        .await
    })
    .await
}

/// Reads what changed in one account into the mirror, or lets the running daemon do it, as `rosterd sync` does. Prints
/// only to stderr.
pub(super) async fn refresh(app: &App, account: &Account, stop: &CancellationToken) -> Result<(), Failure> {
    let (full, dry_run, values, json) = (false, false, false, true);
    let options = Options { full, dry_run, values, account: Some(account.id), user: None, json };
    Sync { app, options: &options, stop }.apply(false).await
}

struct Sync<'a> {
    app: &'a App,
    options: &'a Options,
    stop: &'a CancellationToken,
}

impl Sync<'_> {
    /// Reads what changed in each account and, if `prints_json`, prints the results.
    async fn apply(self, prints_json: bool) -> Result<(), Failure> {
        self.app.prepare().await?;
        let replica = App::replica();
        let limiter = tokio::select! {
            limiter = self.app.budgets(replica.clone(), DATABASE_WAIT) => limiter?,
            () = self.stop.cancelled() => return Err(CycleError::Stopped.into()),
        };
        let work = async |client: &Client| self.apply_to(client, replica.id).await;
        accounts::for_each(self.app, limiter, self.options.account, prints_json, work).await
    }

    async fn apply_to(&self, client: &Client, replica: Uuid) -> Result<Value, Failure> {
        let account = client.account();
        let runner = acquire_or_delegate(self.app, account, replica, self.request(), self.stop).await?;
        let result = match runner {
            Runner::This(fence) => self.run(client, fence, replica).await?,
            Runner::Holder(outcome, answer) => self.accept_answer(outcome, &answer)?,
        };
        self.report_held(account).await?;
        Ok(result)
    }

    async fn run(&self, client: &Client, fence: Fence, replica: Uuid) -> Result<Value, Failure> {
        let mirror = PostgresMirror {
            store: &self.app.store,
            fence,
            order: client.order(),
            again_after: self.app.again_after(),
            guard: self.app.rules().guard,
            // An operator who asks for a full read, or for one user, does not trust `updated_at`.
            compare_all_fields: self.options.full || self.options.user.is_some(),
            write: None,
        };
        let result = match self.options.user {
            Some(user) => self.sync_user(&mirror, client, user).await,
            None => self.sync_account(&mirror, client).await,
        };
        // If this fails, the result of the cycle still decides.
        worker::give_back(&self.app.store, &fence, replica).await;
        result
    }

    /// Prints what a cycle would change in each account.
    async fn plan(&self) -> Result<(), Failure> {
        // A database without the schema counts as an empty mirror, and has no table for the shared rate limit.
        let is_migrated = self.app.store.schema_state().await?.applied > 0;
        let limiter = if is_migrated {
            require_schema(self.app).await?;
            self.app.refuse_pay().await?;
            self.app.budgets(App::replica(), DATABASE_WAIT).await?
        } else {
            self.app.reserved_budgets()?
        };
        let Options { account, json, .. } = self.options;
        let work = async |client: &Client| self.plan_for(client, is_migrated).await;
        accounts::for_each(self.app, limiter, *account, *json, work).await
    }

    async fn plan_for(&self, client: &Client, is_migrated: bool) -> Result<AccountResult, Failure> {
        let findings = Findings::new(self.options.json);
        let print = |finding| findings.add(finding);
        let mirror = DryRun {
            store: is_migrated.then_some(&self.app.store),
            account: client.account(),
            values: self.options.values,
            print: &print,
            again_after: self.app.again_after(),
            planned: Planned::default(),
        };
        let mut report = self.cycle(&mirror, client).await?;
        if self.app.settings.rates.histories {
            let mut memory = CycleMemory::default();
            let reader = self.reader(&mirror, client, &mut memory, &|_, _, _| ());
            absent_rates::resolve_all(reader, &mut report).await?;
        }
        let summary = plan_summary(&report);
        self.print(&summary)?;
        let result = AccountResult::from(json!({ "summary": summary, "cycle": report.json() }));
        Ok(result.with_findings("changes", findings.into_inner()))
    }

    fn print(&self, text: impl Display) -> Result<(), Failure> {
        output::print_unless_json(self.options.json, text)
    }

    /// Runs one cycle and reads the rate histories that are due.
    async fn sync_account(&self, mirror: &PostgresMirror<'_>, client: &Client) -> Result<Value, Failure> {
        let report = self.cycle(mirror, client).await?;
        report.log(None, false);
        let mut result = self.summarize(&report)?;
        if self.app.settings.rates.histories {
            let bars = Bars::new(false);
            let show = |resource, seen, total| bars.update(resource, seen, total);
            let mut memory = CycleMemory::default();
            let report = rates::read_due(self.reader(mirror, client, &mut memory, &show), None).await;
            bars.clear();
            let report = successful(report)?;
            let requests = report.requests;
            self.print(format_args!(
                "account {}: rate histories read by {}, {} changed",
                client.account(),
                count(requests, "request"),
                report.rates.changed
            ))?;
            result["rate_histories"] = json!({ "requests": requests, "changed": report.rates.changed });
        }
        Ok(result)
    }

    fn summarize(&self, report: &CycleReport) -> Result<Value, Failure> {
        let summary = report.summary();
        self.print(&summary)?;
        Ok(json!({ "delegated": false, "summary": summary, "cycle": report.json() }))
    }

    async fn sync_user(
        &self,
        mirror: &PostgresMirror<'_>,
        client: &Client,
        user: i64,
    ) -> Result<Value, Failure> {
        let with_rates = self.app.settings.rates.histories;
        let mut memory = CycleMemory::default();
        let reader = self.reader(mirror, client, &mut memory, &|_, _, _| ());
        let (report, known) = user::read(reader, user, with_rates).await;
        let report = successful(report)?;
        if !known {
            let advice = format!(
                "user {user} is neither at Harvest nor in the mirror of account {}",
                client.account()
            );
            return Err(Failure::new(Exit::Differences, advice));
        }
        report.log(None, false);
        self.summarize(&report)
    }

    async fn cycle<S: Mirror>(&self, mirror: &S, client: &Client) -> Result<CycleReport, Failure> {
        let bars = Bars::new(self.options.dry_run);
        let show = |resource, seen, total| bars.update(resource, seen, total);
        let known = mirror.account().await?;
        let due = schedule::mode(self.app.clock.now(), &known);
        let mut memory = CycleMemory::default();
        let mut cycle = self.reader(mirror, client, &mut memory, &show);
        let report = cycle.run(if self.options.full { CycleMode::Full } else { due }, known).await;
        bars.clear();
        successful(report)
    }

    fn reader<'r, S>(
        &'r self,
        mirror: &'r S,
        client: &'r Client,
        memory: &'r mut CycleMemory,
        progress: ProgressFn<'r>,
    ) -> Cycle<'r, S> {
        let clock = &*self.app.clock;
        let rules = self.app.rules();
        Cycle { mirror, client, clock, rules, memory, progress, cancel: self.stop }
    }

    fn request(&self) -> RequestKind {
        match self.options.user {
            Some(user) => RequestKind::User(user),
            None if self.options.full => RequestKind::Full,
            None => RequestKind::Sync,
        }
    }

    /// Ends with the result of the lease holder.
    fn accept_answer(&self, outcome: Outcome, answer: &str) -> Result<Value, Failure> {
        let exit = match outcome {
            Outcome::Ok => {
                self.print(answer)?;
                return Ok(json!({ "delegated": true, "summary": answer }));
            }
            Outcome::NoSuchRecord => Exit::Differences,
            Outcome::Refused => Exit::Credentials,
            Outcome::Unavailable => Exit::Unavailable,
        };
        Err(Failure::new(exit, answer))
    }

    async fn report_held(&self, account: AccountId) -> Result<(), Failure> {
        let selection = Selection { account: Some(account.0), ..Selection::default() };
        let held = self.app.store.held_deletions(&selection).await?;
        let undecided = held.iter().filter(|deletion| deletion.decision.is_none()).count();
        if undecided > 0 {
            output::message(format_args!(
                "account {account}: {} held for review; see `rosterd deletions list`",
                count(undecided, "deletion")
            ));
        }
        Ok(())
    }
}

/// The report of a successful cycle, or the cycle's error.
fn successful(mut report: CycleReport) -> Result<CycleReport, Failure> {
    std::mem::replace(&mut report.outcome, Ok(()))?;
    Ok(report)
}

fn plan_summary(report: &CycleReport) -> String {
    format!(
        "account {}: {} would be written and {} refreshed without an event ({} read by {}, {} cannot be read)",
        report.account,
        count(report.events(), "change"),
        count(report.users.refreshed + report.assignments.refreshed, "row"),
        count(report.users.seen + report.assignments.seen, "record"),
        count(report.requests, "request"),
        report.users.rejected + report.assignments.rejected,
    )
}
