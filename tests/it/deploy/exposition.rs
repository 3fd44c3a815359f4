//! The metrics of a scrape of `/metrics`: names, labels and the values of each label.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

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

    /// A table of the metrics of this scrape, with the alerts that use each.
    pub fn table(&self, scrape: &str, alerts: &[Query]) -> String {
        let mut table = "| metric | type | labels | meaning | alerts |\n|---|---|---|---|---|\n".to_owned();
        let kinds: BTreeMap<_, _> =
            scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let helps: BTreeMap<_, _> =
            scrape.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
        for name in self.names().collect::<BTreeSet<_>>() {
            let series = [name.to_owned(), format!("{name}_bucket")];
            let labels: BTreeSet<_> =
                series.iter().filter_map(|it| self.0.get(it)).flat_map(BTreeMap::keys).collect();
            let labels: Vec<_> =
                labels.iter().filter(|label| **label != "le").map(|label| format!("`{label}`")).collect();
            let uses = |query: &&Query| query.metrics().any(|used| used.starts_with(name));
            let alerts = alerts.iter().filter(uses).map(|alert| alert.source.as_str());
            let alerts: BTreeSet<_> =
                alerts.map(|it| format!("[{it}](../deploy/RUNBOOK.md#{})", it.to_lowercase())).collect();
            let alerts = alerts.into_iter().collect::<Vec<_>>().join(", ");
            let (kind, labels, help) = (kinds[name], labels.join(", "), helps[name]);
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} | {alerts} |").unwrap();
        }
        table
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
