//! Acquires an account's lease, or delegates the request to the process that holds the lease.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::store::Fence;
use crate::store::lease::Lease;
use crate::store::requests::{Outcome, Progress, RequestKind};
use crate::sync::error::CycleError;

/// How long the lease holder may take to begin the request.
const BEGIN_TIMEOUT: Duration = Duration::from_mins(1);
/// How much longer than a lease lasts the command waits for the lease of a holder that has crashed.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How often the command reads the progress of the request.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(300);

pub(super) enum Runner {
    /// This process, which has acquired the lease.
    This(Fence),
    /// The lease holder, which has run the cycle and sent this answer.
    Holder(Outcome, String),
}

/// Acquires the lease as soon as it is free: at once, or when the lease of a holder that has crashed expires. Until then
/// asks the holder to run the cycle.
pub(super) async fn acquire_or_delegate(
    app: &App,
    account: AccountId,
    replica: Uuid,
    kind: RequestKind,
    stop: &CancellationToken,
) -> Result<Runner, Failure> {
    let deadline = Instant::now() + BEGIN_TIMEOUT.max(app.settings.lease.ttl + LEASE_MARGIN);
    let mut request = None;
    loop {
        let lease = tokio::select! {
            lease = app.store.acquire(account, replica) => lease?,
            () = stop.cancelled() => {
                withdraw(app, request).await;
                return Err(CycleError::Stopped.into());
            }
        };
        let holder = match lease {
            Lease::Acquired(fence) => {
                withdraw(app, request).await;
                return Ok(Runner::This(fence));
            }
            Lease::Held { by } => by,
        };
        let id = match request {
            Some(id) => id,
            None => *request.insert(app.store.submit_request(account, kind).await?),
        };
        match app.store.progress(id).await? {
            Progress::Done(outcome, answer) => return Ok(Runner::Holder(outcome, answer)),
            Progress::Waiting if Instant::now() >= deadline => {
                withdraw(app, request).await;
                let advice = format!(
                    "another rosterd ({holder}) is active for account {account} and does not answer; leave the sync to it, \
                     or stop it and run the command again"
                );
                return Err(Failure::new(Exit::Busy, advice));
            }
            Progress::Waiting | Progress::Taken => tokio::time::sleep(PROGRESS_INTERVAL).await,
        }
    }
}

/// Removes the request. If that fails, the row stays and is deleted after a day.
async fn withdraw(app: &App, request: Option<i64>) {
    if let Some(request) = request {
        let _ = app.store.withdraw(request).await;
    }
}
