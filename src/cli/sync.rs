//! `rosterd sync`: one cycle.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{PATIENCE, output, signals, with_app};
use crate::app::{App, Exit, Failure};
use crate::harvest::Client;
use crate::roster::{AccountId, Resource};
use crate::settings::{Account, Settings};
use crate::store::Fence;
use crate::store::lease::Lease;
use crate::sync::apply::Writer;
use crate::sync::cycle::{Cycle, CycleError, Memory};
use crate::sync::dry_run::DryRun;
use crate::sync::report::Report;
use crate::sync::schedule::{self, Mode};
use crate::sync::sink::Sink;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Read everything, not only what changed
    #[arg(long)]
    full: bool,
    /// Print what would change and write nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print values too (they are people's data)
    #[arg(long, requires = "dry_run")]
    values: bool,
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
}

pub(super) async fn sync(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    let known = settings.require_accounts()?;
    if let Some(id) = options.account
        && !known.iter().any(|account| account.id == id)
    {
        let advice = format!("account {id} is not in the settings; leave --account away, or add it");
        return Err(Failure::new(Exit::Settings, advice));
    }
    let stop = CancellationToken::new();
    signals::stop_on_signal(stop.clone())?;
    let work = Box::pin(with_app(settings, PATIENCE, async |app| {
        let sync = Sync { app, options: &options, stop: &stop };
        if options.dry_run { sync.plan().await } else { sync.apply().await }
    }));
    signals::within_drain(&stop, work, Err(CycleError::Stopped.into())).await
}

/// One call of the command.
struct Sync<'a> {
    app: &'a App,
    options: &'a Options,
    stop: &'a CancellationToken,
}

