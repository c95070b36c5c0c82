//! What is in a new cluster before anybody applies anything.

use serde_json::{Value, json};

use super::objects::{CONTROLLER, Writer};
use super::resources::Resource;
use super::store::{Key, Store};
use super::{Failure, object, resources};

/// Makes what is missing: namespaces, the API's own Service, priority classes, K3s's custom resources.
pub fn objects(store: &Store) -> Result<(), Failure> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(store, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
    }
    ensure(
        store,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"],
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
            },
        }),
    )?;
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
    {
        ensure(
            store,
            json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value,
            }),
        )?;
    }
    definitions().into_iter().try_for_each(|definition| {
        let name = object::name(&definition).to_owned();
        ensure(store, definition)?;
        establish(store, &name)
    })
}

/// K3s waits for its own definitions before it goes on.
fn establish(store: &Store, name: &str) -> Result<(), Failure> {
    let Some(resource) = resources::stored(store, resources::DEFINITIONS) else { return Ok(()) };
    let writer = writer(store, &resource, "", name, "status");
    writer
        .modify(|definition| resources::accept(definition, true))
        .map(drop)
        .map_err(|error| Failure::said(error.message))
}

fn writer<'a>(
    store: &'a Store,
    resource: &'a Resource,
    namespace: &'a str,
    name: &'a str,
    subresource: &'a str,
) -> Writer<'a> {
    Writer { store, resource, namespace, name, subresource, manager: CONTROLLER, dry_run: false }
}

/// Creates an object that is not there yet.
pub fn ensure(store: &Store, wanted: Value) -> Result<(), Failure> {
    let resource = resources::of_object(store, &wanted)
        .ok_or_else(|| Failure::said(format!("no matches for kind {}", wanted["kind"])))?;
    let (namespace, name) = (object::namespace(&wanted).to_owned(), object::name(&wanted).to_owned());
    if store.get(&Key::new(&resource.id(), &namespace, &name)).is_some() {
        return Ok(());
    }
    writer(store, &resource, &namespace, &name, "")
        .create(wanted)
        .map(drop)
        .map_err(|error| Failure::said(error.message))
}

/// The custom resources K3s brings along.
fn definitions() -> Vec<Value> {
    [
        ("helm.cattle.io", "helmcharts", "HelmChart", "Namespaced", true),
        ("helm.cattle.io", "helmchartconfigs", "HelmChartConfig", "Namespaced", false),
        ("k3s.cattle.io", "addons", "Addon", "Namespaced", false),
        ("k3s.cattle.io", "etcdsnapshotfiles", "ETCDSnapshotFile", "Cluster", true),
    ]
    .into_iter()
    .map(|(group, plural, kind, scope, status)| {
        let singular = kind.to_lowercase();
        let subresources = if status { json!({"status": {}}) } else { json!({}) };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": scope, "conversion": {"strategy": "None"},
                "names": {
                    "plural": plural, "singular": singular, "kind": kind, "listKind": format!("{kind}List"),
                },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "subresources": subresources,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        })
    })
    .collect()
}
