//! Downloads an archive into a file and verifies it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use reqwest::{Url, redirect};
use ring::digest::{Context, SHA256};

use super::error::DownloadError;
use super::progress::Progress;
use super::source::Archive;
use crate::outbound;

/// In bytes. The largest archive of PostgreSQL has about 40 MB.
const MAX_ARCHIVE_BYTES: u64 = 500_000_000;
/// Limits of connecting, and of each wait for the next bytes. A large archive on a slow line may take long in all.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const READ_LIMIT: Duration = Duration::from_mins(1);
/// Hosts of releases redirect to their storage.
const MAX_REDIRECTS: usize = 5;

/// Downloads the archive into the new file `path`, and verifies its checksum.
pub(super) async fn fetch(
    archive: &Archive,
    path: &Path,
    mut progress: Progress<'_>,
) -> Result<(), DownloadError> {
    let host = archive.url.host_str().unwrap_or_default().to_owned();
    let unreachable = |source: reqwest::Error| DownloadError::Unreachable {
        host: host.clone(),
        source: source.without_url(),
    };
    let response = client(&archive.url)?.get(archive.url.clone()).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(DownloadError::Status { host, status: response.status() });
    }
    let expected = response.content_length();
    progress.begin(&host, expected);

    let failed = |error| DownloadError::files("write", path, error);
    let mut file = File::create(path).map_err(failed)?;
    let (mut response, mut digest, mut received) = (response, Context::new(&SHA256), 0_u64);
    loop {
        let cut = |source: Option<reqwest::Error>| DownloadError::Cut {
            host: host.clone(),
            received,
            expected,
            source: source.map(reqwest::Error::without_url),
        };
        let Some(bytes) = response.chunk().await.map_err(|error| cut(Some(error)))? else {
            if expected.is_some_and(|expected| expected != received) {
                return Err(cut(None));
            }
            break;
        };
        received += bytes.len() as u64;
        if received > MAX_ARCHIVE_BYTES {
            return Err(DownloadError::TooLarge { host, limit: MAX_ARCHIVE_BYTES });
        }
        digest.update(&bytes);
        file.write_all(&bytes).map_err(failed)?;
        progress.received(received);
    }
    file.flush().map_err(failed)?;

    let actual = digest.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    if actual.eq_ignore_ascii_case(&archive.sha256) {
        Ok(())
    } else {
        Err(DownloadError::Checksum { host, expected: archive.sha256.clone(), actual })
    }
}

/// Follows redirects, because the request has no secret, but never from https to http.
fn client(url: &Url) -> Result<reqwest::Client, DownloadError> {
    let is_https = url.scheme() == "https";
    let client = outbound::client(outbound::is_loopback(url), |http| {
        http.redirect(redirect::Policy::limited(MAX_REDIRECTS))
            .https_only(is_https)
            // A server that marks the file as compressed would have it decompressed, and the checksum would differ.
            .no_gzip()
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(READ_LIMIT)
            .user_agent(concat!("rosterd/", env!("CARGO_PKG_VERSION")))
    });
    Ok(client?)
}
