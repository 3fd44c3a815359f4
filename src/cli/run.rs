//! `rosterd run`: the daemon.

use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{signals, with_opened};
use crate::app::{App, Failure};
use crate::settings::Settings;

/// How long the database may be away at the start.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn run(settings: Settings) -> Result<ExitCode, Failure> {
    settings.require_accounts()?;
    let asked = CancellationToken::new();
    signals::stop_on_signal(asked.clone())?;
    // The daemon cancels this one too, when one of its tasks has died.
    let stop = asked.child_token();
    let work = Box::pin(async {
        // Waiting for the database is nothing to finish.
        let Some(app) = stop.run_until_cancelled(App::open(settings, PATIENCE)).await else {
            return Ok(ExitCode::SUCCESS);
        };
        let app = app?;
        if let Some(local) = &app.local {
            tracing::info!(
                event = "postgres.private",
                "database.url is empty: rosterd uses a private PostgreSQL; `rosterd psql` opens it, as does: {}",
                local.psql_hint()
            );
        }
        with_opened(app, async |app| app.daemon(stop.clone()).await.map(|()| ExitCode::SUCCESS)).await
    });
    let late = || if asked.is_cancelled() { Ok(ExitCode::SUCCESS) } else { Err(Failure::task_died()) };
    let ended = signals::within_drain(&stop, work, late).await;
    tracing::info!(event = "daemon.stopped", "stopped");
    ended
}
