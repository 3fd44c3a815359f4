//! What systemd is told where it started us (`Type=notify`, `WatchdogSec`): that we are ready, turn, and stop. Elsewhere
//! all of it does nothing.

use sd_notify::NotifyState;
use tokio::time::{Instant, interval};

use crate::sync::health::Health;

/// Settings, database and listener are good; what follows may take as long as it takes.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Stopping was asked for.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the daemon turns for as long as `/livez` would, for ever.
pub(super) async fn turning(health: Health) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|it| !it.is_zero()) else {
        return std::future::pending().await;
    };
    let mut beats = interval(patience / 3);
    loop {
        beats.tick().await;
        if health.is_alive(Instant::now()) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "could not notify the service manager");
    }
}
