//! The connection to a host: the proxy and the trusted certificate authorities, which both come from the environment.

use std::error::Error;
use std::time::Duration;

use reqwest::{ClientBuilder, Url};

use crate::outbound::{self, NoTls, is_loopback};

/// How requests reach one host.
#[derive(Clone)]
pub(super) struct Route {
    /// Host and port, without user and password; `None` without a proxy.
    proxy: Option<String>,
    is_loopback: bool,
}

impl Route {
    /// The route to the host of `base`, from the environment.
    pub fn to(base: &Url) -> Self {
        Self { proxy: outbound::proxy(base), is_loopback: is_loopback(base) }
    }

    /// A client that neither follows redirects nor repeats requests, so that a token reaches no other host.
    pub fn client(
        &self,
        timeout: Duration,
        build: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<reqwest::Client, NoTls> {
        let connecting = timeout.min(Duration::from_secs(10));
        outbound::client(self.is_loopback, |http| build(http.timeout(timeout).connect_timeout(connecting)))
    }

    /// The fix for a request without a response. `key`: the setting that names the host.
    pub fn advice(&self, error: &reqwest::Error, key: &str) -> String {
        let check = if is_untrusted(error) {
            format!(
                "this machine does not trust the certificate that was shown; check {key}, or if a proxy intercepts \
                 TLS, name a file of certificate authorities with the proxy's in SSL_CERT_FILE"
            )
        } else {
            format!("check the network and {key}")
        };
        check + &self.proxy_note()
    }

    /// A note about proxies, to append to an error message.
    pub fn proxy_note(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!(
                "; the request went through the proxy {proxy}, which HTTPS_PROXY or ALL_PROXY names (NO_PROXY lists \
                 hosts to reach without it)"
            ),
            None if self.is_loopback => String::new(),
            None => "; if this network needs a proxy, name it in HTTPS_PROXY".to_owned(),
        }
    }
}

/// The address of this path below a base URL.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    url
}

/// Whether TLS failed because of the server's certificate.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let is_it = |error: &(dyn Error + 'static)| {
        matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
    };
    outbound::has_cause(error, &is_it)
}
