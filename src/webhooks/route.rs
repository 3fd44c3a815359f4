//! Whether the receiver of an endpoint has an address. Nothing is sent.

use std::time::Duration;

use reqwest::Url;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::outbound;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) enum Route {
    Direct,
    /// Through this proxy, which looks the host up.
    Proxy(String),
}

/// The route to the receiver; `None` if its host has no address.
pub(crate) async fn find(url: &Url) -> Option<Route> {
    if let Some(proxy) = outbound::proxy(url) {
        return Some(Route::Proxy(proxy));
    }
    let host = url.host_str()?.trim_matches(['[', ']']);
    let found = timeout(TIMEOUT, lookup_host((host, url.port_or_known_default()?))).await;
    found.ok()?.ok()?.next().map(|_| Route::Direct)
}
