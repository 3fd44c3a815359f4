//! What all requests to other hosts share: a client that neither follows redirects nor repeats requests, the times that
//! a response names, and a bounded body.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{ClientBuilder, Response, Url, redirect, retry};

/// The HTTP client could not be built, usually because the machine has no certificate authorities.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up TLS; install this machine's certificate authorities (the package ca-certificates), or name a file \
     of them in SSL_CERT_FILE"
)]
pub struct NoTls(#[source] reqwest::Error);

/// A client that neither follows redirects nor repeats requests, so that a secret reaches no other host. `is_loopback`:
/// its hosts are this machine, which no proxy can reach.
///
/// # Errors
/// If the machine has no certificate authorities.
pub(crate) fn client(
    is_loopback: bool,
    build: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<reqwest::Client, NoTls> {
    // Fails if a provider is installed already; then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().redirect(redirect::Policy::none()).retry(retry::never());
    build(if is_loopback { http.no_proxy() } else { http }).build().map_err(NoTls)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Host and port of the proxy for this URL, without user and password, from the environment.
pub(crate) fn proxy(url: &Url) -> Option<String> {
    if is_loopback(url) {
        return None;
    }
    let proxy = Matcher::from_system().intercept(&url.as_str().parse().ok()?)?;
    let port = proxy.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}{port}", proxy.uri().host()?))
}

/// The host's clock when the request was sent: the response's `Date` minus the duration of the request.
pub fn server_time(headers: &HeaderMap, elapsed: Duration) -> Option<DateTime<Utc>> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(DateTime::<Utc>::from(date) - TimeDelta::from_std(elapsed).ok()?)
}

/// The response's `Retry-After`: whole seconds, or an HTTP date, from which `now` is subtracted, preferably the `Date` of
/// the same response. `None` for any other value.
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::<Utc>::from(httpdate::parse_http_date(header).ok()?);
    Some((date - now).to_std().unwrap_or_default())
}

/// Whether the error or one of its causes is such an error. `source()` of an I/O error skips the error that it wraps.
pub(crate) fn has_cause(
    error: &(dyn Error + 'static),
    is_it: &dyn Fn(&(dyn Error + 'static)) -> bool,
) -> bool {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    is_it(error)
        || wrapped.is_some_and(|error| has_cause(error, is_it))
        || error.source().is_some_and(|error| has_cause(error, is_it))
}

/// Why a body was not read to its end.
pub(crate) enum BodyError {
    Network(reqwest::Error),
    TooLong,
}

/// The body, if it has at most `limit` bytes after decompression.
pub(crate) async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(BodyError::Network)? {
        if body.len() + bytes.len() > limit {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use reqwest::header::HeaderValue;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn server_time_is_the_date_minus_the_duration_of_the_request() {
        let date = |value| HeaderMap::from_iter([(DATE, HeaderValue::from_static(value))]);
        let expected = "2026-03-01T10:00:05Z".parse().ok();
        assert_eq!(server_time(&date("Sun, 01 Mar 2026 10:00:07 GMT"), 2 * SECOND), expected);
        assert_eq!(server_time(&date("yesterday"), Duration::ZERO), None);
    }

    #[test]
    fn retry_after_accepts_seconds_and_dates() {
        let now = Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 0).unwrap();
        let parse =
            |value| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]), now);
        assert_eq!(parse(" 15 "), Some(15 * SECOND));
        assert_eq!(parse("Sun, 01 Mar 2026 12:00:20 GMT"), Some(20 * SECOND));
        assert_eq!(parse("Sun, 01 Mar 2026 11:00:00 GMT"), Some(Duration::ZERO), "already past");
        for invalid in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(parse(invalid), None, "{invalid:?}");
        }
    }
}
