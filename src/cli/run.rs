//! `rosterd run`: the daemon.

use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{signals, with_app};
use crate::app::Failure;
use crate::settings::Settings;

/// How long the database may be away at the start.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn run(settings: Settings) -> Result<ExitCode, Failure> {
    settings.require_accounts()?;
    let stop = CancellationToken::new();
    signals::stop_on_signal(stop.clone())?;
    let work = Box::pin(with_app(settings, PATIENCE, async |app| {
        app.daemon(stop.clone()).await.map(|()| ExitCode::SUCCESS)
    }));
    let ended = signals::within_drain(&stop, work, Ok(ExitCode::SUCCESS)).await;
    tracing::info!(event = "daemon.stopped", "stopped");
    ended
}
