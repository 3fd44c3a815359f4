//! Wakes the worker of an account before its next poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Any login of the database can send `NOTIFY roster_sync`. It makes a worker query the database no more often than this.
const QUERY_SPACING: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Wake {
    notification: Notify,
    at_once: AtomicBool,
}

impl Wake {
    /// There may be something to do: the worker looks for requests and, if there are none, polls within five seconds.
    pub fn notify(&self) {
        self.notification.notify_one();
    }

    /// An administrator, or this process itself, wants a cycle now.
    pub fn poll_at_once(&self) {
        self.at_once.store(true, Ordering::Relaxed);
        self.notification.notify_one();
    }

    /// Waits for either.
    pub async fn notified(&self) {
        self.notification.notified().await;
    }

    /// Waits for either, for at least a second after a worker has `looked`, unless it must poll at once.
    pub async fn notified_after(&self, looked: Instant) {
        self.notification.notified().await;
        if !self.at_once.load(Ordering::Relaxed) {
            sleep_until(looked + QUERY_SPACING).await;
        }
    }

    /// Whether [`Wake::poll_at_once`] was called since the last time.
    pub fn take_at_once(&self) -> bool {
        self.at_once.swap(false, Ordering::Relaxed)
    }
}

#[derive(Clone, Copy)]
pub struct ReadUntil<'a> {
    /// When the next poll is due.
    pub deadline: Instant,
    /// A notification ends the reads too.
    pub wake: &'a Wake,
}

/// Reads get this much time even if the next poll is due already.
const MIN_READ_TIME: Duration = Duration::from_secs(1);

impl ReadUntil<'_> {
    /// When the reads end at the latest.
    pub(super) fn end(&self) -> Instant {
        self.deadline.max(Instant::now() + MIN_READ_TIME)
    }
}
