//! The main job as the README has it: the shipped inventory becomes a cluster of seven nodes, in the lab and unpinned.

use serde_json::Value;

use crate::run::{self, Run};
use crate::support;

/// Every node and the labels it must have in the cluster.
const NODES: &[(&str, &[(&str, &str)])] = &[
    ("orpi-0", &[("node-role.kubernetes.io/control-plane", "true"), ("server-no-schedule", "true")]),
    ("orpi-1", &[("datahub.local/role", "compute"), ("longhorn.io/enabled", "true")]),
    ("orpi-2", &[("datahub.local/role", "compute"), ("longhorn.io/enabled", "true")]),
    ("orpi-3", &[("datahub.local/role", "compute"), ("longhorn.io/enabled", "true")]),
    ("amd-1", &[("datahub.local/role", "heavy-compute")]),
    ("nas", &[("datahub.local/role", "nas")]),
    ("laptop", &[("datahub.local/role", "dev")]),
];

#[test]
fn the_shipped_inventory_becomes_a_cluster() {
    let Some(mut lab) = support::lab("the_shipped_inventory_becomes_a_cluster") else { return };
    lab.write("datahub.toml", include_str!("../../inventory/datahub.toml"));
    let flag = format!("--lab={}", lab.name);
    let provision = |lab: &support::Fixture| -> Run { run::json(lab, &["provision", "--all", &flag]) };

    provision(&lab).ends_with(0);
    let second = provision(&lab);
    second.ends_with(0);
    for (node, _) in NODES {
        second.finished(node, 0, 0);
    }

    let (code, table, _) = run::plain(&lab, &["status", "--format", "json", &flag]);
    assert_eq!(code, Some(0), "{table}");
    let rows: Vec<Value> = serde_json::from_str(&table).expect("JSON");
    for ((node, _), row) in NODES.iter().zip(&rows) {
        assert_eq!((&row["node"], &row["state"]), (&(*node).into(), &"Ready".into()), "{table}");
        assert_eq!(row["drift"], Value::Array(Vec::new()), "{table}");
    }
    assert_eq!(rows.len(), NODES.len(), "{table}");

    lab.adopt();
    let nodes: Value =
        serde_json::from_str(&lab.sh("orpi-0", "k3s kubectl get nodes -o json")).expect("JSON");
    let labels = |hostname: &str| {
        let mut items = nodes["items"].as_array().expect("a list").iter();
        items.find(|item| item["metadata"]["name"] == hostname).expect("joined")["metadata"]["labels"].clone()
    };
    for (node, wanted) in NODES {
        let seen = labels(&lab.machine(node).hostname);
        for (key, value) in *wanted {
            assert_eq!(seen[key], *value, "{node}: {seen}");
        }
    }
}
