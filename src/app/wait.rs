//! Waits for a database that is temporarily unavailable.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::failure::Failure;

const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Repeats `attempt` for up to `limit` while its error `is_temporary`. Logs the wait once: after the first failure, or
/// if an attempt takes longer than `log_after`.
pub(super) async fn for_database<E>(
    limit: Duration,
    log_after: Duration,
    is_temporary: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<(), E>,
) -> Result<(), Failure>
where
    Failure: From<E>,
{
    let deadline = Instant::now() + limit;
    let mut is_logged = false;
    let mut log = |failure: Option<&Failure>| {
        if !std::mem::replace(&mut is_logged, true) {
            let seconds = limit.as_secs();
            tracing::warn!(
                error = failure.map(Failure::chain),
                "waiting for the database for up to {seconds} s"
            );
        }
    };
    loop {
        let mut running = std::pin::pin!(attempt());
        let result = if let Ok(result) = timeout(log_after, &mut running).await {
            result
        } else {
            log(None);
            running.await
        };
        let Err(error) = result else { return Ok(()) };
        let may_retry = is_temporary(&error) && Instant::now() < deadline;
        let failure = Failure::from(error);
        if !may_retry {
            return Err(failure);
        }
        log(Some(&failure));
        sleep(RETRY_INTERVAL).await;
    }
}
