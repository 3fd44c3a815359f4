//! `rosterd verify`: is the mirror right?

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, output, require_schema, signals, with_app};
use crate::app::{App, Exit, Failure};
use crate::settings::Settings;
use crate::sync::cycle::{Cycle, CycleError, Memory};
use crate::sync::schedule::Mode;
use crate::sync::verify::Verify;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Print both values (they are people's data)
    #[arg(long)]
    values: bool,
}

pub(super) async fn verify(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
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
        require_schema(app).await?;
        let budgets = app.budgets(App::replica(), PATIENCE).await?;
        let (mut failed, mut differences) = (None, 0);
        for account in app.settings.accounts() {
            if options.account.is_some_and(|only| only != account.id) {
                continue;
            }
            let verified = async {
                let client = app.client(account, &budgets)?;
                compare(app, &client, &options, &stop).await
            };
            match (verified.await, &failed) {
                (Ok(more), _) => differences += more,
                (Err(failure), None) => failed = Some(failure),
                (Err(failure), Some(_)) => output::say(format_args!("rosterd: {failure}")),
            }
        }
        budgets.stop().await;
        match failed {
            Some(failure) => Err(failure),
            None if differences > 0 => Ok(Exit::Differences.into()),
            None => Ok(ExitCode::SUCCESS),
        }
    }));
    signals::within_drain(&stop, work, Err(CycleError::Stopped.into())).await
}

/// Prints the differences, a line each; tells how many.
async fn compare(
    app: &App,
    client: &crate::harvest::Client,
    options: &Options,
    stop: &CancellationToken,
) -> Result<u64, Failure> {
    // What cannot be written here is told with the summary.
    let print = |line: &str| drop(output::line(line));
    let sink = Verify {
        store: &app.store,
        account: client.account(),
        values: options.values,
        print: &print,
        differences: AtomicU64::new(0),
    };
    let cycle = Cycle {
        sink: &sink,
        client,
        clock: &*app.clock,
        rules: app.rules(),
        memory: &mut Memory::default(),
        progress: &|_, _, _| (),
        cancel: stop,
    };
    let report = cycle.run(Mode::Full).await;
    report.outcome?;
    let differences = sink.differences.load(Ordering::Relaxed);
    output::say(format_args!(
        "account {}: {} users and {} assignments compared, {differences} differences",
        client.account(),
        report.users.seen,
        report.assignments.seen
    ));
    Ok(differences)
}
