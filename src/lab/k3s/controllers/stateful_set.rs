//! StatefulSets: numbered pods, one after the other.

use serde_json::{Value, json};

use super::{Tools, pods};
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const ID: &str = "statefulsets.apps";
const HASH: &str = "controller-revision-hash";

pub fn step(tools: &Tools<'_>) {
    for set in tools.list(ID).iter().filter(|set| !object::is_going(set)) {
        let revision = format!("{}-{}", object::name(set), object::hash(&set["spec"]["template"]));
        advance(tools, set, &revision);
        report(tools, set, &revision);
    }
}

/// Takes the next step: one pod more, one fewer, or one of the new template.
fn advance(tools: &Tools<'_>, set: &Value, revision: &str) {
    let wanted = set["spec"]["replicas"].as_i64().unwrap_or(1);
    let found = pods::of(tools, set);
    let number = |pod: &Value| -> i64 {
        object::name(pod).rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or(-1)
    };
    let at = |index: i64| -> Option<&Object> { found.iter().find(|pod| number(pod) == index) };
    let parallel = set["spec"]["podManagementPolicy"] == "Parallel";
    for index in 0..wanted {
        match at(index) {
            None => {
                create(tools, set, index, revision);
                if !parallel {
                    return;
                }
            }
            Some(pod)
                if !parallel && !object::is_ready(pod) && object::label(pod, HASH) == Some(revision) =>
            {
                return;
            }
            Some(_) => {}
        }
    }
    let surplus = found.iter().filter(|pod| number(pod) >= wanted && !object::is_going(pod));
    if let Some(last) = surplus.max_by_key(|pod| number(pod)) {
        tools.delete("pods", last);
        return;
    }
    if set["spec"]["updateStrategy"]["type"] == "OnDelete" || found.iter().any(|pod| object::is_going(pod)) {
        return;
    }
    let partition = set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
    let outdated =
        found.iter().filter(|pod| number(pod) >= partition && object::label(pod, HASH) != Some(revision));
    if let Some(last) = outdated.max_by_key(|pod| number(pod)) {
        tools.delete("pods", last);
    }
}

fn create(tools: &Tools<'_>, set: &Value, index: i64, revision: &str) {
    let name = format!("{}-{index}", object::name(set));
    let labels = [(HASH, revision), ("statefulset.kubernetes.io/pod-name", name.as_str())];
    let mut pod = pods::from_template(set, &labels);
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["hostname"] = json!(name);
    tools.create("pods", object::namespace(set), pod);
}

fn report(tools: &Tools<'_>, set: &Value, revision: &str) {
    let found = pods::of(tools, set);
    let count = |takes: &dyn Fn(&Value) -> bool| {
        found.iter().filter(|pod| pods::is_active(pod) && takes(pod)).count() as i64
    };
    let total = count(&|_| true);
    let updated = count(&|pod| object::label(pod, HASH) == Some(revision));
    let ready = count(&object::is_ready);
    let complete = updated == total && ready == total;
    tools.modify_status(ID, set, |set| {
        pods::put_status(
            set,
            &[
                ("replicas", total),
                ("readyReplicas", ready),
                ("availableReplicas", ready),
                ("updatedReplicas", updated),
                ("currentReplicas", if complete { total } else { total - updated }),
            ],
        );
        set["status"]["updateRevision"] = json!(revision);
        if complete || set["status"]["currentRevision"].is_null() {
            set["status"]["currentRevision"] = json!(revision);
        }
    });
}
