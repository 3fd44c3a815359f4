//! The layer of the environment: `ROSTERD__SECTION__KEY`, and the short names. The `HARVEST_*` variables that
//! describe an account are read with the accounts.

use std::{collections::BTreeMap, ffi::OsString};

use config::{Value, ValueKind};

use super::{SettingsError, secrets};

pub(super) const PREFIX: &str = "ROSTERD__";

/// Names that people already use. `RUST_LOG` wins over the long name; the others must agree with it.
pub(super) const SHORT_NAMES: [(&str, &str); 4] = [
    ("DATABASE_URL", "database.url"),
    ("DATABASE_URL_FILE", "database.url_file"),
    ("HARVEST_BASE_URL", "harvest.base_url"),
    (RUST_LOG, "log.level"),
];
const RUST_LOG: &str = "RUST_LOG";

/// How the variables begin that concern us.
const OURS: [&str; 4] = ["ROSTERD_", "HARVEST_", "DATABASE_URL", RUST_LOG];

/// The environment as text. What is not text is nobody's fault unless it was meant for us.
pub(super) fn variables(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut faults = Vec::new();
    let mut variables = BTreeMap::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        if let Ok(value) = value.into_string() {
            variables.insert(name, value);
        } else if OURS.iter().any(|ours| name.starts_with(ours)) {
            faults.push(format!("{name} is not UTF-8 text"));
        }
    }
    if faults.is_empty() { Ok(variables) } else { Err(SettingsError { faults, warnings: Vec::new() }) }
}

/// The environment with our variables as they were meant: `docker --env-file` and Kubernetes pass quotes and carriage
/// returns on.
pub(super) fn cleaned(
    env: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut clean = |name: &str, value: &str| {
        let ours = OURS.iter().any(|ours| name.starts_with(ours));
        if ours { secrets::cleaned(name, value, warnings).to_owned() } else { value.to_owned() }
    };
    env.iter().map(|(name, value)| (name.clone(), clean(name, value))).collect()
}

/// Key, source and value of what the environment says.
pub(super) fn layer(
    env: &BTreeMap<String, String>,
    known: &BTreeMap<String, Value>,
    faults: &mut Vec<String>,
) -> Vec<(String, String, Value)> {
    let mut said: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for (name, value) in env.iter().filter(|(_, value)| !value.is_empty()) {
        let short = SHORT_NAMES.iter().find(|(short, _)| short == name).map(|(_, key)| (*key).to_owned());
        let long = || name.strip_prefix(PREFIX).map(|key| key.to_lowercase().replace("__", "."));
        let Some(key) = short.or_else(long) else { continue };
        if key == "accounts" || key.starts_with("accounts.") {
            faults.push(format!(
                "{name} cannot be set: [[accounts]] is read from the settings file only; \
                 for one account set HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN"
            ));
            continue;
        }
        // In the map's order RUST_LOG comes after ROSTERD__LOG__LEVEL, and so replaces it.
        if let Some((other, different)) = said.insert(key, (name, value))
            && different != value
            && name != RUST_LOG
        {
            faults.push(format!("{other} and {name} are the same setting but differ; keep one of them"));
        }
    }
    let typed = |(key, (name, text)): (String, (&str, &str))| {
        let kind = typed_like(known.get(&key), text);
        (key, name.to_owned(), Value::new(None, kind))
    };
    said.into_iter().map(typed).collect()
}

/// `text` as the type that the default has. What does not fit stays text, for the reader to refuse.
fn typed_like(default: Option<&Value>, text: &str) -> ValueKind {
    let typed = match default.map(|value| &value.kind) {
        Some(ValueKind::Boolean(_)) => text.parse().ok().map(ValueKind::Boolean),
        Some(ValueKind::I64(_)) => text.parse().ok().map(ValueKind::I64),
        Some(ValueKind::Float(_)) => text.parse().ok().map(ValueKind::Float),
        _ => None,
    };
    typed.unwrap_or_else(|| ValueKind::String(text.to_owned()))
}
