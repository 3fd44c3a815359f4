use std::{fs, path::PathBuf};

use proptest::prelude::*;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

/// A settings file and the secrets beside it.
struct Desk(TempDir);

impl Desk {
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
    let desk = Desk::new();
    Settings::load(Some(&desk.write("roster.toml", file)), &variables(env))
}

/// What is refused of `file` and `env`, with the file by its bare name.
#[track_caller]
fn faults(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    let desk = Desk::new();
    let path = desk.write("roster.toml", file);
    let folder = format!("{}/", desk.0.path().display());
    let refused = Settings::load(Some(&path), &variables(env)).expect_err("this should be refused");
    refused.faults().iter().map(|fault| fault.replace(&folder, "")).collect()
}

#[track_caller]
fn refused(file: &str, env: &[(&str, &str)], sentence: &str) {
    assert_eq!(faults(file, env), [sentence]);
}

mod layers_and_names;
mod values;
mod who_gets_in;
