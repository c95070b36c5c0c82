//! The cluster's API against the simulated K3s: what one side thinks the API is, checked by the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::kube::api::DynamicObject;
use serde_json::{Value, json};

use super::drain::DrainOptions;
use super::node::{Ready, Taint};
use super::node_settings::{NodeWanted, node_drift};
use super::object::{ObjectRef, object};
use super::wait::Condition;
use super::{Cluster, Error, Options};
use crate::lab::k3s::testing::{Machine, apply, merge, url};
use crate::resource::Difference;
use crate::transport::local::Local;
use crate::transport::prompt::NoPrompts;

const VERSION: &str = "v1.36.3+k3s1";
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);

async fn connect(machine: &Machine) -> Cluster {
    let kubeconfig = machine.settings.path("/etc/rancher/k3s/k3s.yaml").display().to_string();
    let options = Options { kubeconfig, request: Duration::from_secs(10), patience: LONG };
    let local = Local::new(Arc::new(NoPrompts), None);
    Cluster::connect(Arc::new(local), options).await.expect("connects")
}

fn silent(_: &str) {}

fn made(value: Value) -> DynamicObject {
    object(value).expect("an object")
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn taints(texts: &[&str]) -> Vec<Taint> {
    texts.iter().map(|text| text.parse().expect("a taint")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_is_set_up_and_leaves() {
    let machine = Machine::new(VERSION);
    let running = machine.server("one", &[]).await.expect("started");
    let cluster = connect(&machine).await;
    cluster.wait_readyz(LONG, &silent).await.expect("ready");
    assert_eq!(cluster.server_version().await.expect("a version"), VERSION);

    let token = machine.read("/var/lib/rancher/k3s/server/node-token");
    let other = Machine::new(VERSION);
    let agent = other.agent("two", &url(&running), token.trim(), &[]);
    let wanted = Ready { version: Some(VERSION.into()), ..Ready::default() };
    let node = cluster.wait_ready("two", &wanted, LONG, &silent).await.expect("ready");
    assert!(!node.boot_id.is_empty() && node.container_runtime.starts_with("containerd://"), "{node:?}");
    cluster.wait_ready("one", &Ready::default(), LONG, &silent).await.expect("ready");
    let names: Vec<String> =
        cluster.nodes().await.expect("nodes").into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["one", "two"]);
    let newer = Ready { version: Some("v1.37.0+k3s1".into()), ..Ready::default() };
    let error = cluster.wait_ready("two", &newer, SHORT, &silent).await.expect_err("not that new");
    assert!(error.to_string().contains("its kubelet is v1.36.3+k3s1, not v1.37.0+k3s1"), "{error}");

    assert!(cluster.cordon("two").await.expect("cordoned"));
    assert!(!cluster.cordon("two").await.expect("cordoned already"));
    assert!(cluster.node("two").await.expect("read").expect("there").unschedulable);
    assert!(cluster.uncordon("two").await.expect("uncordoned"));
    assert!(!cluster.node("two").await.expect("read").expect("there").unschedulable);

    agent.abort();
    assert!(cluster.delete_node("two").await.expect("deleted"));
    assert!(!cluster.delete_node("two").await.expect("gone"));
    let password = ObjectRef::new("v1", "Secret", Some("kube-system"), "two.node-password.k3s");
    assert!(cluster.get(&password).await.expect("read").is_none());
    let missing = cluster.cordon("two").await.expect_err("gone");
    assert!(matches!(missing, Error::NotFound { .. }), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_gave_a_node_stays() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let cluster = connect(&machine).await;
    cluster.wait_ready("one", &Ready::default(), LONG, &silent).await.expect("ready");
    let path = "/api/v1/nodes/one";
    let labels = json!({ "theirs": "x", "zone": "old" });
    let foreign = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "labels": labels } });
    assert_eq!(apply(&machine.client(), path, "someone", true, foreign).await.code, 200);
    let taint =
        json!({ "spec": { "taints": [{ "key": "node.kubernetes.io/odd", "effect": "NoSchedule" }] } });
    assert_eq!(merge(&machine.client(), path, taint).await.code, 200);

    let wanted = NodeWanted {
        labels: map(&[("zone", "a"), ("disk", "ssd")]),
        annotations: map(&[("note", "by the window")]),
        taints: taints(&["gpu=yes:NoSchedule", "slow:PreferNoSchedule"]),
    };
    let node = cluster.raw_node("one").await.expect("read").expect("there");
    let drift = node_drift(&node, &wanted);
    assert_eq!(drift.len(), 5, "{drift:?}");
    assert_eq!(cluster.apply_node("one", &wanted).await.expect("applied"), drift);
    let node = cluster.raw_node("one").await.expect("read").expect("there");
    assert_eq!(node_drift(&node, &wanted), []);
    assert_eq!(cluster.apply_node("one", &wanted).await.expect("nothing to do"), []);

    let less = NodeWanted {
        labels: map(&[("zone", "a")]),
        taints: taints(&["gpu=no:NoSchedule"]),
        ..NodeWanted::default()
    };
    let changed = cluster.apply_node("one", &less).await.expect("applied");
    let value = Difference::value;
    assert_eq!(
        changed,
        [
            value("label disk", Some("ssd"), None),
            value("annotation note", Some("by the window"), None),
            value("taint gpu:NoSchedule", Some("yes"), Some("no")),
            value("taint slow:PreferNoSchedule", Some(""), None),
        ]
    );
    let node = cluster.node("one").await.expect("read").expect("there");
    assert_eq!((node.labels["theirs"].as_str(), node.labels["zone"].as_str()), ("x", "a"));
    assert!(!node.labels.contains_key("disk") && !node.annotations.contains_key("note"), "{node:?}");
    let all: Vec<String> = node.taints.iter().map(Taint::to_string).collect();
    assert_eq!(all, ["node.kubernetes.io/odd:NoSchedule", "gpu=no:NoSchedule"]);
    let none = cluster.apply_node("one", &NodeWanted::default()).await.expect("applied");
    assert_eq!(none.len(), 2, "{none:?}");
    assert_eq!(cluster.apply_node("one", &NodeWanted::default()).await.expect("nothing to do"), []);
}

