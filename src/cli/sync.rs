//! `rosterd sync`: one cycle.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::accounts::{Document, Documents};
use super::findings::Findings;
use super::progress::Bars;
use super::{PATIENCE, accounts, output, require_schema, signals, with_app};
use crate::app::{App, Exit, Failure};
use crate::harvest::Client;
use crate::roster::AccountId;
use crate::settings::Settings;
use crate::store::Fence;
use crate::store::deletions::Selection;
use crate::store::lease::Lease;
use crate::store::requests::{Outcome, Progress as Stage, Wish};
use crate::sync::apply::Writer;
use crate::sync::cycle::{Cycle, CycleError, Memory, Progress, Rules};
use crate::sync::dry_run::{DryRun, Planned};
use crate::sync::report::Report;
use crate::sync::schedule::{self, Mode};
use crate::sync::sink::Sink;
use crate::sync::worker;
use crate::telemetry::count;

/// How long another process has to begin with what it is asked for.
const ANSWER: Duration = Duration::from_mins(1);
/// How often its progress is looked at.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
pub(super) struct Options {
    /// Read everything, not only what changed
    #[arg(long)]
    full: bool,
    /// Print what would change and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With --dry-run: print values too (they are people's data)
    #[arg(long, requires = "dry_run")]
    values: bool,
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Read only this person and their assignments again
    #[arg(long, value_name = "ID", conflicts_with_all = ["full", "dry_run"])]
    user: Option<i64>,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn sync(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    accounts::require(&settings, options.account)?;
    if options.user.is_some() && options.account.is_none() && settings.accounts().len() > 1 {
        let advice = "--user names a person of one account; say which with --account";
        return Err(Failure::new(Exit::Settings, advice));
    }
    let stop = CancellationToken::new();
    signals::stop_on_signal(stop.clone())?;
    let work = Box::pin(with_app(settings, PATIENCE, async |app| {
        let documents = Documents::new(options.json);
        let sync = Sync { app, options: &options, stop: &stop, documents: &documents, unshared: false };
        let done = if options.dry_run { sync.plan().await } else { sync.apply().await };
        documents.print().and(done)
    }));
    signals::within_drain(&stop, work, || Err(CycleError::Stopped.into())).await
}

/// What became of the account.
enum Taken {
    /// It is this process's.
    Fence(Fence),
    /// The process that holds it did the work and answered.
    Answered(String),
}

/// One call of the command.
struct Sync<'a> {
    app: &'a App,
    options: &'a Options,
    stop: &'a CancellationToken,
    documents: &'a Documents,
    /// See [`Rules::unshared`].
    unshared: bool,
}