impl Sync<'_> {
    /// A cycle for each account.
    async fn apply(&self) -> Result<ExitCode, Failure> {
        self.app.prepare().await?;
        let replica = App::replica();
        let budgets = tokio::select! {
            budgets = self.app.budgets(replica.clone(), PATIENCE) => budgets?,
            () = self.stop.cancelled() => return Err(CycleError::Stopped.into()),
        };
        let done = self.each_account(async |account| {
            let client = self.app.client(account, &budgets)?;
            let fence = self.take(client.account(), replica.id).await?;
            let sink = Writer { store: &self.app.store, fence };
            let report = self.cycle(&sink, &client).await;
            self.app.store.release(&fence, replica.id).await?;
            let report = report?;
            report.log(None, false);
            output::line(summary(&report))
        });
        let done = done.await;
        budgets.stop().await;
        done
    }

    /// A plan for each account.
    async fn plan(&self) -> Result<ExitCode, Failure> {
        // A database without the schema is an empty mirror, and has no table to share the budget through.
        let migrated = self.app.store.schema_state().await?.applied > 0;
        let budgets = if migrated {
            self.app.budgets(App::replica(), PATIENCE).await?
        } else {
            self.app.local_budgets()
        };
        let done = self.each_account(async |account| {
            let client = self.app.client(account, &budgets)?;
            // What cannot be written here is told with the summary.
            let print = |line: &str| drop(output::line(line));
            let store = migrated.then_some(&self.app.store);
            let sink = DryRun::new(store, client.account(), self.options.values, &print);
            let report = self.cycle(&sink, &client).await?;
            output::line(planned(&report))
        });
        let done = done.await;
        budgets.stop().await;
        done
    }

    /// The first failure decides the exit code; the other accounts still run.
    async fn each_account(
        &self,
        work: impl AsyncFn(&Account) -> Result<(), Failure>,
    ) -> Result<ExitCode, Failure> {
        let mut failed = None;
        for account in self.app.settings.accounts() {
            if self.options.account.is_some_and(|only| only != account.id) {
                continue;
            }
            match (work(account).await, &failed) {
                (Ok(()), _) => {}
                (Err(failure), None) => failed = Some(failure),
                (Err(failure), Some(_)) => output::say(format_args!("rosterd: {failure}")),
            }
        }
        failed.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    /// One cycle, watched by a progress bar.
    async fn cycle<S: Sink>(&self, sink: &S, client: &Client) -> Result<Report, Failure> {
        let bars = Bars::new(self.options.dry_run);
        let show = |resource, seen, total| bars.show(resource, seen, total);
        let due = schedule::mode(self.app.clock.now(), &sink.states().await?);
        let cycle = Cycle {
            sink,
            client,
            clock: &*self.app.clock,
            rules: self.app.rules(),
            memory: &mut Memory::default(),
            progress: &show,
            cancel: self.stop,
        };
        let mut report = cycle.run(if self.options.full { Mode::Full } else { due }).await;
        bars.clear();
        std::mem::replace(&mut report.outcome, Ok(()))?;
        Ok(report)
    }

    /// Takes the account; after a crash of its holder that takes until the lease runs out.
    async fn take(&self, account: AccountId, replica: Uuid) -> Result<Fence, Failure> {
        let give_up = Instant::now() + self.app.settings.lease.ttl + Duration::from_secs(5);
        loop {
            let lease = tokio::select! {
                lease = self.app.store.acquire(account, replica) => lease?,
                () = self.stop.cancelled() => return Err(CycleError::Stopped.into()),
            };
            match lease {
                Lease::Acquired(fence) => return Ok(fence),
                Lease::Held { by } if Instant::now() >= give_up => {
                    let advice = format!(
                        "another rosterd ({by}) is at work on account {account}; it keeps the mirror fresh, or stop it first"
                    );
                    return Err(Failure::new(Exit::Busy, advice));
                }
                Lease::Held { .. } => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}

fn planned(report: &Report) -> String {
    format!(
        "account {}: {} changes and {} silent refreshes would be written ({} records read by {} requests, {} cannot be read)",
        report.account,
        report.events(),
        report.users.refreshed + report.assignments.refreshed,
        report.users.seen + report.assignments.seen,
        report.requests,
        report.users.rejected + report.assignments.rejected,
    )
}

fn summary(report: &Report) -> String {
    let rejected = report.users.rejected + report.assignments.rejected;
    let unreadable = if rejected == 0 {
        String::new()
    } else {
        format!("; {rejected} records cannot be read, see roster.rejected_records")
    };
    format!(
        "account {}: {} read in {:.1} s by {} requests: {} users ({} changed), {} assignments ({} changed), {} events{unreadable}",
        report.account,
        match report.mode {
            Mode::Full => "everything",
            Mode::Incremental => "what changed",
        },
        report.finished_at.map_or(0.0, |end| (end - report.started_at).as_seconds_f64()),
        report.requests,
        report.users.seen,
        report.users.changed,
        report.assignments.seen,
        report.assignments.changed,
        report.events(),
    )
}

/// A bar for each list, on stderr, where that is a terminal.
struct Bars([ProgressBar; 2]);

impl Bars {
    /// `hidden` where lines are printed meanwhile.
    fn new(hidden: bool) -> Self {
        let all = MultiProgress::new();
        if hidden || !std::io::stderr().is_terminal() {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let bar = |resource: Resource| {
            let style = ProgressStyle::with_template("{prefix:>16} {wide_bar} {pos}/{len} {eta}");
            let bar = ProgressBar::new(0).with_prefix(resource.name());
            all.add(if let Ok(style) = style { bar.with_style(style) } else { bar })
        };
        Self(Resource::ALL.map(bar))
    }

    fn show(&self, resource: Resource, seen: u64, total: Option<u64>) {
        let bar = match resource {
            Resource::Users => &self.0[0],
            Resource::Assignments => &self.0[1],
        };
        bar.set_length(total.unwrap_or(seen).max(seen));
        bar.set_position(seen);
    }

    fn clear(&self) {
        for bar in &self.0 {
            bar.finish_and_clear();
        }
    }
}
