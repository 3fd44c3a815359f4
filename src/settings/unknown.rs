//! What is said of a key that is not a setting, and of a variable that rosterd does not read.

use std::collections::BTreeMap;

use super::{accounts, environment, layers};

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

/// Warns of variables that look like ours and are none, with the spelling that was meant. They are not refused: other
/// programs may read them, and Kubernetes gives its pods some for each service.
pub(super) fn variables<'a>(
    env: &BTreeMap<String, String>,
    known: impl Iterator<Item = &'a str>,
    warnings: &mut Vec<String>,
) {
    let short = environment::SHORT_NAMES.iter().map(|(name, _)| (*name).to_owned());
    let of_accounts = accounts::VARIABLES.into_iter().map(str::to_owned);
    let long = known.map(|key| format!("{}{}", environment::PREFIX, key.to_uppercase().replace('.', "__")));
    let read: Vec<String> =
        of_accounts.chain(short).chain([layers::FILE_VARIABLE.to_owned()]).chain(long).collect();
    for (name, _) in env.iter().filter(|(_, value)| !value.is_empty()) {
        let is_harvests = name.starts_with(HARVEST);
        let may_be_ours = is_harvests || name.starts_with("ROSTERD_");
        // With the full prefix it is a key, and refused as one.
        if !may_be_ours
            || name.starts_with(environment::PREFIX)
            || read.contains(name)
            || is_of_a_service(name)
        {
            continue;
        }
        let not_read = format!("rosterd does not read the variable {name}");
        if let Some(near) = nearest(name, &read) {
            warnings.push(format!("{not_read}; did you mean {near}?"));
        } else if is_harvests {
            let ours: Vec<_> = read.iter().filter(|it| it.starts_with(HARVEST)).map(String::as_str).collect();
            warnings.push(format!("{not_read}; it reads {}", ours.join(", ")));
        }
    }
}

const HARVEST: &str = "HARVEST_";

/// Whether Kubernetes gives its pods such a variable for a service of the name `rosterd-…` or `harvest-…`.
fn is_of_a_service(name: &str) -> bool {
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with(|c: char| c == '_' || c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST") || name.rsplit_once("_PORT").is_some_and(|(_, rest)| is_port(rest))
}

/// The variable with the same words but for the separators, or nearly, or else with a word more or less.
fn nearest<'r>(name: &str, read: &'r [String]) -> Option<&'r String> {
    let words = words(name);
    let spelling = words.join("_");
    let distance = |it: &str| strsim::damerau_levenshtein(&spelling, &self::words(it).join("_"));
    let similar = read.iter().map(|it| (distance(it), it)).min_by_key(|(distance, _)| *distance);
    if let Some((_, near)) = similar.filter(|(distance, _)| *distance <= 2 && *distance * 4 <= spelling.len())
    {
        return Some(near);
    }
    let others = |it: &str| {
        let its = self::words(it);
        let (fewer, more) = if words.len() < its.len() { (&words, &its) } else { (&its, &words) };
        let within = fewer.len() > 1 && fewer.iter().all(|word| more.contains(word));
        within.then(|| more.len() - fewer.len())
    };
    let within = read.iter().filter_map(|it| Some((others(it)?, it)));
    within.min_by_key(|(others, _)| *others).map(|(_, near)| near)
}

fn words(name: &str) -> Vec<&str> {
    name.split('_').filter(|word| !word.is_empty() && *word != "ROSTERD").collect()
}
