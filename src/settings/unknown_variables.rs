//! Warnings about variables that rosterd does not read.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::values::FILE_VARIABLE;
use super::{accounts, environment};

/// Warns about variables that look like rosterd's but are not, with the closest name. They are not a fault: other
/// programs may read them, and Kubernetes adds some to each pod for each service.
pub(super) fn warn<'a>(
    env: &BTreeMap<String, String>,
    known: impl Iterator<Item = &'a str>,
    findings: &mut Findings,
) {
    let short = environment::SHORT_NAMES.map(|(name, _)| name);
    let fixed = accounts::VARIABLES.into_iter().chain(short).chain([FILE_VARIABLE]);
    let long = known.map(environment::variable);
    let read: Vec<String> = fixed.map(str::to_owned).chain(long).collect();
    for (name, _) in env.iter().filter(|(_, value)| !value.is_empty()) {
        let is_harvest = name.starts_with(HARVEST);
        let is_key = name.starts_with(environment::PREFIX);
        if !(is_harvest || name.starts_with("ROSTERD_"))
            || is_key
            || read.contains(name)
            || is_of_kubernetes_service(name)
        {
            continue;
        }
        let not_read = format!("rosterd does not read the variable {name}");
        if let Some(nearest) = nearest(name, &read) {
            findings.warn(format!("{not_read}; did you mean {nearest}?"));
        } else if is_harvest {
            let harvest: Vec<_> =
                read.iter().filter(|read| read.starts_with(HARVEST)).map(String::as_str).collect();
            findings.warn(format!("{not_read}; it reads {}", harvest.join(", ")));
        }
    }
}

const HARVEST: &str = "HARVEST_";

/// Whether Kubernetes adds such a variable to pods, for a service with the name `rosterd-…` or `harvest-…`.
fn is_of_kubernetes_service(name: &str) -> bool {
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with(|c: char| c == '_' || c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST") || name.rsplit_once("_PORT").is_some_and(|(_, rest)| is_port(rest))
}

/// The variable of `read` that differs from `name` in its separators and at most two letters. If there is none: the one
/// that has all words of `name` or only words of `name`, with the fewest other words.
fn nearest<'r>(name: &str, read: &'r [String]) -> Option<&'r String> {
    let words = words(name);
    let spelling = words.join("_");
    let distance = |other: &str| strsim::damerau_levenshtein(&spelling, &self::words(other).join("_"));
    let similar = read.iter().map(|other| (distance(other), other)).min_by_key(|(distance, _)| *distance);
    if let Some((distance, similar)) = similar
        && distance <= 2
        && distance * 4 <= spelling.len()
    {
        return Some(similar);
    }
    let other_words = |other: &str| {
        let theirs = self::words(other);
        let (fewer, more) = if words.len() < theirs.len() { (&words, &theirs) } else { (&theirs, &words) };
        let contained = fewer.len() > 1 && fewer.iter().all(|word| more.contains(word));
        contained.then(|| more.len() - fewer.len())
    };
    let related = read.iter().filter_map(|other| Some((other_words(other)?, other)));
    related.min_by_key(|(count, _)| *count).map(|(_, nearest)| nearest)
}

fn words(name: &str) -> Vec<&str> {
    name.split('_').filter(|word| !word.is_empty() && *word != "ROSTERD").collect()
}
