//! `rosterd verify`: compares the mirror with Harvest.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::accounts::{self, AccountResult};
use super::findings::Findings;
use super::support::{DATABASE_WAIT, with_mirror};
use super::{output, signals};
use crate::app::{App, Exit, Failure};
use crate::harvest::Client;
use crate::settings::Settings;
use crate::sync::cycle::{Cycle, CycleMemory};
use crate::sync::mirror::verify::Verify;
use crate::sync::verify;
use crate::telemetry::count;

#[derive(Args)]
pub(super) struct Options {
    /// Verify only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Print both values, which are personal data
    #[arg(long)]
    values: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn verify(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    accounts::require(&settings, options.account)?;
    let differences = AtomicU64::new(0);
    signals::until_stopped(async |stop| {
        Box::pin(with_mirror(settings, async |app| {
            let limiter = app.budgets(App::replica(), DATABASE_WAIT).await?;
            let work = async |client: &Client| {
                let (found, result) = compare(app, client, &options, stop).await?;
                differences.fetch_add(found, Ordering::Relaxed);
                Ok(result)
            };
            accounts::for_each(app, limiter, options.account, options.json, work).await
        }))
        .await
    })
    .await?;
    Ok(if differences.into_inner() == 0 { ExitCode::SUCCESS } else { Exit::Differences.into() })
}

/// Prints or keeps the account's differences. Returns their number and the account's result.
async fn compare(
    app: &App,
    client: &Client,
    options: &Options,
    stop: &CancellationToken,
) -> Result<(u64, AccountResult), Failure> {
    let findings = Findings::new(options.json);
    let print = |finding| findings.add(finding);
    let mirror = Verify {
        store: &app.store,
        account: client.account(),
        values: options.values,
        print: &print,
        differences: AtomicU64::new(0),
        unconfirmed: Mutex::default(),
    };
    let cycle = Cycle {
        mirror: &mirror,
        client,
        clock: &*app.clock,
        rules: app.rules(),
        memory: &mut CycleMemory::default(),
        progress: &|_, _, _| (),
        cancel: stop,
    };
    let known = app.store.account_state(client.account()).await?;
    let report = verify::verify(cycle, known, app.settings.rates.histories).await;
    report.outcome?;
    let differences = mirror.differences.load(Ordering::Relaxed);
    output::message(format_args!(
        "account {}: {} and {} compared, {}",
        client.account(),
        count(report.users.seen, "user"),
        count(report.assignments.seen, "assignment"),
        count(differences, "difference")
    ));
    let result = json!({ "users": report.users.seen, "assignments": report.assignments.seen });
    let result = AccountResult::from(result).with_findings("differences", findings.into_inner());
    Ok((differences, result))
}
