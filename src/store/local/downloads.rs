//! Server programs from another host, for machines that have none.
//!
//! The archives are those of <https://github.com/theseus-rs/postgresql-binaries>, which builds PostgreSQL for Rust's targets
//! so that it runs in any directory.

use std::path::{Path, PathBuf};

use reqwest::Url;

use super::data_dir::{DataDir, create_reachable, nearest_existing};
use super::error::LocalError;
use super::process::RunAs;
use crate::download::{self, Archive, Report};

/// The version of PostgreSQL and of its build, and its major version.
const VERSION: &str = "17.11.0";
const MAJOR: u32 = 17;

/// The targets, and the SHA-256 of their archives of [`VERSION`].
const ARCHIVES: [(&str, &str); 4] = [
    ("x86_64-unknown-linux-gnu", "b7a1ba6bae6499d8296e3e81b0171eecfd1766ca9aaa0057e41ad3e844e5e2e0"),
    ("aarch64-unknown-linux-gnu", "abffda09209280ec1502b73720dc4d254fb7fff9a072e324926c600a5b16c221"),
    ("x86_64-apple-darwin", "e43a81b15e1cfe7f9d8fd79c6d4d0366e9001a5f690e322224dca704656602f7"),
    ("aarch64-apple-darwin", "fd4b62794b160e26973a768a1eef3248aef9d2ff23ebd6d884a4299485e28e57"),
];

/// The target of this program, if archives exist for its operating system.
fn target() -> Option<String> {
    let system = match std::env::consts::OS {
        "linux" if cfg!(target_env = "gnu") => "unknown-linux-gnu",
        "macos" => "apple-darwin",
        _ => return None,
    };
    Some(format!("{}-{system}", std::env::consts::ARCH))
}

#[derive(Clone, Debug)]
pub struct DownloadOptions {
    /// rosterd appends `/VERSION/postgresql-VERSION-TARGET.tar.gz`, as GitHub names the files of a release.
    pub url: Url,
    /// The SHA-256 of another archive at this URL; `None` for the built-in one.
    pub sha256: Option<String>,
    /// The directory of downloaded programs; `None` for a directory in the data directory. If another user runs the
    /// server and cannot enter it, the data directory is used too.
    pub dir: Option<PathBuf>,
    /// Where progress appears.
    pub report: Report,
}

impl DownloadOptions {
    pub(super) fn dir(&self, data_dir: &DataDir, run_as: &RunAs) -> PathBuf {
        let reachable = self.dir.clone().filter(|dir| run_as.may_enter(nearest_existing(dir)));
        reachable.unwrap_or_else(|| data_dir.programs())
    }

    /// The archive for this machine, if it can have a cluster of this major version.
    pub(super) fn archive(&self, major: Option<u32>) -> Option<Archive> {
        let target = target()?;
        let sha256 = match &self.sha256 {
            Some(sha256) => sha256.clone(),
            None if major.is_some_and(|major| major != MAJOR) => return None,
            None => ARCHIVES.iter().find(|archive| archive.0 == target)?.1.to_owned(),
        };
        let mut url = self.url.clone();
        let file = format!("postgresql-{VERSION}-{target}.tar.gz");
        url.path_segments_mut().ok()?.pop_if_empty().extend([VERSION, file.as_str()]);
        Some(Archive { name: format!("PostgreSQL {VERSION}"), url, sha256 })
    }
}

/// Downloads the archive into the directory of downloaded programs, unless it is there.
pub(super) async fn install(
    archive: &Archive,
    dir: &Path,
    run_as: &RunAs,
    report: Report,
) -> Result<(), LocalError> {
    create_reachable(dir, run_as).map_err(|error| LocalError::files("create the directory", dir, error))?;
    // Another archive of the same version has another name.
    let digits: String = archive.sha256.chars().take(12).collect();
    let into = dir.join(format!("{VERSION}-{}", digits.to_ascii_lowercase()));
    download::install(archive, &into, report).await.map_err(LocalError::Download)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str, sha256: Option<&str>) -> DownloadOptions {
        let url = url.parse().unwrap();
        DownloadOptions { url, sha256: sha256.map(str::to_owned), dir: None, report: Report::Log }
    }

    #[test]
    fn each_target_has_one_checksum_of_64_digits() {
        for (at, (target, sha256)) in ARCHIVES.iter().enumerate() {
            assert!(sha256.len() == 64 && sha256.chars().all(|digit| digit.is_ascii_hexdigit()), "{target}");
            assert!(ARCHIVES[..at].iter().all(|other| other.0 != *target && other.1 != *sha256), "{target}");
        }
        assert!(VERSION.starts_with(&format!("{MAJOR}.")));
    }

    #[test]
    fn archive_has_the_name_of_the_release_below_the_url() {
        let target = target().unwrap();
        for base in ["https://mirror.example.com/postgres", "https://mirror.example.com/postgres/"] {
            let archive = options(base, None).archive(None).unwrap();
            let path = format!("postgres/{VERSION}/postgresql-{VERSION}-{target}.tar.gz");
            assert_eq!(archive.url.as_str(), format!("https://mirror.example.com/{path}"));
        }
    }

    #[test]
    fn cluster_of_another_version_needs_an_archive_with_its_checksum_in_the_settings() {
        let sha256 = "0".repeat(64);
        assert!(options("https://mirror.example.com", None).archive(Some(MAJOR)).is_some());
        assert!(options("https://mirror.example.com", None).archive(Some(15)).is_none());
        assert!(options("https://mirror.example.com", Some(&sha256)).archive(Some(15)).is_some());
    }
}
