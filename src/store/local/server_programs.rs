//! Finds the server's programs. Most systems do not have them on the PATH, and each has them elsewhere. Programs of the
//! machine precede downloaded ones.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::data_dir::DataDir;
use super::error::LocalError;
use super::process::{RunAs, run};
use crate::store::postgres_versions::SUPPORTED;

/// The programs of a complete set. A directory with `postgres` alone may hold a wrapper or remains of a package.
const REQUIRED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];
/// The longest run of a program that prints its version or directory.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// The directories of common packages, relative to the root directory; `*` stands for a version.
const PACKAGE_DIRS: [&str; 7] = [
    "usr/lib/postgresql/*/bin", // Debian, Ubuntu
    "usr/pgsql-*/bin",          // the PostgreSQL project's packages for Red Hat and its derivatives
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/opt/postgresql/bin",
    "usr/local/opt/postgresql@*/bin",
    "usr/local/opt/postgresql/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerPrograms {
    dir: PathBuf,
    major: u32,
}

impl ServerPrograms {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The psql of the set, or the psql on the PATH if a separate package has it.
    pub(super) fn psql(&self) -> PathBuf {
        let ours = self.program("psql");
        if ours.is_file() { ours } else { "psql".into() }
    }
}

pub(super) struct SearchPaths {
    path: OsString,
    /// `None`: the machine's programs are not searched.
    root: Option<PathBuf>,
    downloads: PathBuf,
}

impl SearchPaths {
    pub(super) fn of_this_machine(downloads: PathBuf) -> Self {
        Self { path: env::var_os("PATH").unwrap_or_default(), root: Some("/".into()), downloads }
    }

    pub(super) fn downloads_only(downloads: PathBuf) -> Self {
        Self { path: OsString::new(), root: None, downloads }
    }
}

/// The newest supported server, or the server of the version that created the cluster in `data_dir`; a downloaded one
/// only if the machine has none.
pub(super) async fn find(
    paths: &SearchPaths,
    run_as: &RunAs,
    data_dir: &DataDir,
) -> Result<ServerPrograms, LocalError> {
    let installed = choose(candidates(paths, run_as).await, run_as, data_dir).await;
    if installed.is_ok() {
        return installed;
    }
    let downloaded = choose(complete(&expand(&paths.downloads, "*/bin")), run_as, data_dir).await;
    if downloaded.is_ok() { downloaded } else { installed }
}

async fn choose(
    dirs: Vec<PathBuf>,
    run_as: &RunAs,
    data_dir: &DataDir,
) -> Result<ServerPrograms, LocalError> {
    let mut found = Vec::new();
    for dir in dirs {
        if let Some(major) = major(&dir, run_as).await {
            found.push(ServerPrograms { dir, major });
        }
    }
    let seen = match found.as_slice() {
        [] => "none of any version".to_owned(),
        found => found
            .iter()
            .map(|set| format!("{} in {}", set.major, set.dir.display()))
            .collect::<Vec<_>>()
            .join(", "),
    };
    found.retain(|set| SUPPORTED.contains(&set.major));
    match data_dir.major()? {
        Some(major) => found
            .into_iter()
            .find(|set| set.major == major)
            .ok_or_else(|| LocalError::OtherMajor { dir: data_dir.dir().to_owned(), major, seen }),
        // Among equal versions the first, because the PATH comes before the packages' directories.
        None => found
            .into_iter()
            .reduce(|best, next| if next.major > best.major { next } else { best })
            .ok_or(LocalError::NoBinaries { seen, no_download: "none may be downloaded" }),
    }
}

/// Directories with a complete set, without duplicates, in order of preference.
async fn candidates(paths: &SearchPaths, run_as: &RunAs) -> Vec<PathBuf> {
    let on_path: Vec<_> = env::split_paths(&paths.path).filter(|dir| dir.is_absolute()).collect();
    // A link on the PATH leads to the directory of all programs.
    let mut dirs: Vec<_> = on_path
        .iter()
        .filter_map(|dir| dir.join("postgres").canonicalize().ok()?.parent().map(Path::to_owned))
        .collect();
    for pg_config in on_path.iter().map(|dir| dir.join("pg_config")).filter(|file| file.is_file()) {
        let mut command = run_as.command(&pg_config);
        command.arg("--bindir");
        if let Ok(printed) = run(command, VERSION_LIMIT).await {
            dirs.push(printed.trim().into());
        }
    }
    let root = paths.root.iter();
    dirs.extend(root.flat_map(|root| PACKAGE_DIRS.iter().flat_map(|pattern| expand(root, pattern))));
    complete(&dirs)
}

fn complete(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut complete: Vec<PathBuf> = Vec::new();
    for dir in dirs.iter().filter_map(|dir| dir.canonicalize().ok()) {
        if !complete.contains(&dir) && REQUIRED.iter().all(|name| dir.join(name).is_file()) {
            complete.push(dir);
        }
    }
    complete
}

/// The directories that match `pattern`; each part of the path may contain one `*`.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    pattern.split('/').fold(vec![root.to_owned()], |dirs, part| match part.split_once('*') {
        None => dirs.into_iter().map(|dir| dir.join(part)).collect(),
        Some((before, after)) => dirs
            .into_iter()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str()
                    .and_then(|name| name.strip_prefix(before))
                    .is_some_and(|rest| rest.ends_with(after))
            })
            .map(|entry| entry.path())
            .collect(),
    })
}

/// How the first downloaded set fails, if it does not run.
pub(super) async fn failure(downloads: &Path, run_as: &RunAs) -> Option<LocalError> {
    let dir = complete(&expand(downloads, "*/bin")).into_iter().next()?;
    let error = version(&dir, run_as).await.err()?;
    let outcome = if let LocalError::Program { outcome, .. } = error { outcome } else { error.to_string() };
    Some(LocalError::Unusable { dir: downloads.to_owned(), outcome })
}

/// The major version that `postgres` in `dir` prints, such as `postgres (PostgreSQL) 17.2 (Homebrew)`.
async fn major(dir: &Path, run_as: &RunAs) -> Option<u32> {
    let printed = version(dir, run_as).await.ok()?;
    let version = printed.strip_prefix("postgres (PostgreSQL) ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

async fn version(dir: &Path, run_as: &RunAs) -> Result<String, LocalError> {
    let mut command = run_as.command(dir.join("postgres"));
    command.arg("--version");
    run(command, VERSION_LIMIT).await
}

#[cfg(test)]
mod tests;
