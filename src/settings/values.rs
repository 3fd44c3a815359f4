//! Values of settings by key, with their sources.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use super::findings::Findings;
use super::unknown;

pub(super) const FILE_VARIABLE: &str = "ROSTERD_CONFIG";

/// Values by dotted key. The origin of each value is its source, as sentences name it.
pub(super) type Values = BTreeMap<String, Value>;

/// The values of a layer or section whose keys are known. The others become faults, which show each key after `prefix`.
pub(super) fn known_values(
    given: Vec<(String, Value)>,
    known: &[&str],
    prefix: &str,
    findings: &mut Findings,
) -> Values {
    let mut values = Values::new();
    for (key, value) in given {
        let is_section =
            matches!(value.kind, ValueKind::Table(_)) && unknown::keys_of(&key, known).next().is_some();
        if known.contains(&key.as_str()) {
            values.insert(key, value);
        } else if !is_section {
            findings.fault(unknown::sentence(&key, value.origin().unwrap_or_default(), known, prefix));
        }
    }
    values
}

/// `a = { b = 1 }` as `a.b = 1`, with `source` as the origin. An empty table stays a value, so that an unknown empty
/// section becomes a fault.
pub(super) fn flatten(table: Map<String, Value>, source: &str) -> Vec<(String, Value)> {
    let mut values = Vec::new();
    for (key, value) in table {
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => {
                let inner = flatten(inner, source).into_iter();
                values.extend(inner.map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            kind => values.push((key, Value::new(Some(&source.to_owned()), kind))),
        }
    }
    values.sort_by(|(one, _), (other, _)| one.cmp(other));
    values
}
