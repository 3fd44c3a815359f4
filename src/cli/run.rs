//! `rosterd run`: the daemon.

use super::signals;
use super::support::with_opened;
use crate::app::{App, DATABASE_WAIT_AT_START, Failure};
use crate::settings::Settings;

pub(super) async fn run(settings: Settings) -> Result<(), Failure> {
    settings.require_accounts()?;
    let signalled = signals::stop_on_signal()?;
    // If one of its tasks dies, the daemon cancels the child token only.
    let stop = signalled.child_token();
    let work = Box::pin(async {
        // A signal during this wait ends the process at once: there is no work to finish.
        let opening = App::open(settings, DATABASE_WAIT_AT_START);
        let Some(app) = stop.run_until_cancelled(Box::pin(opening)).await else { return Ok(()) };
        let app = app?;
        if let Some(local) = &app.local {
            tracing::info!(
                event = "postgres.private",
                "database.url is empty, so rosterd uses a private PostgreSQL; open it with `rosterd psql` or: {}",
                local.psql_hint()
            );
        }
        with_opened(app, async |app| app.daemon(stop.clone()).await).await
    });
    let at_drain_limit = || if signalled.is_cancelled() { Ok(()) } else { Err(Failure::task_died()) };
    let ended = signals::within_drain_limit(&stop, work, at_drain_limit).await;
    tracing::info!(event = "daemon.stopped", "stopped");
    ended
}
