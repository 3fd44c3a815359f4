//! The Prometheus queries of alerts and panels: their metrics, matchers and labels, as far as they concern rosterd.

use std::collections::BTreeSet;

/// One Prometheus expression.
pub struct Query {
    /// The alert or panel, for failure messages.
    pub source: String,
    pub selectors: Vec<Selector>,
    /// The labels in `by (…)` and `on (…)`.
    pub grouping: BTreeSet<String>,
}

/// A metric with its label matchers.
pub struct Selector {
    pub metric: String,
    /// Label, operator and value.
    pub matchers: Vec<(String, String, String)>,
}

impl Query {
    pub fn new(source: &str, expression: &str) -> Self {
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut selectors = Vec::new();
        for (start, _) in expression.match_indices("rosterd_") {
            let rest = &expression[start..];
            let (metric, rest) = rest.split_at(rest.find(|c| !part_of_name(c)).unwrap_or(rest.len()));
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let matchers =
                matchers.map_or_else(Vec::new, |(inside, _)| inside.split(',').map(matcher).collect());
            selectors.push(Selector { metric: metric.to_owned(), matchers });
        }
        let mut grouping = BTreeSet::new();
        for keyword in ["by (", "on ("] {
            let lists = expression.split(keyword).skip(1).filter_map(|rest| rest.split(')').next());
            grouping.extend(lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()));
        }
        Self { source: source.to_owned(), selectors, grouping }
    }

    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.selectors.iter().map(|selector| selector.metric.as_str())
    }
}

fn matcher(text: &str) -> (String, String, String) {
    let (label, value) = text.trim().split_once('"').unwrap_or_else(|| panic!("{text}"));
    let name = label.trim_end_matches(['=', '!', '~']);
    (name.to_owned(), label[name.len()..].to_owned(), value.trim_end_matches('"').to_owned())
}

/// The expressions of the alert rules: the text between `expr:` and the next key, on one line or folded.
pub fn alerts(yaml: &str) -> Vec<Query> {
    let rules = yaml.split("- alert: ").skip(1);
    rules
        .map(|rule| {
            let expression = rule.split_once("expr: ").unwrap().1;
            let end =
                ["\n        for: ", "\n        labels:"].into_iter().filter_map(|key| expression.find(key));
            Query::new(rule.lines().next().unwrap(), &expression[..end.min().unwrap()])
        })
        .collect()
}

/// The expressions of the panels and of the dashboard's variables.
pub fn panels(dashboard: &str) -> Vec<Query> {
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let mut all: Vec<_> = panels
        .flat_map(|panel| {
            panel["targets"].as_array().unwrap().iter().map(|target| (&panel["title"], &target["expr"]))
        })
        .map(|(title, expression)| Query::new(title.as_str().unwrap(), expression.as_str().unwrap()))
        .collect();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let queries = variables.filter_map(|variable| variable["definition"].as_str());
    all.extend(queries.map(|query| Query::new(query, query)));
    all
}

#[test]
fn expression_is_parsed_into_metrics_matchers_and_labels() {
    let query = Query::new(
        "an alert",
        "sum by (job, account) (rate(rosterd_a_total{b=\"c\", d!~\"e|f\"}[5m])) > 0\n  unless on (job) rosterd_g",
    );
    assert_eq!(query.metrics().collect::<Vec<_>>(), ["rosterd_a_total", "rosterd_g"]);
    let matchers: Vec<_> = query.selectors[0]
        .matchers
        .iter()
        .map(|(label, operator, value)| [label.as_str(), operator, value])
        .collect();
    assert_eq!(matchers, [["b", "=", "c"], ["d", "!~", "e|f"]]);
    assert_eq!(query.grouping.iter().collect::<Vec<_>>(), ["account", "job"]);
}
