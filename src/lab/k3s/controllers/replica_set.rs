//! ReplicaSets: as many pods as wanted.

use serde_json::Value;

use super::{Tools, pods};
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const ID: &str = "replicasets.apps";

pub fn step(tools: &Tools<'_>) {
    for set in tools.list(ID).iter().filter(|set| !object::is_going(set)) {
        let mut active: Vec<Object> =
            pods::of(tools, set).into_iter().filter(|pod| pods::is_active(pod)).collect();
        let wanted = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
        for _ in active.len()..wanted {
            tools.create("pods", object::namespace(set), pods::from_template(set, &[]));
        }
        if active.len() > wanted {
            // The ready ones stay, and of these the oldest.
            active.sort_by_key(|pod| !object::is_ready(pod));
            active.iter().skip(wanted).for_each(|pod| tools.delete("pods", pod));
        }
        report(tools, set);
    }
}

fn report(tools: &Tools<'_>, set: &Value) {
    let found = pods::of(tools, set);
    let replicas = found.iter().filter(|pod| pods::is_active(pod)).count() as i64;
    let ready = pods::ready(&found) as i64;
    tools.modify_status(ID, set, |set| {
        pods::put_status(
            set,
            &[
                ("replicas", replicas),
                ("fullyLabeledReplicas", replicas),
                ("readyReplicas", ready),
                ("availableReplicas", ready),
            ],
        );
    });
}
