//! The layers of settings: defaults, file, environment. A later layer replaces values of an earlier one.
//!
//! Each layer is checked against the keys of `config/default.toml` before it is merged, so that the fault of an unknown
//! key names its source.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::environment;
use super::findings::Findings;
use super::values::{FILE_VARIABLE, Values, flatten, known_values};

/// The reference of settings and their defaults.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

pub(super) struct Layers {
    pub values: Values,
    pub accounts: Option<Value>,
    pub webhooks: Option<Value>,
}

/// Merges the layers. Unknown keys become faults.
pub(super) fn merge(file: Option<&Path>, env: &BTreeMap<String, String>, findings: &mut Findings) -> Layers {
    let defaults = File::from_str(DEFAULTS, FileFormat::Toml)
        .collect()
        .map_err(|error| format!("the built-in defaults cannot be read: {error}"));
    let defaults = findings.ok(defaults).unwrap_or_default();
    let mut values = Values::from_iter(flatten(defaults, "the built-in defaults"));
    let file = named_file(file, env).and_then(|(path, by)| findings.ok(read_file(&path, by)));
    let (source, mut table) = file.unwrap_or_default();
    let mut list = |key| table.remove(key).map(|list: Value| Value::new(Some(&source), list.kind));
    let (accounts, webhooks) = (list("accounts"), list("webhooks"));
    let file = checked(flatten(table, &source), &values, findings);
    let environment = checked(environment::layer(env, &values, findings), &values, findings);
    values.extend(file);
    values.extend(environment);
    Layers { values, accounts, webhooks }
}

/// The path of the settings file, and the option or variable that names it.
fn named_file(file: Option<&Path>, env: &BTreeMap<String, String>) -> Option<(PathBuf, &'static str)> {
    if let Some(path) = file {
        return Some((path.to_owned(), "--config"));
    }
    let path = env.get(FILE_VARIABLE).filter(|path| !path.is_empty())?;
    Some((PathBuf::from(path), FILE_VARIABLE))
}

/// The file's name in sentences, and its content.
fn read_file(path: &Path, named_by: &str) -> Result<(String, Map<String, Value>), String> {
    let source = format!("the file {}", path.display());
    let text = fs::read_to_string(path).map_err(|error| {
        format!(
            "{source} (named by {named_by}) cannot be read: {error}; name a TOML file that this user may read"
        )
    })?;
    match File::from_str(&text, FileFormat::Toml).collect() {
        Ok(table) => Ok((source, table)),
        Err(error) => Err(format!("{source} is not valid TOML{}", syntax(&text, &error))),
    }
}

/// The line and the reason of a syntax error. The error's `Display` would quote the line, which may contain a secret.
fn syntax(text: &str, error: &ConfigError) -> String {
    let ConfigError::FileParse { cause, .. } = error else { return String::new() };
    let Some(cause) = cause.downcast_ref::<toml::de::Error>() else { return String::new() };
    let before = cause.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| format!(" in line {}", before.matches('\n').count() + 1));
    format!("{}: {}", line.unwrap_or_default(), cause.message().replace('\n', ", "))
}

/// The values of one layer whose keys are known. The others become faults.
fn checked(layer: Vec<(String, Value)>, known: &Values, findings: &mut Findings) -> Values {
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    let mut values = known_values(layer, &names, "", findings);
    settle_url(&mut values, findings);
    values
}

/// `database.url` and `database.url_file` are one setting: a layer may give one of them, which replaces the one that
/// an earlier layer gave.
fn settle_url(layer: &mut Values, findings: &mut Findings) {
    const PAIR: [&str; 2] = ["database.url", "database.url_file"];
    let source = |key| {
        let value: &Value = layer.get(key)?;
        value.origin().filter(|_| value.kind != ValueKind::String(String::new())).map(str::to_owned)
    };
    let (replaced, source) = match PAIR.map(source) {
        [Some(url), Some(file)] => {
            return findings.fault(format!(
                "database.url (from {url}) and database.url_file (from {file}) are both given; keep one of them"
            ));
        }
        [Some(source), None] => (PAIR[1], source),
        [None, Some(source)] => (PAIR[0], source),
        [None, None] => return,
    };
    layer.insert(replaced.to_owned(), Value::new(Some(&source), ""));
}
