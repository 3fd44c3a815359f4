//! A dead man's switch: requests a URL after successful cycles, so that a monitoring service alerts if the requests stop.
//!
//! The rule of [`concerns`] decides between the URL and its `/fail`. It looks at the database, so that an instance whose
//! own cycles succeed does not hide an account that no instance reads. If the database does not answer, nothing is
//! requested.

use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{sleep, timeout};

use super::health::Health;
use crate::outbound;
use crate::store::Store;
use crate::sync::concerns::{Limits, Severity, concerns};
use crate::telemetry::chain;

/// The shortest time between two requests of the daemon.
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Requests the two URLs. They contain a secret, so there is no `Debug`.
pub struct PingClient {
    http: reqwest::Client,
    success: Url,
    fail: Url,
}

impl PingClient {
    /// `url` was checked when the settings were read.
    ///
    /// # Errors
    /// If TLS cannot be set up. The message does not contain the URL.
    pub fn new(url: &SecretString) -> Result<Self, String> {
        let invalid = "the URL in the file of monitoring.ping_url_file is not valid";
        let success = Url::parse(url.expose_secret()).map_err(|_| invalid)?;
        let mut fail = success.clone();
        fail.path_segments_mut().map_err(|()| invalid)?.pop_if_empty().push("fail");
        let agent = concat!("rosterd/", env!("CARGO_PKG_VERSION"));
        // Plain http goes to this machine only.
        let http =
            outbound::client(success.scheme() == "http", |http| http.timeout(TIMEOUT).user_agent(agent));
        let http = http.map_err(|error| chain(&error))?;
        Ok(Self { http, success, fail })
    }

    async fn send(&self, is_critical: bool) -> Result<(), String> {
        let url = if is_critical { &self.fail } else { &self.success };
        let response = self.http.get(url.clone()).send().await;
        let response = response.map_err(|error| chain(&error.without_url()))?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(format!("the server answered {}", response.status()))
        }
    }
}

/// Runs until the future is dropped. Sends at most one request in each `interval`.
pub async fn run(client: PingClient, store: Store, health: Health, limits: Limits, interval: Duration) {
    let mut is_failing = false;
    loop {
        // Without a successful cycle, only a critical concern is reported.
        let is_successful = timeout(interval, health.cycle_succeeded()).await.is_ok();
        let Ok(status) = store.status_without_counts().await else {
            sleep(interval).await;
            continue;
        };
        let is_critical =
            concerns(&status, &limits).iter().any(|concern| concern.severity == Severity::Critical);
        if !is_successful && !is_critical {
            continue;
        }
        let error = client.send(is_critical).await.err();
        match (std::mem::replace(&mut is_failing, error.is_some()), error) {
            (false, Some(error)) => tracing::warn!(
                event = "ping.failed",
                error,
                "the request to the URL of monitoring.ping_url_file failed; rosterd tries again every minute"
            ),
            (true, None) => {
                tracing::info!(event = "ping.recovered", "the URL of monitoring.ping_url_file answers again");
            }
            _ => {}
        }
        sleep(interval).await;
    }
}