impl Sync<'_> {
    /// A cycle for each account.
    async fn apply(mut self) -> Result<ExitCode, Failure> {
        self.app.prepare().await?;
        let replica = App::replica();
        let budgets = tokio::select! {
            budgets = self.app.budgets(replica.clone(), PATIENCE) => budgets?,
            () = self.stop.cancelled() => return Err(CycleError::Stopped.into()),
        };
        self.unshared = self.app.store.is_only_process(replica.id).await?;
        let done = self.documents.each(self.app, self.options.account, async |account| {
            let client = self.app.client(account, &budgets)?;
            let fence = match self.take(client.account(), replica.id).await? {
                Taken::Fence(fence) => fence,
                Taken::Answered(answer) => return Ok(json!({ "delegated": true, "summary": answer })),
            };
            let again_after = self.app.again_after();
            // Somebody who asks for all of it, or for one person, has a doubt.
            let thorough = self.options.full || self.options.user.is_some();
            let guard = self.app.rules().guard;
            let writer =
                Writer { store: &self.app.store, fence, order: client.order(), again_after, guard, thorough };
            let done = match self.options.user {
                Some(user) => self.person(&writer, &client, user).await,
                None => self.whole(&writer, &client).await,
            };
            // If this fails, the cycle's own outcome still counts.
            worker::give_back(&self.app.store, &fence, replica.id).await;
            done
        });
        let done = done.await;
        budgets.stop().await;
        done.map(|()| ExitCode::SUCCESS)
    }

    /// A plan for each account.
    async fn plan(&self) -> Result<ExitCode, Failure> {
        // A database without the schema is an empty mirror, and has no table to share the budget through.
        let migrated = self.app.store.schema_state().await?.applied > 0;
        if migrated {
            require_schema(self.app).await?;
            self.app.refuse_pay().await?;
        }
        let budgets = if migrated {
            self.app.budgets(App::replica(), PATIENCE).await?
        } else {
            self.app.reserved_budgets()?
        };
        let done = self.documents.each(self.app, self.options.account, async |account| {
            let client = self.app.client(account, &budgets)?;
            let findings = Findings::new(self.options.json);
            let print = |finding| findings.print(finding);
            let store = migrated.then_some(&self.app.store);
            let sink = DryRun {
                store,
                account: client.account(),
                values: self.options.values,
                print: &print,
                again_after: self.app.again_after(),
                planned: Planned::default(),
            };
            let mut report = self.cycle(&sink, &client).await?;
            if self.app.settings.rates.histories {
                let mut memory = Memory::default();
                let reader = self.reader(&sink, &client, &mut memory, &|_, _, _| ());
                reader.absent_rates(&mut report).await?;
            }
            let summary = planned(&report);
            self.documents.tell(&summary)?;
            let document = Document::from(json!({ "summary": summary, "cycle": report.json() }));
            Ok(document.with("changes", findings.into_inner()))
        });
        let done = done.await;
        budgets.stop().await;
        done.map(|()| ExitCode::SUCCESS)
    }

    /// One cycle, and whatever is due of the histories of rates.
    async fn whole(&self, writer: &Writer<'_>, client: &Client) -> Result<Value, Failure> {
        let report = self.cycle(writer, client).await?;
        report.log(None, false);
        let mut document = self.summarize(&report)?;
        if self.app.settings.rates.histories {
            let bars = Bars::new(false);
            let show = |resource, seen, total| bars.show(resource, seen, total);
            let mut memory = Memory::default();
            let report = self.reader(writer, client, &mut memory, &show).histories(None).await;
            bars.clear();
            let report = finished(report)?;
            let requests = report.requests;
            self.documents.tell(format_args!(
                "account {}: rate histories read by {}, {} changed",
                client.account(),
                count(requests, "request"),
                report.rates.changed
            ))?;
            document["rate_histories"] = json!({ "requests": requests, "changed": report.rates.changed });
        }
        self.tell_of_held(client.account()).await?;
        Ok(document)
    }

    fn summarize(&self, report: &Report) -> Result<Value, Failure> {
        let summary = report.summary();
        self.documents.tell(&summary)?;
        Ok(json!({ "delegated": false, "summary": summary, "cycle": report.json() }))
    }

    /// One person.
    async fn person(&self, writer: &Writer<'_>, client: &Client, user: i64) -> Result<Value, Failure> {
        let with_rates = self.app.settings.rates.histories;
        let mut memory = Memory::default();
        let reader = self.reader(writer, client, &mut memory, &|_, _, _| ());
        let (report, known) = reader.person(user, with_rates).await;
        let report = finished(report)?;
        if !known {
            let advice = format!(
                "user {user} is neither at Harvest nor in the mirror of account {}",
                client.account()
            );
            return Err(Failure::new(Exit::Differences, advice));
        }
        report.log(None, false);
        let document = self.summarize(&report)?;
        self.tell_of_held(client.account()).await?;
        Ok(document)
    }

    /// One cycle, watched by a progress bar.
    async fn cycle<S: Sink>(&self, sink: &S, client: &Client) -> Result<Report, Failure> {
        let bars = Bars::new(self.options.dry_run);
        let show = |resource, seen, total| bars.show(resource, seen, total);
        let known = sink.account().await?;
        let due = schedule::mode(self.app.clock.now(), &known);
        let mut memory = Memory::default();
        let cycle = self.reader(sink, client, &mut memory, &show);
        let report = cycle.run(if self.options.full { Mode::Full } else { due }, known).await;
        bars.clear();
        finished(report)
    }

    fn reader<'r, S>(
        &'r self,
        sink: &'r S,
        client: &'r Client,
        memory: &'r mut Memory,
        progress: Progress<'r>,
    ) -> Cycle<'r, S> {
        let clock = &*self.app.clock;
        let rules = Rules { unshared: self.unshared, ..self.app.rules() };
        Cycle { sink, client, clock, rules, memory, progress, cancel: self.stop }
    }

    /// Takes the account; after a crash of its holder that takes until the lease runs out. A holder that lives is asked
    /// to do it instead.
    async fn take(&self, account: AccountId, replica: Uuid) -> Result<Taken, Failure> {
        let store = &self.app.store;
        let patience = ANSWER.max(self.app.settings.lease.ttl + Duration::from_secs(5));
        let give_up = Instant::now() + patience;
        let mut request = None;
        loop {
            let lease = tokio::select! {
                lease = store.acquire(account, replica) => lease?,
                () = self.stop.cancelled() => {
                    self.withdraw(request).await;
                    return Err(CycleError::Stopped.into());
                }
            };
            let by = match lease {
                Lease::Acquired(fence) => {
                    self.withdraw(request).await;
                    return Ok(Taken::Fence(fence));
                }
                Lease::Held { by } => by,
            };
            let asked = match request {
                Some(asked) => asked,
                None => *request.insert(store.ask(account, self.wish()).await?),
            };
            match store.progress(asked).await? {
                Stage::Done(outcome, answer) => {
                    return self.answered(account, outcome, answer).await.map(Taken::Answered);
                }
                Stage::Waiting if Instant::now() >= give_up => {
                    self.withdraw(request).await;
                    let advice = format!(
                        "another rosterd ({by}) is at work on account {account} and does not answer; it keeps the mirror \
                         fresh, or stop it first"
                    );
                    return Err(Failure::new(Exit::Busy, advice));
                }
                Stage::Waiting | Stage::Taken => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn wish(&self) -> Wish {
        match self.options.user {
            Some(user) => Wish::User(user),
            None if self.options.full => Wish::Full,
            None => Wish::Sync,
        }
    }

    /// Nobody needs to do it any more. Where that cannot be said it is swept away in time.
    async fn withdraw(&self, request: Option<i64>) {
        if let Some(request) = request {
            let _ = self.app.store.withdraw(request).await;
        }
    }

    /// The holder's answer is ours.
    async fn answered(
        &self,
        account: AccountId,
        outcome: Outcome,
        answer: String,
    ) -> Result<String, Failure> {
        let exit = match outcome {
            Outcome::Ok => {
                self.documents.tell(&answer)?;
                self.tell_of_held(account).await?;
                return Ok(answer);
            }
            Outcome::NoSuchRecord => Exit::Differences,
            Outcome::Refused => Exit::Credentials,
            Outcome::Unavailable => Exit::Unavailable,
        };
        Err(Failure::new(exit, answer))
    }

    async fn tell_of_held(&self, account: AccountId) -> Result<(), Failure> {
        let held = self
            .app
            .store
            .held_deletions(&Selection { account: Some(account.0), ..Selection::default() })
            .await?;
        let open = held.iter().filter(|deletion| deletion.decision.is_none()).count();
        if open > 0 {
            output::say(format_args!(
                "account {account}: {} held for review: see `rosterd deletions list`",
                count(open, "deletion")
            ));
        }
        Ok(())
    }
}

/// The report of a read that was good.
fn finished(mut report: Report) -> Result<Report, Failure> {
    std::mem::replace(&mut report.outcome, Ok(()))?;
    Ok(report)
}

fn planned(report: &Report) -> String {
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
