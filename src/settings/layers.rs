//! The layers: defaults, file, environment. Each is checked against the keys of `config/default.toml` before
//! it is laid over the others, so that an unknown key is refused where it was written. The types are those of
//! the defaults as well: text from the environment is read as what the default is, and nothing is guessed.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::{environment, unknown};

/// The reference of settings, and their defaults.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

pub(super) const FILE_VARIABLE: &str = "ROSTERD_CONFIG";

/// The layers laid over each other: a value for each known key, and what the file says of accounts.
pub(super) struct Layers {
    pub values: BTreeMap<String, Value>,
    pub accounts: Option<(String, Value)>,
}

/// Lays file and environment over the defaults; what is not a setting is refused.
pub(super) fn merge(file: Option<&Path>, env: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Layers {
    let known = defaults(faults);
    let (from_file, accounts) = match file_layer(file, env) {
        Ok((source, mut table)) => {
            let accounts = table.remove("accounts").map(|accounts| (source.clone(), accounts));
            let leaves = flatten(table).into_iter().map(|(key, value)| (key, source.clone(), value));
            (checked(leaves.collect(), &known, faults), accounts)
        }
        Err(fault) => {
            faults.extend(fault);
            (Layer::default(), None)
        }
    };
    let from_environment = checked(environment::layer(env, &known, faults), &known, faults);
    let merged = Config::builder()
        .add_source(Layer(known.clone().into_iter().collect()))
        .add_source(from_file)
        .add_source(from_environment)
        .build();
    let values = match merged {
        Ok(merged) => merged.cache.into_table().map(flatten).unwrap_or_default().into_iter().collect(),
        Err(error) => {
            faults.push(format!("the settings cannot be laid over each other: {error}"));
            known
        }
    };
    Layers { values, accounts }
}

/// `a = { b = 1 }` as `a.b = 1`. An empty table is a leaf, so that an unknown empty section is seen.
pub(super) fn flatten(table: Map<String, Value>) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (key, value) in table {
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => {
                leaves.extend(flatten(inner).into_iter().map(|(rest, leaf)| (format!("{key}.{rest}"), leaf)));
            }
            _ => leaves.push((key, value)),
        }
    }
    leaves.sort_by(|(one, _), (other, _)| one.cmp(other));
    leaves
}

fn defaults(faults: &mut Vec<String>) -> BTreeMap<String, Value> {
    match File::from_str(DEFAULTS, FileFormat::Toml).collect() {
        Ok(table) => flatten(table).into_iter().collect(),
        Err(error) => {
            faults.push(format!("the built-in defaults cannot be read: {error}"));
            BTreeMap::new()
        }
    }
}

/// The file's name for sentences, and what it says. `Err(None)`: there is no file.
fn file_layer(
    file: Option<&Path>,
    env: &BTreeMap<String, String>,
) -> Result<(String, Map<String, Value>), Option<String>> {
    let (path, named_by) = match (file, env.get(FILE_VARIABLE).filter(|path| !path.is_empty())) {
        (Some(path), _) => (path.to_owned(), "--config"),
        (None, Some(path)) => (PathBuf::from(path), FILE_VARIABLE),
        (None, None) => return Err(None),
    };
    let source = format!("the file {}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| {
        format!(
            "{source} (named by {named_by}) cannot be read: {error}; name a TOML file that this user may read"
        )
    })?;
    let table = File::from_str(&text, FileFormat::Toml)
        .collect()
        .map_err(|error| format!("{source} is not valid TOML{}", syntax(&text, &error)))?;
    Ok((source, table))
}

/// Where and why TOML was not understood. The error's own `Display` quotes the line, which may hold a secret.
fn syntax(text: &str, error: &ConfigError) -> String {
    let ConfigError::FileParse { cause, .. } = error else { return String::new() };
    let Some(cause) = cause.downcast_ref::<toml::de::Error>() else { return String::new() };
    let line =
        cause.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let line = line.map(|line| format!(" in line {line}")).unwrap_or_default();
    format!("{line}: {}", cause.message().replace('\n', ", "))
}

/// The known ones among `leaves`, each marked with its source.
fn checked(
    leaves: Vec<(String, String, Value)>,
    known: &BTreeMap<String, Value>,
    faults: &mut Vec<String>,
) -> Layer {
    let mut layer = Layer::default();
    for (key, source, value) in leaves {
        let empty_section = matches!(&value.kind, ValueKind::Table(_))
            && known.keys().any(|k| k.strip_prefix(&key).is_some_and(|k| k.starts_with('.')));
        if known.contains_key(&key) {
            layer.0.insert(key, Value::new(Some(&source), value.kind));
        } else if !empty_section {
            faults.push(unknown::sentence(&key, &source, known.keys().map(String::as_str), ""));
        }
    }
    layer.settle_url(faults);
    layer
}

/// One layer, by key.
#[derive(Clone, Default)]
struct Layer(Map<String, Value>);

impl Layer {
    /// The URL and the file that holds it are one setting: giving both is refused, giving one replaces
    /// whichever an earlier layer gave.
    fn settle_url(&mut self, faults: &mut Vec<String>) {
        const PAIR: [&str; 2] = ["database.url", "database.url_file"];
        let source_of = |key| {
            let value = self.0.get(key).filter(|value| value.kind != ValueKind::String(String::new()))?;
            value.origin().map(str::to_owned)
        };
        match PAIR.map(source_of) {
            [Some(url), Some(file)] => faults.push(format!(
                "database.url (from {url}) and database.url_file (from {file}) are both given; \
                 keep one of them"
            )),
            [Some(source), None] => drop(self.0.insert(PAIR[1].to_owned(), Value::new(Some(&source), ""))),
            [None, Some(source)] => drop(self.0.insert(PAIR[0].to_owned(), Value::new(Some(&source), ""))),
            [None, None] => {}
        }
    }
}

/// Says nothing of the values: there are secrets among them.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + std::marker::Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}
