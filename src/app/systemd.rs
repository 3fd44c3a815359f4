//! Notifications to systemd (`Type=notify`, `WatchdogSec`). If systemd did not start the process, they do nothing.

use sd_notify::NotifyState;
use tokio::time::{Instant, interval};

use crate::daemon::health::Health;

/// The settings are valid, the database is prepared, and the HTTP server listens.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Notifies the watchdog while `/livez` succeeds. Never ends.
pub(super) async fn notify_watchdog(health: Health) {
    let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(timeout / 3);
    loop {
        ticks.tick().await;
        if health.is_alive(Instant::now()) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "could not notify the service manager");
    }
}
