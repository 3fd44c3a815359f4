//! `rosterd health`: asks the local listener, so that an image needs no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output;
use crate::app::{Exit, Failure};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Ask whether it is ready (fresh), not only whether it lives
    #[arg(long)]
    ready: bool,
}

pub(super) async fn health(settings: &Settings, options: &Options) -> Result<ExitCode, Failure> {
    let Some(mut address) = settings.http.listen else {
        return Err(Failure::new(
            Exit::Settings,
            "http.listen is \"\", so there is nobody to ask; set it to an address",
        ));
    };
    // Listening everywhere, it also listens here.
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
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build().map_err(unavailable)?;
    let response = client.get(&url).send().await.map_err(unavailable)?;
    let well = response.status().is_success();
    output::line(response.text().await.map_err(unavailable)?.trim_end())?;
    Ok(if well { ExitCode::SUCCESS } else { Exit::Unavailable.into() })
}
