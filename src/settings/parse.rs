//! Values that several sections have: URLs and addresses.

use std::net::SocketAddr;

use url::Url;

/// A URL without a slash at its end. The error names an `example`.
pub(super) fn base_url(text: &str, example: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
    let Some(mut url) = url else { return Err(format!("give a URL such as \"{example}\"")) };
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !bare {
        return Err("give a URL without user, password, ? and #".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "give an IP address and a port, such as \"127.0.0.1:8080\", or in a file \"\" for none".to_owned()
    })
}
