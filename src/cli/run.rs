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
    let stop = CancellationToken::new();
    signals::stop_on_signal(stop.clone())?;
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
    let ended = signals::within_drain(&stop, work, Ok(ExitCode::SUCCESS)).await;
    tracing::info!(event = "daemon.stopped", "stopped");
    ended
}
