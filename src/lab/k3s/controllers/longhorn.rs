//! Longhorn's manager, where its chart is installed: it makes an object of its own for every node it runs on.
//!
//! Kept: the object, named as the node, with fields for others to fill in. Left out: disks, volumes, replicas.

use serde_json::json;

use super::Tools;
use crate::lab::k3s::object;

const NODES: &str = "nodes.longhorn.io";

pub fn step(tools: &Tools<'_>) {
    if super::super::resources::stored(tools.store, NODES).is_none() {
        return;
    }
    for pod in tools.list("pods").iter().filter(|pod| is_manager(pod)) {
        let (namespace, node) =
            (object::namespace(pod), pod["spec"]["nodeName"].as_str().unwrap_or_default());
        if tools.get(NODES, namespace, node).is_none() {
            let spec = json!({ "allowScheduling": true, "disks": {}, "name": node, "tags": [] });
            tools.create(NODES, namespace, json!({ "metadata": { "name": node }, "spec": spec }));
        }
    }
}

fn is_manager(pod: &serde_json::Value) -> bool {
    let owners = object::items(&pod["metadata"]["ownerReferences"]);
    object::is_ready(pod)
        && owners.iter().any(|owner| owner["kind"] == "DaemonSet" && owner["name"] == "longhorn-manager")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_known_by_its_owner() {
        let pod = |owner: &str, ready: &str| {
            json!({
                "metadata": { "ownerReferences": [{ "kind": "DaemonSet", "name": owner }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            })
        };
        assert!(is_manager(&pod("longhorn-manager", "True")));
        assert!(!is_manager(&pod("longhorn-manager", "False")) && !is_manager(&pod("other", "True")));
    }
}
