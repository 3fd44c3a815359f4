//! What alerts and panels ask of Prometheus, as far as it is about rosterd.

use std::collections::BTreeSet;

/// One expression.
pub struct Asked {
    /// For whoever reads a failure.
    pub place: String,
    pub selectors: Vec<Selector>,
    /// Labels to group and to match by.
    pub grouping: BTreeSet<String>,
}

/// A metric, and what its labels must be.
pub struct Selector {
    pub metric: String,
    /// Label, operator and value.
    pub matchers: Vec<(String, String, String)>,
}

impl Asked {
    pub fn new(place: &str, expression: &str) -> Self {
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut selectors = Vec::new();
        for (at, _) in expression.match_indices("rosterd_") {
            let rest = &expression[at..];
            let (metric, rest) = rest.split_at(rest.find(|c| !part_of_name(c)).unwrap_or(rest.len()));
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let matchers =
                matchers.map_or_else(Vec::new, |(inside, _)| inside.split(',').map(matcher).collect());
            selectors.push(Selector { metric: metric.to_owned(), matchers });
        }
        let mut grouping = BTreeSet::new();
        for word in ["by (", "on ("] {
            let lists = expression.split(word).skip(1).filter_map(|rest| rest.split(')').next());
            grouping.extend(lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()));
        }
        Self { place: place.to_owned(), selectors, grouping }
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

/// The rules' expressions: each stands between `expr:` and the next key, on one line or folded.
pub fn alerts(yaml: &str) -> Vec<Asked> {
    let rules = yaml.split("- alert: ").skip(1);
    rules
        .map(|rule| {
            let expression = rule.split_once("expr: ").unwrap().1;
            let end =
                ["\n        for: ", "\n        labels:"].into_iter().filter_map(|key| expression.find(key));
            Asked::new(rule.lines().next().unwrap(), &expression[..end.min().unwrap()])
        })
        .collect()
}

/// The panels' expressions, and the variable's.
pub fn panels(dashboard: &str) -> Vec<Asked> {
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let mut asked: Vec<_> = panels
        .flat_map(|panel| {
            panel["targets"].as_array().unwrap().iter().map(|target| (&panel["title"], &target["expr"]))
        })
        .map(|(title, expression)| Asked::new(title.as_str().unwrap(), expression.as_str().unwrap()))
        .collect();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let queries = variables.filter_map(|variable| variable["definition"].as_str());
    asked.extend(queries.map(|query| Asked::new(query, query)));
    asked
}

#[test]
fn an_expression_is_taken_apart() {
    let asked = Asked::new(
        "a place",
        "sum by (job, account) (rate(rosterd_a_total{b=\"c\", d!~\"e|f\"}[5m])) > 0\n  unless on (job) rosterd_g",
    );
    assert_eq!(asked.metrics().collect::<Vec<_>>(), ["rosterd_a_total", "rosterd_g"]);
    let matchers: Vec<_> = asked.selectors[0].matchers.iter().map(|(a, b, c)| [a.as_str(), b, c]).collect();
    assert_eq!(matchers, [["b", "=", "c"], ["d", "!~", "e|f"]]);
    assert_eq!(asked.grouping.iter().collect::<Vec<_>>(), ["account", "job"]);
}
