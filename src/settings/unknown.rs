//! Sentences about keys that are not settings.

/// The fault of a `key` that is not a setting, with the closest key of `known`. The sentence shows each key after
/// `prefix`.
pub(super) fn sentence(key: &str, source: &str, known: &[&str], prefix: &str) -> String {
    let below: Vec<_> = keys_of(key, known).collect();
    if !below.is_empty() {
        return format!(
            "{prefix}{key} (from {source}) is a section, not a value; set one of its keys: {}",
            below.join(", ")
        );
    }
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let distance = |known: &str| {
        let other_section = known.rsplit('.').next() == Some(name);
        let too_deep = key.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
        if other_section || too_deep { 0 } else { strsim::damerau_levenshtein(key, known) }
    };
    let nearest = known.iter().map(|known| (distance(known), known)).min();
    if let Some((distance, nearest)) = nearest
        && distance <= 3
        && distance * 2 < name.len().max(2)
    {
        return format!("{prefix}{key} (from {source}) is not a setting; did you mean {prefix}{nearest}?");
    }
    let siblings =
        known.iter().copied().filter(|known| known.rsplit_once('.').is_some_and(|(its, _)| its == section));
    let mut choices: Vec<_> = siblings.collect();
    let mut kind = "keys";
    if choices.is_empty() {
        kind = "sections";
        choices = known.iter().filter_map(|known| known.split('.').next()).collect();
        choices.dedup();
    }
    format!("{prefix}{key} (from {source}) is not a setting; known {kind}: {}", choices.join(", "))
}

pub(super) fn keys_of<'a>(section: &str, known: &[&'a str]) -> impl Iterator<Item = &'a str> {
    known
        .iter()
        .copied()
        .filter(move |key| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}
