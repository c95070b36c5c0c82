//! A node's labels, annotations and taints as the inventory wants them; what others have set stays.
//!
//! Labels and annotations go by server-side apply, so the API itself remembers which are ours: one that is no
//! longer wanted is removed, and one that somebody else set to another value is taken over, as `kubectl apply
//! --server-side --force-conflicts` does: the inventory is the one place that says what they are. Taints are
//! one undivided list to the API, written by the kubelet and by controllers too. So which are ours is noted
//! in an annotation of the same write, and the write holds only for the version of the node it was made from.

use std::collections::{BTreeMap, BTreeSet};

use ::kube::api::{Patch, PatchParams};
use k8s_openapi::api::core::v1::Node as ApiNode;
use serde_json::{Value, json};

use super::MANAGER;
use super::client::Cluster;
use super::error::Error;
use super::node::Taint;
use super::object::applied_keys;
use crate::resource::Difference;

/// The annotation that names the taints that are ours, `key:Effect` and comma-separated.
pub const TAINTS_ANNOTATION: &str = "datahub.home.arpa/taints";

/// How often a write is made anew because the node has changed meanwhile; kubelets write every few seconds.
const ATTEMPTS: usize = 10;

/// What a node should have, beside what others have given it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeWanted {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

/// What differs between a node and what is wanted of it. Pure; empty when nothing does.
pub fn node_drift(node: &ApiNode, wanted: &NodeWanted) -> Vec<Difference> {
    let mut differences = map_drift(node, wanted);
    differences.extend(taint_drift(node, wanted));
    differences
}

fn map_drift(node: &ApiNode, wanted: &NodeWanted) -> Vec<Difference> {
    let metadata = &node.metadata;
    let maps = [
        ("label", "f:labels", &metadata.labels, &wanted.labels),
        ("annotation", "f:annotations", &metadata.annotations, &wanted.annotations),
    ];
    let mut differences = Vec::new();
    for (kind, field, seen, wanted) in maps {
        let managed = metadata.managed_fields.as_deref().unwrap_or_default();
        let ours = applied_keys(managed, &["f:metadata", field]);
        let keys: BTreeSet<&String> = wanted.keys().chain(&ours).collect();
        for key in keys {
            let before = seen.as_ref().and_then(|seen| seen.get(key)).map(String::as_str);
            let after = wanted.get(key).map(String::as_str);
            if before != after {
                differences.push(Difference::value(format!("{kind} {key}"), before, after));
            }
        }
    }
    differences
}

fn identity(taint: &Taint) -> String {
    format!("{}:{}", taint.key, taint.effect)
}

fn taint_drift(node: &ApiNode, wanted: &NodeWanted) -> Vec<Difference> {
    let seen: BTreeMap<String, Taint> =
        taints(node).iter().map(Taint::from).map(|taint| (identity(&taint), taint)).collect();
    let wanted: BTreeMap<String, &Taint> =
        wanted.taints.iter().map(|taint| (identity(taint), taint)).collect();
    let ours = our_taints(node);
    let keys: BTreeSet<&String> = wanted.keys().chain(&ours).collect();
    keys.into_iter()
        .filter_map(|key| {
            let before = seen.get(key).map(|taint| taint.value.as_str());
            let after = wanted.get(key).map(|taint| taint.value.as_str());
            (before != after).then(|| Difference::value(format!("taint {key}"), before, after))
        })
        .collect()
}

fn taints(node: &ApiNode) -> &[k8s_openapi::api::core::v1::Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn our_taints(node: &ApiNode) -> BTreeSet<String> {
    let noted = node.metadata.annotations.as_ref().and_then(|all| all.get(TAINTS_ANNOTATION));
    noted
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The whole list: foreign taints as they are, then the wanted ones.
fn taint_patch(node: &ApiNode, wanted: &NodeWanted) -> Value {
    let wanted_keys: BTreeSet<String> = wanted.taints.iter().map(identity).collect();
    let ours = our_taints(node);
    let foreign = taints(node).iter().filter(|taint| {
        let key = identity(&Taint::from(*taint));
        !ours.contains(&key) && !wanted_keys.contains(&key)
    });
    let own = wanted.taints.iter().map(|taint| {
        let mut own = json!({ "key": taint.key, "effect": taint.effect });
        if !taint.value.is_empty() {
            own["value"] = taint.value.clone().into();
        }
        own
    });
    let all: Vec<Value> = foreign.map(|taint| json!(taint)).chain(own).collect();
    let note = wanted_keys.into_iter().collect::<Vec<_>>().join(",");
    json!({
        "metadata": {
            "resourceVersion": node.metadata.resource_version,
            // Null takes it away in a merge patch.
            "annotations": { TAINTS_ANNOTATION: (!note.is_empty()).then_some(note) },
        },
        "spec": { "taints": all },
    })
}

/// The uid keeps an apply from creating a node that has gone away meanwhile.
fn map_patch(node: &ApiNode, wanted: &NodeWanted) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.metadata.name,
            "uid": node.metadata.uid,
            "labels": wanted.labels,
            "annotations": wanted.annotations,
        },
    })
}

