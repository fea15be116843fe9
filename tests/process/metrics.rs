//! What monitoring is told: the alerts and the dashboard in `config/` use what `/metrics` really serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::crash::{job, model, over};
use crate::server::Server;

/// Labels that Prometheus adds, or that belong to a histogram's buckets.
const FROM_ELSEWHERE: [&str; 3] = ["instance", "job", "le"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("is there")
}

/// Metrics of a server that has done a job, each with its labels.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start(dir.path());
    let job = job(&server, &model(&server)).expect("answers");
    over(&server, &job);
    let (_, text) = server.ask("GET /metrics", b"");
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = split(line);
        served.entry(name.to_owned()).or_default().extend(labels);
    }
    served
}

/// The name that begins a text, and the names of the labels in braces behind it.
fn split(text: &str) -> (&str, Vec<String>) {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return (name, Vec::new());
    };
    // A comma inside of a value is followed by no `=`.
    let pairs = inside.0.split(',').filter_map(|pair| pair.split_once('='));
    let labels = pairs.map(|(label, _)| label.trim().trim_end_matches('!').to_owned());
    (name, labels.filter(|label| !label.contains('"')).collect())
}

/// What a query names that is not served.
fn unknown(query: &str, served: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices("modelpress_") {
        let (name, labels) = split(&query[at..]);
        let Some(known) = served.get(name) else {
            found.push(name.to_owned());
            continue;
        };
        let strange = labels
            .iter()
            .filter(|label| !known.contains(*label) && !FROM_ELSEWHERE.contains(&label.as_str()));
        found.extend(strange.map(|label| format!("{name}{{{label}}}")));
    }
    found
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn rules() -> Vec<Value> {
    let alerts: Value = serde_norway::from_str(&read("config/alerts.yml")).expect("YAML");
    let groups = alerts["groups"].as_array().expect("groups").iter();
    groups
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

#[test]
fn alerts_and_dashboard_use_what_is_served() {
    let served = served();
    let dashboard: Value = serde_json::from_str(&read("config/grafana-dashboard.json")).expect("JSON");
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let unknown = unknown(text(&target["expr"]), &served);
            assert!(unknown.is_empty(), "panel {}: {unknown:?}", panel["title"]);
            queries += 1;
        }
    }
    assert!(queries > 20, "{queries}");
    for rule in rules() {
        let unknown = unknown(text(&rule["expr"]), &served);
        assert!(unknown.is_empty(), "alert {}: {unknown:?}", rule["alert"]);
    }
}

#[test]
fn a_query_for_something_else_is_noticed() {
    let served = BTreeMap::from([("modelpress_jobs".to_owned(), BTreeSet::from(["state".to_owned()]))]);
    let query = r#"sum(modelpress_jobs{state=~"queued|running",instance="a"}) / modelpress_gone + modelpress_jobs{team="x"}"#;
    assert_eq!(
        unknown(query, &served),
        ["modelpress_gone", "modelpress_jobs{team}"]
    );
}

#[test]
fn every_alert_has_its_paragraph_and_its_test() {
    let (pages, tests) = (read("config/ALERTS.md"), read("tests/monitoring/alerts.test.yml"));
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = text(&rule["alert"]).to_owned();
        let link = text(&rule["annotations"]["runbook_url"]);
        assert_eq!(link, format!("config/ALERTS.md#{}", name.to_lowercase()));
        assert!(
            ["warning", "critical"].contains(&text(&rule["labels"]["severity"])),
            "{name}"
        );
        assert!(!text(&rule["annotations"]["summary"]).is_empty(), "{name}");
        let page = pages.split_once(&format!("\n## {name}\n")).expect(&name).1;
        let page = page.split("\n## ").next().expect("a part");
        for word in ["**Means**", "**Look at**", "**Do**"] {
            let there = page.to_lowercase().contains(&word.to_lowercase());
            assert!(there || page.contains("**do** as for"), "{name}: no {word}");
        }
        assert!(
            tests.contains(&format!("alertname: {name}\n        exp_alerts")),
            "{name}: no test"
        );
        names.insert(name);
    }
    let headings = pages.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.map(str::to_owned).collect::<BTreeSet<_>>(), names);
}