/// A pod on node `one`, as a ReplicaSet would have made it.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": { "nodeName": "one", "containers": [{ "name": "main", "image": "web" }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_but_for_a_budget() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let cluster = connect(&machine).await;
    cluster.wait_ready("one", &Ready::default(), LONG, &silent).await.expect("ready");
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "careful", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "held" } } } });
    for thing in [pod("held"), pod("plain"), budget.clone()] {
        cluster.apply(&made(thing)).await.expect("applied");
    }
    let running = Condition::of("running", |pod| match pod.data["status"]["phase"].as_str() {
        Some("Running") => super::wait::Check::Done,
        other => super::wait::Check::NotYet(format!("{other:?}")),
    });
    for name in ["held", "plain"] {
        let which = ObjectRef::new("v1", "Pod", None, name);
        cluster.wait(&which, &running, LONG, &silent).await.expect("running");
    }
    // Nothing owns these pods: an owner that does not exist would have them collected as garbage.
    let options = DrainOptions {
        timeout: SHORT,
        pause: Duration::from_millis(100),
        force_unmanaged: true,
        ..DrainOptions::default()
    };
    match cluster.drain("one", &options, &|_| ()).await.expect_err("held") {
        Error::DrainTimeout { pods, .. } => {
            let left: Vec<_> = pods.iter().map(|pod| (pod.pod.as_str(), pod.budget.as_deref())).collect();
            assert_eq!(left, [("default/held", Some("default/careful"))]);
        }
        other => panic!("{other:?}"),
    }
    let budget = ObjectRef::from(&made(budget));
    assert!(cluster.delete(&budget).await.expect("deleted"));
    cluster.drain("one", &DrainOptions { timeout: LONG, ..options }, &|_| ()).await.expect("drained");
    assert!(
        cluster
            .pods_on("one")
            .await
            .expect("pods")
            .iter()
            .all(|pod| pod.metadata.namespace.as_deref() != Some("default"))
    );
}

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.org" },
        "spec": { "group": "example.org", "scope": "Namespaced",
            "names": { "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_converge() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &["--disable-agent"]).await.expect("started");
    let cluster = connect(&machine).await;
    let widget = made(json!({
        "apiVersion": "example.org/v1", "kind": "Widget",
        "metadata": { "name": "w", "namespace": "shop" }, "spec": { "size": 1 },
    }));
    let unknown = cluster.diff(&widget).await.expect_err("not defined");
    assert!(matches!(unknown, Error::UnknownKind { .. }), "{unknown:?}");

    let definition = made(widgets());
    cluster.apply(&definition).await.expect("applied");
    cluster
        .wait(&ObjectRef::from(&definition), &Condition::established(), LONG, &silent)
        .await
        .expect("established");

    // A namespace that is not there yet is no reason to know nothing.
    let new = cluster.diff(&widget).await.expect("a diff");
    assert!(matches!(&new[..], [Difference::Text { before: None, .. }]), "{new:?}");
    let missing = cluster.apply(&widget).await.expect_err("no namespace");
    assert!(missing.is_not_found(), "{missing:?}");
    let namespace = made(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }));
    cluster.apply(&namespace).await.expect("applied");

    let secret = |plain: Value| {
        made(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "s", "namespace": "shop" }, "stringData": plain,
        }))
    };
    let less = secret(json!({ "password": "geheim" }));
    let secret = secret(json!({ "password": "geheim", "old": "geheim" }));
    for thing in [&widget, &secret] {
        let new = cluster.diff(thing).await.expect("a diff");
        assert!(!new.is_empty());
        assert!(
            !format!("{new:?}").contains("geheim") && !format!("{new:?}").contains("Z2VoZWlt"),
            "{new:?}"
        );
        cluster.apply(thing).await.expect("applied");
        assert_eq!(cluster.diff(thing).await.expect("a diff"), [], "{}", ObjectRef::from(thing));
    }
    assert_eq!(
        cluster.diff(&less).await.expect("a diff"),
        [Difference::Secret { attribute: "data.old".into() }]
    );
    cluster.apply(&less).await.expect("applied");
    let kept = cluster.get(&ObjectRef::from(&less)).await.expect("read").expect("there");
    assert_eq!(kept.data["data"], json!({ "password": "Z2VoZWlt" }));

    let which = ObjectRef::from(&widget);
    assert_eq!(cluster.get(&which).await.expect("read").expect("there").data["spec"]["size"], 1);
    assert!(cluster.delete(&which).await.expect("deleted"));
    assert!(!cluster.delete(&which).await.expect("gone"));
    assert!(cluster.wait(&which, &Condition::absent(), LONG, &silent).await.expect("gone").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_releases_go() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &["--disable-agent"]).await.expect("started");
    let cluster = connect(&machine).await;
    for (number, status) in [(1, "superseded"), (2, "deployed"), (3, "failed"), (4, "failed")] {
        let name = format!("sh.helm.release.v1.argo.v{number}");
        let labels =
            json!({ "owner": "helm", "name": "argo", "status": status, "version": number.to_string() });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
            "metadata": { "name": name, "namespace": "default", "labels": labels } });
        cluster.apply(&made(secret)).await.expect("applied");
    }
    let pruned = cluster.prune_helm_history(1).await.expect("pruned");
    assert_eq!(pruned, ["default/sh.helm.release.v1.argo.v3", "default/sh.helm.release.v1.argo.v1"]);
    let history = cluster.helm_history().await.expect("a history");
    let left: Vec<u64> = history.values().flatten().map(|revision| revision.number).collect();
    assert_eq!(left, [2, 4]);
    assert_eq!(cluster.prune_helm_history(1).await.expect("nothing to prune"), Vec::<String>::new());
}
