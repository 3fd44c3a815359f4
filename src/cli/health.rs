//! `rosterd health`: asks the daemon's HTTP endpoint, so that a container image needs no HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output;
use crate::app::{Exit, Failure};
use crate::settings::Settings;

/// How long the daemon may take to answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct Options {
    /// Ask whether the mirror is fresh, not only for a response
    #[arg(long)]
    ready: bool,
}

pub(super) async fn health(settings: &Settings, options: &Options) -> Result<ExitCode, Failure> {
    let Some(mut address) = settings.http.listen else {
        return Err(Failure::new(
            Exit::Settings,
            "http.listen is empty, so the daemon has no health endpoint; set http.listen to an address",
        ));
    };
    // A daemon that listens on all addresses also listens on the loopback address.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let url = format!("http://{address}/{}", if options.ready { "readyz" } else { "livez" });
    let unavailable = |error: reqwest::Error| {
        Failure::new(
            Exit::Unavailable,
            format!("no daemon answers at {url} ({}); is `rosterd run` running?", error.without_url()),
        )
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        reqwest::Client::builder().no_proxy().timeout(RESPONSE_TIMEOUT).build().map_err(unavailable)?;
    let response = client.get(&url).send().await.map_err(unavailable)?;
    let is_healthy = response.status().is_success();
    output::print(response.text().await.map_err(unavailable)?.trim_end())?;
    Ok(if is_healthy { ExitCode::SUCCESS } else { Exit::Unavailable.into() })
}
