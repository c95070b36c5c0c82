//! The main job as the README has it: the shipped inventory becomes a cluster of seven nodes that follows Git, in the lab
//! and unpinned.

use serde_json::Value;

use crate::run::{self, Run};
use crate::support;
use crate::table::TABLE;

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
    let bootstrap = |lab: &support::Fixture| -> Run { run::json(lab, &["bootstrap", "--all", &flag]) };

    // On machines that are nothing yet, what the cluster will be can be told all the same.
    let plan = run::json(&lab, &["bootstrap", "--all", "--dry-run", "--detailed-exitcode", &flag]);
    plan.ends_with(2);
    assert!(plan.resources("differs", "orpi-0").contains(&"helm_chart automation/argo-cd"), "{}", plan.text);

    bootstrap(&lab).ends_with(0);
    let second = bootstrap(&lab);
    second.ends_with(0);
    for (node, _) in NODES {
        second.finished(node, 0, 0);
    }

    let (code, table, _) = run::plain(&lab, &["status", "--format", "json", &flag]);
    assert_eq!(code, Some(0), "{table}");
    let picture: Value = serde_json::from_str(&table).expect("JSON");
    let rows = picture["nodes"].as_array().expect("rows");
    for ((node, _), row) in NODES.iter().zip(rows) {
        assert_eq!((&row["node"], &row["state"]), (&(*node).into(), &"Ready".into()), "{table}");
        assert_eq!(row["drift"], Value::Array(Vec::new()), "{table}");
    }
    assert_eq!(rows.len(), NODES.len(), "{table}");

    let applications = picture["applications"].as_array().expect("rows");
    assert_eq!(applications.len(), 8, "seven parts of the core, and the workflows: {table}");
    for application in applications {
        assert_eq!(
            (&application["sync"], &application["health"]),
            (&"Synced".into(), &"Healthy".into()),
            "{table}"
        );
    }

    lab.adopt();
    every_chart_is_released(&lab);
    let nodes: Value =
        serde_json::from_str(&lab.sh("orpi-0", "k3s kubectl get nodes -o json")).expect("JSON");
    let metadata = |hostname: &str| {
        let mut items = nodes["items"].as_array().expect("a list").iter();
        items.find(|item| item["metadata"]["name"] == hostname).expect("joined")["metadata"].clone()
    };
    let disks = metadata(&lab.machine("orpi-1").hostname);
    let disks =
        disks["annotations"]["node.longhorn.io/default-disks-config"].as_str().expect("Longhorn's disks");
    let disks: Value = serde_json::from_str(disks).expect("JSON");
    assert_eq!(disks, serde_json::json!([{ "path": "/var/lib/longhorn/", "allowScheduling": true }]));
    for (node, wanted) in NODES {
        let seen = &metadata(&lab.machine(node).hostname)["labels"];
        for (key, value) in *wanted {
            assert_eq!(seen[key], *value, "{node}: {seen}");
        }
    }
}

/// Object by object, as the cluster has them.
fn every_chart_is_released(lab: &support::Fixture) {
    let read = |what: &str| -> Value {
        serde_json::from_str(&lab.sh("orpi-0", &format!("k3s kubectl get {what} -o json"))).expect("JSON")
    };
    let charts = read("helmcharts -n kube-system");
    let mut seen: Vec<[&str; 5]> = charts["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|chart| {
            let spec = |field: &str| chart["spec"][field].as_str().unwrap_or_default();
            let name = chart["metadata"]["name"].as_str().unwrap_or_default();
            [name, spec("chart"), spec("repo"), spec("version"), spec("targetNamespace")]
        })
        .filter(|[_, _, repo, ..]| !repo.is_empty())
        .collect();
    seen.sort_unstable();
    let mut wanted = TABLE.to_vec();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    // What Helm has noted of each: this version, with the values of its HelmChart and no others.
    for [release, _, _, version, namespace] in TABLE {
        let secrets = read(&format!("secrets -n {namespace} -l owner=helm,name={release},status=deployed"));
        let [secret] = &secrets["items"].as_array().expect("a list")[..] else {
            panic!("{release}: {secrets}")
        };
        let packed = secret["data"]["release"].as_str().expect("text");
        let noted = lab.sh("orpi-0", &format!("echo {packed} | base64 -d | base64 -d | gunzip"));
        let noted: Value = serde_json::from_str(&noted).expect("JSON");
        assert_eq!(noted["chart"]["metadata"]["version"], *version, "{release}");
        let chart = charts["items"].as_array().expect("a list").iter();
        let chart = chart.clone().find(|chart| chart["metadata"]["name"] == *release).expect("it is there");
        let values = chart["spec"]["valuesContent"].as_str().unwrap_or("{}");
        let values: Value = serde_saphyr::from_str(values).expect("YAML");
        assert_eq!(noted["config"], values, "{release}");
    }
}
