//! Nodes as the cluster sees them: reading, waiting until one is ready, cordoning, deleting.

use std::collections::BTreeMap;
use std::time::Duration;

use ::kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use ::kube::runtime::watcher;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node as ApiNode, NodeCondition, Pod, Secret};
use serde::Serialize;
use serde_json::json;

use super::client::Cluster;
use super::error::Error;
use super::watch::Late;
use crate::transport::prompt::printable;

/// A node of the cluster. Texts are made printable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    pub ready: bool,
    /// The Ready condition's reason and message: `KubeletNotReady: container runtime is down`.
    pub why: String,
    /// When the Ready condition last changed.
    #[serde(serialize_with = "timestamp")]
    pub since: Option<Timestamp>,
    #[serde(serialize_with = "timestamp")]
    pub created: Option<Timestamp>,
    /// `v1.36.2+k3s1`.
    pub kubelet_version: String,
    /// `containerd://2.3.2-k3s1`.
    pub container_runtime: String,
    pub kernel: String,
    /// Differs after every start of the machine.
    pub boot_id: String,
    pub addresses: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Cordoned: no new pods are placed on it.
    pub unschedulable: bool,
    /// In the API's quantities: `cpu` → `4`, `memory` → `7951308Ki`.
    pub allocatable: BTreeMap<String, String>,
    /// Conditions other than Ready that are true: `MemoryPressure`, `DiskPressure`.
    pub pressure: Vec<String>,
}

/// Keeps pods away that do not tolerate it. Key and effect together identify it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Taint {
    pub key: String,
    /// May be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl std::fmt::Display for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

/// Why a text is not a taint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a taint: write key=value:Effect or key:Effect, with NoSchedule, PreferNoSchedule or NoExecute"
)]
pub struct BadTaint(String);

impl std::str::FromStr for Taint {
    type Err = BadTaint;

    fn from_str(text: &str) -> Result<Self, BadTaint> {
        let bad = || BadTaint(text.to_owned());
        let (left, effect) = text.rsplit_once(':').ok_or_else(bad)?;
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            return Err(bad());
        }
        Ok(Self { key: key.into(), value: value.into(), effect: effect.into() })
    }
}

fn timestamp<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

/// When a node counts as ready, beyond its Ready condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// The kubelet's version: after an upgrade the node is ready under the old one for a while.
    pub version: Option<String>,
    /// A boot id it must no longer have: after a reboot its last word still stands for most of a minute.
    pub rebooted_since: Option<String>,
}

impl Ready {
    /// What is still missing; `None` when nothing is.
    pub fn missing(&self, node: Option<&Node>) -> Option<String> {
        let Some(node) = node else { return Some("it has not joined the cluster".into()) };
        if self.rebooted_since.as_ref() == Some(&node.boot_id) {
            return Some("it has not reported since it was restarted".into());
        }
        if let Some(version) = &self.version
            && *version != node.kubelet_version
        {
            return Some(format!("its kubelet is {}, not {version}", node.kubelet_version));
        }
        (!node.ready).then(|| match node.why.as_str() {
            "" => "the kubelet has not reported yet".into(),
            why => why.to_owned(),
        })
    }
}

impl From<&ApiNode> for Node {
    fn from(node: &ApiNode) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let text = |text: &str| printable(text);
        let map = |map: Option<BTreeMap<String, String>>| {
            map.unwrap_or_default().iter().map(|(key, value)| (text(key), text(value))).collect()
        };
        Self {
            name: text(node.metadata.name.as_deref().unwrap_or_default()),
            ready: ready.is_some_and(|ready| ready.status == "True"),
            why: ready.map(because).unwrap_or_default(),
            since: ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0),
            created: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
            kubelet_version: text(&info.kubelet_version),
            container_runtime: text(&info.container_runtime_version),
            kernel: text(&info.kernel_version),
            boot_id: text(&info.boot_id),
            addresses: status.addresses.iter().flatten().map(|address| text(&address.address)).collect(),
            labels: map(node.metadata.labels.clone()),
            annotations: map(node.metadata.annotations.clone()),
            taints: spec.taints.iter().flatten().map(Taint::from).collect(),
            unschedulable: spec.unschedulable.unwrap_or_default(),
            allocatable: map(status.allocatable.map(|all| all.into_iter().map(|(k, v)| (k, v.0)).collect())),
            pressure: conditions
                .iter()
                .filter(|condition| condition.type_ != "Ready" && condition.status == "True")
                .map(|condition| text(&condition.type_))
                .collect(),
        }
    }
}

