//! What is said of a key that is not a setting.

/// Says that `key` is not a setting, and which one may have been meant.
pub(super) fn sentence<'a>(
    key: &str,
    source: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    prefix: &str,
) -> String {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let list = |keys: Vec<&str>| keys.join(", ");
    let below: Vec<_> =
        known.clone().filter(|k| k.strip_prefix(key).is_some_and(|k| k.starts_with('.'))).collect();
    if !below.is_empty() {
        return format!("{prefix}{key} (from {source}) is a section, not a value; it has {}", list(below));
    }
    let near = known
        .clone()
        .map(|k| {
            let another_section = k.rsplit('.').next() == Some(name);
            let too_deep = key.strip_prefix(k).is_some_and(|rest| rest.starts_with('.'));
            (if another_section || too_deep { 0 } else { strsim::damerau_levenshtein(key, k) }, k)
        })
        .min()
        .filter(|(distance, _)| *distance <= 3 && *distance * 2 < name.len().max(2));
    if let Some((_, near)) = near {
        return format!("{prefix}{key} (from {source}) is not a setting; did you mean {prefix}{near}?");
    }
    let siblings: Vec<_> =
        known.clone().filter(|k| k.rsplit_once('.').is_some_and(|(s, _)| s == section)).collect();
    let allowed = if siblings.is_empty() {
        let mut sections: Vec<_> = known.filter_map(|k| k.split('.').next()).collect();
        sections.dedup();
        list(sections)
    } else {
        list(siblings)
    };
    format!("{prefix}{key} (from {source}) is not a setting; known there are {allowed}")
}
