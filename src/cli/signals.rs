//! Signals. The first SIGTERM or SIGINT stops the work in order, the second one ends the process at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{Exit, Failure};
use crate::sync::error::CycleError;
use crate::telemetry;

/// Exit codes of a process that a second signal ends: 128 plus the number of the signal.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// How long the work may take to stop. Work that still runs then, such as a statement that waits for another session's
/// lock, is dropped, which is safe at any point.
///
/// A process must exit within ten seconds. Dropping the private PostgreSQL may take another 1.1 s, and writing the last
/// lines of the log another second.
const DRAIN_LIMIT: Duration = Duration::from_millis(7500);
/// How long a second signal waits for the last lines of the log to be written.
const LOG_FLUSH_LIMIT: Duration = Duration::from_millis(100);

pub(super) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Internal, error))
}

/// Returns a token that the first SIGTERM or SIGINT cancels. The second one ends the process at once.
pub(super) fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => TERMINATED,
                _ = interrupt.recv() => INTERRUPTED,
            };
            if stop.is_cancelled() {
                telemetry::flush(LOG_FLUSH_LIMIT);
                #[expect(
                    clippy::exit,
                    clippy::disallowed_methods,
                    reason = "a second signal asks for an immediate end"
                )]
                std::process::exit(code);
            }
            stop.cancel();
            tracing::info!("stopping; a second signal stops at once");
        }
    });
    Ok(token)
}

/// Does the work of a command, with a token that the first signal cancels.
///
/// # Errors
/// If the work still runs at the drain limit.
pub(super) async fn until_stopped<T>(
    work: impl AsyncFnOnce(&CancellationToken) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let stop = stop_on_signal()?;
    within_drain_limit(&stop, Box::pin(work(&stop)), || Err(CycleError::Stopped.into())).await
}

/// From now on SIGHUP does not end the process. It has no effect until the daemon listens for it.
pub(super) fn ignore_hangup() -> Result<(), Failure> {
    listen(SignalKind::hangup()).map(drop)
}

/// Does the work. If it still runs [`DRAIN_LIMIT`] after `stop` was cancelled, drops it and returns `at_limit`.
pub(super) async fn within_drain_limit<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
    at_limit: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let limit = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        ended = work => ended,
        () = limit => {
            tracing::warn!(
                "not all work stopped within {} s: the rest was dropped and will be repeated",
                DRAIN_LIMIT.as_secs_f32()
            );
            at_limit()
        }
    }
}
