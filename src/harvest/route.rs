//! How requests get out: by which proxy, and whose certificates are trusted. Both come from the environment, as for
//! other programs.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{ClientBuilder, Url, redirect, retry};

/// The way to one host.
#[derive(Clone)]
pub(super) struct Route {
    /// Host and port, without user and password; `None` where requests go straight to the host.
    proxy: Option<String>,
    is_loopback: bool,
}

/// No HTTP client: nearly always for want of certificate authorities.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up TLS; install this machine's certificate authorities (the package ca-certificates), or name a file of \
     them in SSL_CERT_FILE"
)]
pub struct NoTls(#[source] reqwest::Error);

impl Route {
    /// What the environment says of the way to the host of `base`.
    pub fn to(base: &Url) -> Self {
        let is_loopback = is_loopback(base);
        let proxy = || {
            let proxy = Matcher::from_system().intercept(&base.as_str().parse().ok()?)?;
            let port = proxy.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}{port}", proxy.uri().host()?))
        };
        Self { proxy: if is_loopback { None } else { proxy() }, is_loopback }
    }

    /// A client that sends nothing but what it is told to, and no token where we did not look.
    pub fn client(
        &self,
        timeout: Duration,
        build: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<reqwest::Client, NoTls> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .redirect(redirect::Policy::none())
            .retry(retry::never());
        build(if self.is_loopback { http.no_proxy() } else { http }).build().map_err(NoTls)
    }

    /// What to do about a request that got no answer. `key`: the setting that names the host.
    pub fn advice(&self, error: &reqwest::Error, key: &str) -> String {
        let check = if is_untrusted(error) {
            format!(
                "this machine does not trust the certificate that was shown; check {key}, or if a proxy intercepts TLS, name \
                 a file of certificate authorities with the proxy's in SSL_CERT_FILE"
            )
        } else {
            format!("check the network and {key}")
        };
        check + &self.proxy_note()
    }

    /// What to know of proxies, to be added to a sentence.
    pub fn proxy_note(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!(
                "; the request went through the proxy {proxy}, which HTTPS_PROXY or ALL_PROXY names (NO_PROXY lists hosts to \
                 reach without it)"
            ),
            None if self.is_loopback => String::new(),
            None => "; if this network needs a proxy, name it in HTTPS_PROXY".to_owned(),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Whether TLS failed for the server's certificate. An I/O error does not name what it holds as its source.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    held.is_some_and(|held| is_untrusted(held)) || error.source().is_some_and(is_untrusted)
}
