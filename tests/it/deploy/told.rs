//! What `/metrics` tells: names, labels and the values that they had.

use std::collections::{BTreeMap, BTreeSet};

use super::asked::Asked;

/// What Prometheus adds by itself.
const ADDED: [&str; 2] = ["job", "instance"];

/// By metric and label.
pub struct Told(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Told {
    /// Of a scrape.
    pub fn read(text: &str) -> Self {
        let mut told = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
        for line in text.lines().filter(|line| line.starts_with("rosterd_")) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = told.entry(name.to_owned()).or_default();
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                metric.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
        assert!(told.len() > 10, "{told:?}");
        Self(told)
    }

    /// Each metric once, a histogram without its suffixes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let suffix =
            |name: &str| ["_bucket", "_sum", "_count"].into_iter().find(|suffix| name.ends_with(suffix));
        self.0
            .keys()
            .map(move |name| suffix(name).map_or(name.as_str(), |suffix| name.trim_end_matches(suffix)))
    }

    /// That all that is asked for is told; with `values`, also that what a label is compared with occurs.
    #[track_caller]
    pub fn expect(&self, asked: &Asked, values: bool) {
        let place = &asked.place;
        let mut known: BTreeSet<&str> = ADDED.into();
        for selector in &asked.selectors {
            let metric = &selector.metric;
            let labels = self.0.get(metric).unwrap_or_else(|| panic!("{place}: nobody tells {metric}"));
            known.extend(labels.keys().map(String::as_str));
            for (label, operator, value) in &selector.matchers {
                if ADDED.contains(&label.as_str()) {
                    continue;
                }
                let seen =
                    labels.get(label).unwrap_or_else(|| panic!("{place}: {metric} has no label {label}"));
                let compared = values && !value.contains('$') && operator.starts_with('=');
                for value in value.split('|').filter(|_| compared) {
                    assert!(
                        seen.contains(value),
                        "{place}: {metric} never has {label}={value}, but {seen:?}"
                    );
                }
            }
        }
        for label in &asked.grouping {
            assert!(known.contains(label.as_str()), "{place}: nothing in it has a label {label}");
        }
    }
}