impl From<&k8s_openapi::api::core::v1::Taint> for Taint {
    fn from(taint: &k8s_openapi::api::core::v1::Taint) -> Self {
        Self {
            key: printable(&taint.key),
            value: printable(taint.value.as_deref().unwrap_or_default()),
            effect: printable(&taint.effect),
        }
    }
}

fn because(condition: &NodeCondition) -> String {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let message = condition.message.as_deref().unwrap_or_default();
    let text = [reason, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    printable(&text)
}

impl Cluster {
    pub(super) fn node_api(&self) -> Api<ApiNode> {
        Api::all(self.client.clone())
    }

    /// All nodes, by name.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let api = self.node_api();
        let all = ListParams::default();
        let list = self.call("list the nodes", || api.list(&all)).await?;
        let mut nodes: Vec<Node> = list.items.iter().map(Node::from).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// One node; `None` if it has not joined.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, Error> {
        Ok(self.raw_node(name).await?.as_ref().map(Node::from))
    }

    /// One node as the API has it, for [`super::node_settings::node_drift`].
    pub async fn raw_node(&self, name: &str) -> Result<Option<ApiNode>, Error> {
        let api = self.node_api();
        self.call(&format!("read node {name}"), || api.get_opt(name)).await
    }

    /// Watches a node until it is ready. `progress` hears what it still waits for, each time that changes.
    /// When time is up the error says what was missing, with the node's last events.
    pub async fn wait_ready(
        &self,
        name: &str,
        wanted: &Ready,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Node, Error> {
        let mut missing = String::new();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let what = format!("wait for node {name}");
        let found = self
            .follow(&what, self.node_api(), config, limit, |seen| {
                let node = seen.values().next().map(Node::from);
                match wanted.missing(node.as_ref()) {
                    None => node,
                    Some(still) => {
                        if still != missing {
                            progress(&still);
                            missing = still;
                        }
                        None
                    }
                }
            })
            .await?;
        match found {
            Ok(node) => Ok(node),
            Err(late) => Err(self.not_ready(name, limit, missing, late).await),
        }
    }

    async fn not_ready(&self, name: &str, limit: Duration, missing: String, late: Late) -> Error {
        let node = name.to_owned();
        match late {
            Some(last) => {
                let why = format!("the API server does not answer: {last}");
                Error::NotReady { node, limit, why, events: Vec::new() }
            }
            // The events are a help; that they cannot be had must not hide what is wrong.
            None => {
                let events = self.events("Node", name).await.unwrap_or_default();
                Error::NotReady { node, limit, why: missing, events }
            }
        }
    }

    /// The last warnings and news about an object, oldest first, at most eight.
    pub async fn events(&self, kind: &str, name: &str) -> Result<Vec<String>, Error> {
        let api: Api<Event> = Api::all(self.client.clone());
        let about = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let about = ListParams::default().fields(&about);
        let list = self.call(&format!("list the events of {name}"), || api.list(&about)).await?;
        let mut events: Vec<_> = list.items.iter().map(|event| (happened(event), line(event))).collect();
        events.sort();
        let from = events.len().saturating_sub(8);
        Ok(events.split_off(from).into_iter().map(|(_, line)| line).collect())
    }

    /// The pods that are placed on a node, in every state, by namespace and name.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, Error> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let mut pods = self.call(&format!("list the pods on {node}"), || api.list(&here)).await?.items;
        pods.sort_by_key(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
        Ok(pods)
    }

    /// No new pods are placed on the node. Whether that was new.
    pub async fn cordon(&self, node: &str) -> Result<bool, Error> {
        self.schedulable(node, false).await
    }

    /// Pods may be placed on the node again. Whether that was new.
    pub async fn uncordon(&self, node: &str) -> Result<bool, Error> {
        self.schedulable(node, true).await
    }

    async fn schedulable(&self, name: &str, wanted: bool) -> Result<bool, Error> {
        let what = format!("{} node {name}", if wanted { "uncordon" } else { "cordon" });
        let not_there = || Error::NotFound { what: format!("node {name}") };
        let node = self.node(name).await?.ok_or_else(not_there)?;
        if node.unschedulable != wanted {
            return Ok(false);
        }
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": (!wanted).then_some(true) } }));
        let (api, by) = (
            self.node_api(),
            PatchParams { field_manager: Some(super::MANAGER.into()), ..PatchParams::default() },
        );
        self.call(&what, || api.patch(name, &by, &patch)).await?;
        Ok(true)
    }

    /// Takes a node out of the cluster: its object, and the Secret with its password, without which a machine
    /// that was set up anew could not join under its old name. Whether anything was there.
    pub async fn delete_node(&self, name: &str) -> Result<bool, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), "kube-system");
        let node =
            self.remove(&format!("node {name}"), &self.node_api(), name, &DeleteParams::default()).await?;
        let password = format!("{name}.node-password.k3s");
        let what = format!("Secret kube-system/{password}");
        Ok(self.remove(&what, &secrets, &password, &DeleteParams::default()).await? || node)
    }

    /// Deletes an object if it is there.
    pub(super) async fn remove<K>(
        &self,
        what: &str,
        api: &Api<K>,
        name: &str,
        how: &DeleteParams,
    ) -> Result<bool, Error>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        match self.call(&format!("delete {what}"), || api.delete(name, how)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn happened(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    last.or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// `Warning InvalidDiskCapacity: invalid capacity 0 on image filesystem`.
fn line(event: &Event) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    printable(&format!("{} {}: {}", part(&event.type_), part(&event.reason), part(&event.message).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ready: &str) -> Node {
        let node: ApiNode = serde_json::from_value(json!({
            "metadata": { "name": "nas", "labels": { "zone": "a" } },
            "spec": { "unschedulable": true, "taints": [
                { "key": "gpu", "value": "yes", "effect": "NoSchedule" },
                { "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" },
            ]},
            "status": {
                "allocatable": { "cpu": "4", "memory": "7951308Ki" },
                "addresses": [{ "type": "Hostname", "address": "nas" }],
                "conditions": [
                    { "type": "MemoryPressure", "status": "True" },
                    { "type": "DiskPressure", "status": "False" },
                    { "type": "Ready", "status": ready, "lastTransitionTime": "2026-02-03T04:05:06Z",
                      "reason": "KubeletNotReady", "message": "runtime\u{1b}[2J is down" },
                ],
                "nodeInfo": {
                    "architecture": "amd64", "bootID": "b1", "containerRuntimeVersion": "containerd://2.3.2-k3s1",
                    "kernelVersion": "6.1", "kubeProxyVersion": "", "kubeletVersion": "v1.36.2+k3s1",
                    "machineID": "", "operatingSystem": "linux", "osImage": "Debian", "systemUUID": "",
                },
            },
        }))
        .expect("a node");
        Node::from(&node)
    }

    #[test]
    fn a_node_is_read() {
        let node = seen("False");
        assert_eq!((node.name.as_str(), node.ready, node.unschedulable), ("nas", false, true));
        assert_eq!(node.why, "KubeletNotReady: runtime[2J is down");
        assert_eq!(node.since.map(|at| at.to_string()).as_deref(), Some("2026-02-03T04:05:06Z"));
        assert_eq!(node.pressure, ["MemoryPressure"]);
        assert_eq!(node.allocatable["memory"], "7951308Ki");
        let taints: Vec<String> = node.taints.iter().map(Taint::to_string).collect();
        assert_eq!(taints, ["gpu=yes:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]);
        assert_eq!(Node::from(&ApiNode::default()), Node::default());
    }

    #[test]
    fn ready_is_more_than_a_condition() {
        let (ready, not) = (seen("True"), seen("False"));
        let any = Ready::default();
        let upgraded = Ready { version: Some("v1.37.0+k3s1".into()), ..Ready::default() };
        let rebooted = Ready { rebooted_since: Some("b1".into()), ..Ready::default() };
        assert_eq!(any.missing(Some(&ready)), None);
        assert_eq!(
            Ready { version: Some("v1.36.2+k3s1".into()), rebooted_since: Some("b0".into()) }
                .missing(Some(&ready)),
            None
        );
        let table: [(&Ready, Option<&Node>, &str); 4] = [
            (&any, None, "it has not joined the cluster"),
            (&any, Some(&not), "KubeletNotReady: runtime[2J is down"),
            (&upgraded, Some(&ready), "its kubelet is v1.36.2+k3s1, not v1.37.0+k3s1"),
            (&rebooted, Some(&ready), "it has not reported since it was restarted"),
        ];
        for (wanted, node, missing) in table {
            assert_eq!(wanted.missing(node).as_deref(), Some(missing));
        }
    }

    #[test]
    fn taints_are_written_as_kubectl_writes_them() {
        for text in ["gpu=yes:NoSchedule", "gpu:NoExecute", "a.b/c=:PreferNoSchedule"] {
            let taint: Taint = text.parse().expect("a taint");
            assert_eq!(taint.to_string(), text.replace("=:", ":"));
        }
        for text in ["", "gpu", "gpu=yes", ":NoSchedule", "=x:NoSchedule", "gpu=yes:Never"] {
            assert!(text.parse::<Taint>().is_err(), "{text}");
        }
    }
}
