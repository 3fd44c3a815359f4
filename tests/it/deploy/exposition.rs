//! The metrics of a scrape of `/metrics`: names, labels and the values of each label.

use std::collections::{BTreeMap, BTreeSet};

use super::queries::Query;

/// Labels that Prometheus adds to each series.
const LABELS_BY_PROMETHEUS: [&str; 2] = ["job", "instance"];

/// Label values by metric and label.
pub struct Exposition(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exposition {
    pub fn parse(text: &str) -> Self {
        let mut metrics = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
        for line in text.lines().filter(|line| line.starts_with("rosterd_")) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let metric = metrics.entry(name.to_owned()).or_default();
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                metric.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
        assert!(metrics.len() > 10, "{metrics:?}");
        Self(metrics)
    }

    /// The metric names; those of histograms without suffix.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let suffix =
            |name: &str| ["_bucket", "_sum", "_count"].into_iter().find(|suffix| name.ends_with(suffix));
        self.0
            .keys()
            .map(move |name| suffix(name).map_or(name.as_str(), |suffix| name.trim_end_matches(suffix)))
    }

    /// Expects every metric and label of the query in this scrape; with `values`, every compared label value too.
    #[track_caller]
    pub fn expect(&self, query: &Query, values: bool) {
        let source = &query.source;
        let mut known: BTreeSet<&str> = LABELS_BY_PROMETHEUS.into();
        for selector in &query.selectors {
            let metric = &selector.metric;
            let labels =
                self.0.get(metric).unwrap_or_else(|| panic!("{source}: rosterd does not expose {metric}"));
            known.extend(labels.keys().map(String::as_str));
            for (label, operator, value) in &selector.matchers {
                if LABELS_BY_PROMETHEUS.contains(&label.as_str()) {
                    continue;
                }
                let seen =
                    labels.get(label).unwrap_or_else(|| panic!("{source}: {metric} has no label {label}"));
                let compared = values && !value.contains('$') && operator.starts_with('=');
                for value in value.split('|').filter(|_| compared) {
                    assert!(
                        seen.contains(value),
                        "{source}: {metric} never has {label}={value}, but {seen:?}"
                    );
                }
            }
        }
        for label in &query.grouping {
            assert!(known.contains(label.as_str()), "{source}: no metric has the label {label}");
        }
    }
}
