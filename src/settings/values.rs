//! Values of settings by key, with their sources.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

pub(super) const FILE_VARIABLE: &str = "ROSTERD_CONFIG";

/// Values by dotted key. The origin of each value is its source, as sentences name it.
pub(super) type Values = BTreeMap<String, Value>;

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
