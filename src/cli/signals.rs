//! The first signal asks to stop, the second insists.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{Exit, Failure};
use crate::telemetry;

/// Exit codes of a process that a second signal ends: 128 and the signal's number.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// How long stopping may take; what still runs then (a statement behind somebody's lock) is dropped, which is safe
/// anywhere.
///
/// A process must exit within ten seconds: dropping the private PostgreSQL may take 1.1 s more, and writing the last lines
/// of the log another second.
const DRAIN: Duration = Duration::from_millis(7500);
/// How long a second signal waits for the log's last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(100);

/// From here on SIGTERM and SIGINT cancel `stop`; a second one ends the process at once.
pub(super) fn stop_on_signal(stop: CancellationToken) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::new(Exit::Internal, error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => TERMINATED,
                _ = interrupt.recv() => INTERRUPTED,
            };
            if stop.is_cancelled() {
                telemetry::flush(LAST_LINES);
                #[expect(
                    clippy::exit,
                    clippy::disallowed_methods,
                    reason = "a second signal asks for just this"
                )]
                std::process::exit(code);
            }
            stop.cancel();
            tracing::info!("stopping; a second signal stops at once");
        }
    });
    Ok(())
}

/// From here on SIGHUP does not end the process. Until the daemon listens for it, it has no other effect.
pub(super) fn survive_hangup() -> Result<(), Failure> {
    signal(SignalKind::hangup()).map(drop).map_err(|error| Failure::new(Exit::Internal, error))
}

/// The work, but no longer than it may take to stop once `stop` is cancelled: then `late`.
pub(super) async fn within_drain(
    stop: &CancellationToken,
    work: impl Future<Output = Result<ExitCode, Failure>>,
    late: impl FnOnce() -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = work => ended,
        () = overdue => {
            tracing::warn!("not everything stopped in time; what was left is dropped and will be done again");
            late()
        }
    }
}
