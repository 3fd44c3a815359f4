//! Why an archive was not installed. The caller says what to do instead.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;

use crate::outbound::NoTls;

/// Why an archive was not installed. Names the host, never the path of the URL.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error(transparent)]
    NoTls(#[from] NoTls),

    #[error("cannot reach {host}; check the network and the proxy (HTTPS_PROXY, NO_PROXY)")]
    Unreachable { host: String, source: reqwest::Error },

    #[error("{host} answered {status}; check that it has this archive")]
    Status { host: String, status: StatusCode },

    #[error("{host} ended the download after {received} bytes{}; try again", of(*.expected))]
    Cut { host: String, received: u64, expected: Option<u64>, source: Option<reqwest::Error> },

    #[error("the archive of {host} has more than {limit} bytes; it was removed")]
    TooLarge { host: String, limit: u64 },

    #[error(
        "the archive of {host} has the SHA-256 {actual} instead of {expected}; it was removed, because the file or the \
         connection was changed"
    )]
    Checksum { host: String, expected: String, actual: String },

    #[error("the archive cannot be unpacked: {reason}; it was removed")]
    Archive { reason: String },

    #[error("cannot {doing} {path}; check that the disk has space and that rosterd's user may write there")]
    Files { doing: &'static str, path: PathBuf, source: io::Error },

    #[error(
        "another process has been downloading for 15 minutes; it locks {path}; stop it, or wait and try again"
    )]
    Busy { path: PathBuf },
}

impl DownloadError {
    pub(super) fn files(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Files { doing, path: path.to_owned(), source }
    }

    /// Whether another attempt can succeed without a change on this machine.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { .. } | Self::Cut { .. } | Self::Busy { .. })
    }
}

fn of(expected: Option<u64>) -> String {
    expected.map(|bytes| format!(" of {bytes}")).unwrap_or_default()
}
