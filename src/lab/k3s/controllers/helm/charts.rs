//! The table of charts, `charts.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let table: Table =
        toml::from_str(include_str!("charts.toml")).expect("the table of charts is well formed");
    table.chart
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    chart: Vec<Row>,
}

/// A chart. `charts.toml` says what the fields mean.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    pub base: Option<String>,
    #[serde(default)]
    pub joined: bool,
    #[serde(default)]
    pub values: Value,
    #[serde(default)]
    pub workload: Vec<Workload>,
    #[serde(default)]
    pub other: Vec<Other>,
    #[serde(default)]
    pub definitions: Definitions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub when: Vec<String>,
    #[serde(default)]
    pub at: String,
    pub replicas: Option<String>,
    pub label: Option<String>,
    pub component: Option<String>,
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub when: Vec<String>,
    pub data: Option<String>,
    #[serde(default)]
    pub body: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definitions {
    #[serde(default)]
    pub folder: bool,
    #[serde(default)]
    pub when: Vec<String>,
    pub keep: Option<String>,
    #[serde(default)]
    pub list: Vec<String>,
}

/// The row of a chart; of one that nobody has described, a Deployment.
pub fn row(name: &str) -> Row {
    let unknown = || {
        let workload =
            Workload { kind: "Deployment".into(), name: "{release}".into(), ..Workload::default() };
        Row { name: name.to_owned(), workload: vec![workload], ..Row::default() }
    };
    ROWS.iter().find(|row| row.name == name).cloned().unwrap_or_else(unknown)
}

/// A definition's name and spec, from its line in the table.
pub fn definition(line: &str) -> (String, Value) {
    let mut words = line.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (place, plural, kind, scope) = (next(), next(), next(), next());
    let (group, versions) = place.split_once('/').unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let subresources = if rest.contains(&"status") { json!({"status": {}}) } else { json!({}) };
    let short = rest.iter().find_map(|word| word.strip_prefix('(')?.strip_suffix(')'));
    let version = |(at, name): (usize, &str)| {
        json!({
            "name": name, "served": true, "storage": at == 0, "subresources": subresources,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        })
    };
    let versions: Vec<Value> = versions.split(',').enumerate().map(version).collect();
    let mut names = json!({
        "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
    });
    if let Some(short) = short {
        names["shortNames"] = short.split(',').collect();
    }
    let spec = json!({
        "group": group, "scope": scope, "names": names, "versions": versions, "conversion": {"strategy": "None"},
    });
    (format!("{plural}.{group}"), spec)
}

#[cfg(test)]
mod tests {
    use super::super::render::KINDS;
    use super::*;

    #[test]
    fn the_table_is_whole() {
        assert!(ROWS.len() >= 13);
        for row in ROWS.iter() {
            let kinds =
                row.workload.iter().map(|workload| &workload.kind).chain(row.other.iter().map(|o| &o.kind));
            for kind in kinds {
                assert!(KINDS.iter().any(|(known, ..)| known == kind), "{}: {kind}", row.name);
            }
            for line in &row.definitions.list {
                let (name, spec) = definition(line);
                let scope = spec["scope"].as_str().unwrap_or_default();
                assert!(["Namespaced", "Cluster"].contains(&scope), "{line}");
                assert!(name.contains('.') && spec["versions"][0]["storage"] == true, "{line}");
            }
        }
        let (name, spec) = definition("a.org/v2,v1 things Thing Cluster status (t,th)");
        assert_eq!(name, "things.a.org");
        assert_eq!(spec["names"]["shortNames"], json!(["t", "th"]));
        assert_eq!(
            (&spec["versions"][1]["name"], &spec["versions"][1]["storage"]),
            (&json!("v1"), &json!(false))
        );
    }
}
