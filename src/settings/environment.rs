//! The environment as a layer of settings: `ROSTERD__SECTION__KEY` and short names. `accounts` reads the `HARVEST_*`
//! variables of an account.

use std::{collections::BTreeMap, ffi::OsString};

use config::{Value, ValueKind};

use super::findings::{Findings, SettingsError};
use super::secrets;
use super::values::Values;

pub(super) const PREFIX: &str = "ROSTERD__";

/// Names that other programs use too. `RUST_LOG` overrides its long name; the others must not differ from theirs.
pub(super) const SHORT_NAMES: [(&str, &str); 4] = [
    ("DATABASE_URL", "database.url"),
    ("DATABASE_URL_FILE", "database.url_file"),
    ("HARVEST_BASE_URL", "harvest.base_url"),
    (RUST_LOG, "log.level"),
];
const RUST_LOG: &str = "RUST_LOG";

pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn is_relevant(name: &str) -> bool {
    ["ROSTERD_", "HARVEST_", "DATABASE_URL", RUST_LOG].iter().any(|prefix| name.starts_with(prefix))
}

/// The variables that are text. Others are a fault only if rosterd may read them.
pub(super) fn variables(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut findings = Findings::default();
    let mut variables = BTreeMap::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        if let Ok(value) = value.into_string() {
            variables.insert(name, value);
        } else if is_relevant(&name) {
            findings.fault(format!("{name} is not UTF-8 text; set it to UTF-8 text or unset it"));
        }
    }
    if findings.faults.is_empty() { Ok(variables) } else { Err(SettingsError(findings)) }
}

/// The variables without the quotes and carriage returns that `docker --env-file` and Kubernetes leave in values.
pub(super) fn cleaned(env: &BTreeMap<String, String>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut clean = |name: &str, value: &str| {
        if is_relevant(name) { secrets::cleaned(name, value, findings).to_owned() } else { value.to_owned() }
    };
    env.iter().map(|(name, value)| (name.clone(), clean(name, value))).collect()
}

/// The settings that the environment gives, with the variable as the origin.
pub(super) fn layer(
    env: &BTreeMap<String, String>,
    known: &Values,
    findings: &mut Findings,
) -> Vec<(String, Value)> {
    let mut given: BTreeMap<String, (&String, &str)> = BTreeMap::new();
    for (name, value) in env.iter().filter(|(_, value)| !value.is_empty()) {
        let short = SHORT_NAMES.iter().find(|(short, _)| short == name).map(|(_, key)| (*key).to_owned());
        let long = || name.strip_prefix(PREFIX).map(|key| key.to_lowercase().replace("__", "."));
        let Some(key) = short.or_else(long) else { continue };
        if key == "accounts" || key.starts_with("accounts.") {
            findings.fault(format!(
                "{name} cannot be set: [[accounts]] is read from the settings file only; \
                 for one account set HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN"
            ));
            continue;
        }
        // The variables are sorted: RUST_LOG comes after ROSTERD__LOG__LEVEL and so replaces it.
        if let Some((other, different)) = given.insert(key, (name, value))
            && different != value
            && name != RUST_LOG
        {
            findings.fault(format!("{other} and {name} are the same setting but differ; keep one of them"));
        }
    }
    let typed = |(key, (name, text)): (String, (&String, &str))| {
        let kind = typed_like(known.get(&key), text);
        (key, Value::new(Some(name), kind))
    };
    given.into_iter().map(typed).collect()
}

/// `text` as the type of the default. Text of another type stays text, and the reader refuses it.
fn typed_like(default: Option<&Value>, text: &str) -> ValueKind {
    let typed = match default.map(|value| &value.kind) {
        Some(ValueKind::Boolean(_)) => text.parse().ok().map(ValueKind::Boolean),
        Some(ValueKind::I64(_)) => text.parse().ok().map(ValueKind::I64),
        Some(ValueKind::Float(_)) => text.parse().ok().map(ValueKind::Float),
        _ => None,
    };
    typed.unwrap_or_else(|| ValueKind::String(text.to_owned()))
}
