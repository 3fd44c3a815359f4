//! Looks at the database's timeline after each heartbeat, so that a promoted standby is found, and compared with what this
//! process knows, before its leases expire.

use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::limiter::HeartbeatStatus;
use crate::store::Store;

/// Time between attempts while the database is unavailable or other lease holders have not confirmed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the future is dropped.
pub(crate) async fn watch(store: Store, replica: Uuid, mut heartbeats: watch::Receiver<HeartbeatStatus>) {
    loop {
        // The heartbeat and the workers report errors.
        if store.observe_timeline(replica).await.is_err() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        } else if heartbeats.changed().await.is_err() {
            // The limiter task has ended, so the daemon stops.
            std::future::pending::<()>().await;
        }
    }
}
