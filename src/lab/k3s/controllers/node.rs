//! Nodes: who has stopped saying that it lives, the taints that follow, and the pods that have to leave.

use serde_json::{Value, json};

use super::Tools;
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub fn step(tools: &Tools<'_>) {
    let nodes = tools.list("nodes");
    for node in &nodes {
        if !object::is_going(node) {
            number(tools, node, &nodes);
            doubt(tools, node);
            taint(tools, node);
        }
    }
    let nodes = tools.list("nodes");
    let pods = tools.list("pods");
    for pod in &pods {
        let node = nodes.iter().find(|node| pod["spec"]["nodeName"] == object::name(node));
        if let Some(node) = node {
            follow(tools, node, pod);
        }
    }
    forget_passwords(tools, &nodes);
}

/// A new node gets the first pod network that is free.
fn number(tools: &Tools<'_>, node: &Value, nodes: &[Object]) {
    if node["spec"]["podCIDR"].is_string() {
        return;
    }
    let network = |number: usize| format!("10.42.{number}.0/24");
    let is_free = |network: &String| nodes.iter().all(|other| other["spec"]["podCIDR"] != network.as_str());
    if let Some(free) = (0..256).map(network).find(is_free) {
        tools.modify("nodes", node, |node| {
            node["spec"]["podCIDR"] = json!(free);
            node["spec"]["podCIDRs"] = json!([free]);
        });
    }
}

/// A node whose lease has run out is not known to be ready.
fn doubt(tools: &Tools<'_>, node: &Value) {
    let lease = tools.get("leases.coordination.k8s.io", "kube-node-lease", object::name(node));
    let renewed =
        lease.as_deref().map_or(&node["metadata"]["creationTimestamp"], |lease| &lease["spec"]["renewTime"]);
    let grace = tools.settings.grace.as_secs_f64();
    // After a start of the server its nodes get their time to be heard.
    let is_silent =
        object::age(renewed).is_none_or(|age| age > grace) && tools.since.elapsed() > tools.settings.grace;
    if is_silent && object::condition(node, "Ready") != Some("Unknown") {
        tools.modify_status("nodes", node, |node| {
            object::set_condition(
                node,
                "Ready",
                "Unknown",
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
            );
        });
    }
}

/// Keeps the taints that follow from a node's state.
fn taint(tools: &Tools<'_>, node: &Value) {
    let current = tools.get("nodes", "", object::name(node));
    let Some(node) = current else { return };
    let mut wanted: Vec<(&str, &str)> = match object::condition(&node, "Ready") {
        Some("True") => Vec::new(),
        Some("Unknown") => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        _ => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
    };
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let old = object::items(&node["spec"]["taints"]);
    let is_ours =
        |taint: &Value| [UNREACHABLE, NOT_READY, UNSCHEDULABLE].iter().any(|key| taint["key"] == *key);
    let mut new: Vec<Value> = old.iter().filter(|taint| !is_ours(taint)).cloned().collect();
    for (key, effect) in wanted {
        let kept = old.iter().find(|taint| taint["key"] == key && taint["effect"] == effect).cloned();
        new.push(kept.unwrap_or_else(|| json!({"key": key, "effect": effect, "timeAdded": object::now()})));
    }
    if new.as_slice() == old {
        return;
    }
    tools.modify("nodes", &node, |node| {
        let spec = object::map_mut(node, "spec");
        match new.is_empty() {
            true => drop(spec.remove("taints")),
            false => drop(spec.insert("taints".into(), json!(new))),
        }
    });
}

/// A pod of a silent node is not ready; one that does not tolerate its node's taints is deleted.
fn follow(tools: &Tools<'_>, node: &Value, pod: &Value) {
    if object::condition(node, "Ready") == Some("Unknown") && object::is_ready(pod) {
        tools.modify_status("pods", pod, |pod| {
            object::set_condition(pod, "Ready", "False", "NodeNotReady", "")
        });
    }
    if !object::is_going(pod) && must_leave(node, pod) {
        tools.delete("pods", pod);
    }
}

fn must_leave(node: &Value, pod: &Value) -> bool {
    object::items(&node["spec"]["taints"]).iter().filter(|taint| taint["effect"] == "NoExecute").any(
        |taint| {
            let tolerating: Vec<&Value> = object::items(&pod["spec"]["tolerations"])
                .iter()
                .filter(|toleration| super::scheduler::tolerates(toleration, taint))
                .collect();
            let age = object::age(&taint["timeAdded"]).unwrap_or(f64::MAX);
            let over = |toleration: &&Value| {
                toleration["tolerationSeconds"].as_f64().is_some_and(|limit| age >= limit)
            };
            tolerating.is_empty() || tolerating.iter().any(over)
        },
    )
}

/// K3s forgets a node's password when the node is deleted.
fn forget_passwords(tools: &Tools<'_>, nodes: &[Object]) {
    for secret in tools.store.list("secrets", "kube-system").0 {
        let Some(name) = object::name(&secret).strip_suffix(".node-password.k3s") else { continue };
        // A node that is just registering has its secret first.
        let is_old = object::age(&secret["metadata"]["creationTimestamp"]).is_some_and(|age| age > 60.0);
        if is_old && !nodes.iter().any(|node| object::name(node) == name) {
            tools.delete("secrets", &secret);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_nodes_they_do_not_tolerate() {
        let node = |key: &str, effect: &str| json!({"spec": {"taints": [{"key": key, "effect": effect, "timeAdded": "2020-01-01T00:00:00Z"}]}});
        let pod = |tolerations: Value| json!({"spec": {"tolerations": tolerations}});
        let for_ever = json!([{"key": "a", "operator": "Exists"}]);
        let a_while =
            json!([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        let cases = [
            (node("a", "NoExecute"), pod(json!([])), true),
            (node("a", "NoSchedule"), pod(json!([])), false),
            (node("a", "NoExecute"), pod(for_ever), false),
            (node("a", "NoExecute"), pod(a_while), true),
        ];
        for (node, pod, wanted) in cases {
            assert_eq!(must_leave(&node, &pod), wanted, "{node} {pod}");
        }
    }
}
