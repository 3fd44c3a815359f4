use std::{fs, path::PathBuf};

use proptest::prelude::*;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

mod accounts;
mod database;
mod sources;
mod unknown;
mod values;
mod webhooks;

/// A directory with a settings file and files that contain secrets.
struct SettingsDir(TempDir);

impl SettingsDir {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let home = [("HOME", "/home/jo")];
    home.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(file: &str, env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let dir = SettingsDir::new();
    Settings::load(Some(&dir.write("roster.toml", file)), &variables(env))
}

/// The faults of `file` and `env`, with the file's name without its directory.
#[track_caller]
fn faults(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    let dir = SettingsDir::new();
    let path = dir.write("roster.toml", file);
    let parent = format!("{}/", dir.0.path().display());
    let error = Settings::load(Some(&path), &variables(env)).expect_err("these settings are not valid");
    error.faults().iter().map(|fault| fault.replace(&parent, "")).collect()
}

#[track_caller]
fn assert_refused(file: &str, env: &[(&str, &str)], fault: &str) {
    assert_eq!(faults(file, env), [fault]);
}
