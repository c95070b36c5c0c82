//! DaemonSets: one pod on each node that is wanted and tolerated.

use serde_json::{Value, json};

use super::{Tools, pods, scheduler};
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const ID: &str = "daemonsets.apps";
const HASH: &str = "controller-revision-hash";

/// What every DaemonSet's pods tolerate.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub fn step(tools: &Tools<'_>) {
    let nodes = tools.list("nodes");
    for set in tools.list(ID).iter().filter(|set| !object::is_going(set)) {
        let hash = object::hash(&set["spec"]["template"]);
        let pod = pod(set, &hash);
        let (wanted, other): (Vec<&Object>, Vec<&Object>) =
            nodes.iter().partition(|node| runs_on(node, &pod["spec"]));
        let found = pods::of(tools, set);
        for node in &wanted {
            if !found.iter().any(|pod| pods::is_active(pod) && is_on(pod, node)) {
                let mut pod = pod.clone();
                pod["spec"]["nodeName"] = json!(object::name(node));
                tools.create("pods", object::namespace(set), pod);
            }
        }
        for pod in found.iter().filter(|pod| !object::is_going(pod)) {
            if other.iter().any(|node| is_on(pod, node)) && !is_there_already(pod, &other) {
                tools.delete("pods", pod);
            }
        }
        replace_outdated(tools, set, &found, &hash);
        report(tools, set, wanted.len() as i64, &hash);
    }
}

fn is_on(pod: &Value, node: &Value) -> bool {
    pod["spec"]["nodeName"] == object::name(node)
}

/// A node that only lost its place for new pods keeps the ones it has.
fn is_there_already(pod: &Value, nodes: &[&Object]) -> bool {
    nodes.iter().filter(|node| is_on(pod, node)).any(|node| {
        scheduler::is_wanted(node, &pod["spec"]) && tolerates_all(node, &pod["spec"], "NoExecute")
    })
}

fn pod(set: &Value, hash: &str) -> Value {
    let mut pod = pods::from_template(set, &[(HASH, hash)]);
    let tolerations = object::list_mut(&mut pod["spec"], "tolerations");
    for (key, effect) in TOLERATED {
        tolerations.push(json!({"key": key, "operator": "Exists", "effect": effect}));
    }
    pod
}

fn tolerates_all(node: &Value, spec: &Value, effect: &str) -> bool {
    let tolerations = object::items(&spec["tolerations"]);
    object::items(&node["spec"]["taints"])
        .iter()
        .filter(|taint| taint["effect"] == effect)
        .all(|taint| tolerations.iter().any(|toleration| scheduler::tolerates(toleration, taint)))
}

fn runs_on(node: &Value, spec: &Value) -> bool {
    // The taints of an unready node keep new pods of others away, not those of a DaemonSet.
    let mut open = node.clone();
    object::list_mut(&mut open["spec"], "taints").retain(|taint| {
        taint["effect"] != "NoSchedule"
            || !["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
                .iter()
                .any(|key| taint["key"] == *key)
    });
    !object::is_going(node)
        && scheduler::is_wanted(node, spec)
        && tolerates_all(&open, spec, "NoSchedule")
        && tolerates_all(&open, spec, "NoExecute")
}

/// Deletes pods of an older template, as many at once as may be missing.
fn replace_outdated(tools: &Tools<'_>, set: &Value, found: &[Object], hash: &str) {
    if set["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return;
    }
    let active: Vec<&Object> = found.iter().filter(|pod| pods::is_active(pod)).collect();
    let missing = active.iter().filter(|pod| !object::is_ready(pod)).count() as i64;
    let limit = &set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
    let allowed = pods::limit(limit, active.len() as i64, true).max(1);
    let going = found.len() - active.len();
    let room = usize::try_from(allowed - missing - going as i64).unwrap_or(0);
    let outdated = active.iter().filter(|pod| object::label(pod, HASH) != Some(hash));
    // One that is not ready makes nothing worse.
    let (down, up): (Vec<&&Object>, Vec<&&Object>) = outdated.partition(|pod| !object::is_ready(pod));
    down.into_iter().chain(up.into_iter().take(room)).for_each(|pod| tools.delete("pods", pod));
}

fn report(tools: &Tools<'_>, set: &Value, desired: i64, hash: &str) {
    let found = pods::of(tools, set);
    let active: Vec<&Object> = found.iter().filter(|pod| pods::is_active(pod)).collect();
    let ready = pods::ready(&found) as i64;
    let updated = active.iter().filter(|pod| object::label(pod, HASH) == Some(hash)).count() as i64;
    tools.modify_status(ID, set, |set| {
        pods::put_status(
            set,
            &[
                ("currentNumberScheduled", active.len() as i64),
                ("desiredNumberScheduled", desired),
                ("numberAvailable", ready),
                ("numberMisscheduled", 0),
                ("numberReady", ready),
                ("numberUnavailable", (desired - ready).max(0)),
                ("updatedNumberScheduled", updated),
            ],
        );
    });
}