impl Cluster {
    /// Gives a node the labels, annotations and taints that are wanted and takes away those that were ours
    /// and no longer are. What was changed; nothing is written where nothing differs.
    pub async fn apply_node(&self, name: &str, wanted: &NodeWanted) -> Result<Vec<Difference>, Error> {
        let api = self.node_api();
        let what = format!("set the labels and annotations of node {name}");
        let node = self.present(name).await?;
        let mut changed = map_drift(&node, wanted);
        if !changed.is_empty() {
            let patch = Patch::Apply(map_patch(&node, wanted));
            let by = PatchParams::apply(MANAGER).force();
            self.call(&what, || api.patch(name, &by, &patch)).await?;
        }
        changed.extend(self.apply_taints(name, wanted).await?);
        Ok(changed)
    }

    async fn apply_taints(&self, name: &str, wanted: &NodeWanted) -> Result<Vec<Difference>, Error> {
        let api = self.node_api();
        let what = format!("set the taints of node {name}");
        let by = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let mut attempt = 1;
        loop {
            let node = self.present(name).await?;
            let changed = taint_drift(&node, wanted);
            if changed.is_empty() {
                return Ok(changed);
            }
            let patch = Patch::Merge(taint_patch(&node, wanted));
            match self.call(&what, || api.patch(name, &by, &patch)).await {
                Ok(_) => return Ok(changed),
                Err(Error::Refused { code: 409, .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn present(&self, name: &str) -> Result<ApiNode, Error> {
        self.raw_node(name).await?.ok_or_else(|| Error::NotFound { what: format!("node {name}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> ApiNode {
        serde_json::from_value(json!({
            "metadata": {
                "name": "nas", "uid": "u1", "resourceVersion": "7",
                "labels": { "zone": "a", "old": "x", "foreign": "y" },
                "annotations": { TAINTS_ANNOTATION: "gpu:NoSchedule,slow:NoExecute" },
                "managedFields": [
                    { "manager": "datahub", "operation": "Apply",
                      "fieldsV1": { "f:metadata": { "f:labels": { "f:zone": {}, "f:old": {} } } } },
                    { "manager": "k3s", "operation": "Update",
                      "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:foreign": {} } } } },
                ],
            },
            "spec": { "taints": [
                { "key": "node.kubernetes.io/odd", "effect": "NoExecute", "timeAdded": "2026-01-02T03:04:05Z" },
                { "key": "gpu", "value": "yes", "effect": "NoSchedule" },
                { "key": "slow", "effect": "NoExecute" },
            ]},
        }))
        .expect("a node")
    }

    fn wanted(labels: &[(&str, &str)], taints: &[&str]) -> NodeWanted {
        NodeWanted {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            annotations: BTreeMap::new(),
            taints: taints.iter().map(|text| text.parse().expect("a taint")).collect(),
        }
    }

    #[test]
    fn drift_is_what_is_wanted_and_what_was_ours() {
        let value = Difference::value;
        let same = wanted(&[("zone", "a"), ("old", "x")], &["gpu=yes:NoSchedule", "slow:NoExecute"]);
        assert_eq!(node_drift(&node(), &same), []);
        let table: [(NodeWanted, Vec<Difference>); 3] = [
            (
                wanted(
                    &[("zone", "b"), ("old", "x"), ("new", "")],
                    &["gpu=yes:NoSchedule", "slow:NoExecute"],
                ),
                vec![value("label new", None, Some("")), value("label zone", Some("a"), Some("b"))],
            ),
            (
                wanted(&[("zone", "a")], &["gpu=no:NoSchedule", "gpu=yes:NoExecute"]),
                vec![
                    value("label old", Some("x"), None),
                    value("taint gpu:NoExecute", None, Some("yes")),
                    value("taint gpu:NoSchedule", Some("yes"), Some("no")),
                    value("taint slow:NoExecute", Some(""), None),
                ],
            ),
            (
                NodeWanted::default(),
                vec![
                    value("label old", Some("x"), None),
                    value("label zone", Some("a"), None),
                    value("taint gpu:NoSchedule", Some("yes"), None),
                    value("taint slow:NoExecute", Some(""), None),
                ],
            ),
        ];
        for (wanted, differences) in table {
            assert_eq!(node_drift(&node(), &wanted), differences);
        }
    }

    #[test]
    fn foreign_taints_stay_as_they_are() {
        let patch = taint_patch(&node(), &wanted(&[], &["gpu=no:NoSchedule"]));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["annotations"][TAINTS_ANNOTATION], "gpu:NoSchedule");
        assert_eq!(
            patch["spec"]["taints"],
            json!([
                { "key": "node.kubernetes.io/odd", "effect": "NoExecute", "timeAdded": "2026-01-02T03:04:05Z" },
                { "key": "gpu", "value": "no", "effect": "NoSchedule" },
            ])
        );
        let none = taint_patch(&node(), &NodeWanted::default());
        assert_eq!(none["metadata"]["annotations"][TAINTS_ANNOTATION], Value::Null);
        assert_eq!(none["spec"]["taints"].as_array().map(Vec::len), Some(1));
    }
}
