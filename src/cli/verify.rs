//! `rosterd verify`: is the mirror right?

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::accounts::{Document, Documents};
use super::findings::Findings;
use super::{PATIENCE, accounts, output, require_schema, signals, with_app};
use crate::app::{App, Exit, Failure};
use crate::harvest::Client;
use crate::settings::Settings;
use crate::sync::cycle::{Cycle, CycleError, Memory, Rules};
use crate::sync::verify::Verify;
use crate::telemetry::count;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Print both values (they are people's data)
    #[arg(long)]
    values: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn verify(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    accounts::require(&settings, options.account)?;
    let stop = CancellationToken::new();
    signals::stop_on_signal(stop.clone())?;
    let work = Box::pin(with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        let replica = App::replica();
        let budgets = app.budgets(replica.clone(), PATIENCE).await?;
        let rules = Rules { unshared: app.store.is_only_process(replica.id).await?, ..app.rules() };
        let differences = AtomicU64::new(0);
        let documents = Documents::new(options.json);
        let verified = documents.each(app, options.account, async |account| {
            let (found, document) =
                compare(app, &app.client(account, &budgets)?, &options, rules, &stop).await?;
            differences.fetch_add(found, Ordering::Relaxed);
            Ok(document)
        });
        let verified = verified.await;
        budgets.stop().await;
        documents.print().and(verified)?;
        match differences.into_inner() {
            0 => Ok(ExitCode::SUCCESS),
            _ => Ok(Exit::Differences.into()),
        }
    }));
    signals::within_drain(&stop, work, || Err(CycleError::Stopped.into())).await
}

/// Prints the differences, a line each; returns how many, and the account's JSON.
async fn compare(
    app: &App,
    client: &Client,
    options: &Options,
    rules: Rules,
    stop: &CancellationToken,
) -> Result<(u64, Document), Failure> {
    let findings = Findings::new(options.json);
    let print = |finding| findings.print(finding);
    let sink = Verify {
        store: &app.store,
        account: client.account(),
        values: options.values,
        print: &print,
        differences: AtomicU64::new(0),
        unsettled: Mutex::default(),
    };
    let cycle = Cycle {
        sink: &sink,
        client,
        clock: &*app.clock,
        rules,
        memory: &mut Memory::default(),
        progress: &|_, _, _| (),
        cancel: stop,
    };
    let known = app.store.account_state(client.account()).await?;
    let report = cycle.verify(known, app.settings.rates.histories).await;
    report.outcome?;
    let differences = sink.differences.load(Ordering::Relaxed);
    output::say(format_args!(
        "account {}: {} and {} compared, {}",
        client.account(),
        count(report.users.seen, "user"),
        count(report.assignments.seen, "assignment"),
        count(differences, "difference")
    ));
    let document = json!({ "users": report.users.seen, "assignments": report.assignments.seen });
    Ok((differences, Document::from(document).with("differences", findings.into_inner())))
}
