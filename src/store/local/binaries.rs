//! Finding the server's programs: most systems keep them off the PATH, and none agree on where.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LocalError;
use super::place::Place;
use super::programs::{RunAs, run};
use crate::store::diagnosis::SUPPORTED;

/// What makes a complete set; a lone `postgres` may be a wrapper or somebody's leftover.
const NEEDED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];
/// How long a program may take to say its version.
const LIMIT: Duration = Duration::from_secs(5);

/// Where packages put the programs, from the root; `*` stands for a version.
const USUAL: [&str; 7] = [
    "usr/lib/postgresql/*/bin", // Debian, Ubuntu
    "usr/pgsql-*/bin",          // the PostgreSQL project's packages for Red Hat and kin
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/opt/postgresql/bin",
    "usr/local/opt/postgresql@*/bin",
    "usr/local/opt/postgresql/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
];

/// A complete set of programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The psql of the set, or the one on the PATH where it comes in a package of its own.
    pub(super) fn psql(&self) -> PathBuf {
        let ours = self.program("psql");
        if ours.is_file() { ours } else { "psql".into() }
    }
}

/// Where to look.
pub(super) struct Places {
    path: OsString,
    root: PathBuf,
}

impl Places {
    pub(super) fn of_this_machine() -> Self {
        Self { path: env::var_os("PATH").unwrap_or_default(), root: "/".into() }
    }
}

/// The newest server here, or the one of the version that made the cluster in `place`.
pub(super) async fn find(places: &Places, run_as: &RunAs, place: &Place) -> Result<Binaries, LocalError> {
    let mut found = Vec::new();
    for dir in candidates(places, run_as).await {
        if let Some(major) = major(&dir, run_as).await {
            found.push(Binaries { dir, major });
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
    match place.major()? {
        Some(major) => found
            .into_iter()
            .find(|set| set.major == major)
            .ok_or_else(|| LocalError::OtherMajor { dir: place.dir().to_owned(), major, seen }),
        // Of equals the first: the PATH comes before the usual places.
        None => found
            .into_iter()
            .reduce(|best, next| if next.major > best.major { next } else { best })
            .ok_or(LocalError::NoBinaries { seen }),
    }
}

/// Directories with a complete set, each once, in the order of preference.
async fn candidates(places: &Places, run_as: &RunAs) -> Vec<PathBuf> {
    let on_path: Vec<_> = env::split_paths(&places.path).filter(|dir| dir.is_absolute()).collect();
    // A link on the PATH leads to the directory that holds the rest.
    let mut dirs: Vec<_> = on_path
        .iter()
        .filter_map(|dir| dir.join("postgres").canonicalize().ok()?.parent().map(Path::to_owned))
        .collect();
    for pg_config in on_path.iter().map(|dir| dir.join("pg_config")).filter(|file| file.is_file()) {
        let mut command = run_as.command(&pg_config);
        command.arg("--bindir");
        if let Ok(printed) = run(command, LIMIT).await {
            dirs.push(printed.trim().into());
        }
    }
    dirs.extend(USUAL.iter().flat_map(|pattern| expand(&places.root, pattern)));

    let mut complete: Vec<PathBuf> = Vec::new();
    for dir in dirs.iter().filter_map(|dir| dir.canonicalize().ok()) {
        if !complete.contains(&dir) && NEEDED.iter().all(|name| dir.join(name).is_file()) {
            complete.push(dir);
        }
    }
    complete
}

/// The directories that `pattern` means; a part of a path may hold one `*`.
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

/// The major version that `postgres` in `dir` says it is: `postgres (PostgreSQL) 17.2 (Homebrew)`.
async fn major(dir: &Path, run_as: &RunAs) -> Option<u32> {
    let mut command = run_as.command(dir.join("postgres"));
    command.arg("--version");
    let printed = run(command, LIMIT).await.ok()?;
    let version = printed.strip_prefix("postgres (PostgreSQL) ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests;
