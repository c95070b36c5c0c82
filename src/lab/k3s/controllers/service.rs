//! K3s's ServiceLB: a Service of type LoadBalancer gets the addresses of the ready nodes.

use serde_json::{Value, json};

use super::Tools;
use crate::lab::k3s::object;

pub fn step(tools: &Tools<'_>) {
    let nodes = tools.list("nodes");
    let addresses: Vec<Value> = nodes
        .iter()
        .filter(|node| object::is_ready(node))
        .flat_map(|node| object::items(&node["status"]["addresses"]))
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| json!({"ip": address["address"], "ipMode": "VIP"}))
        .collect();
    for service in tools.list("services").iter().filter(|service| service["spec"]["type"] == "LoadBalancer") {
        tools.modify_status("services", service, |service| {
            service["status"]["loadBalancer"] = json!({"ingress": addresses});
        });
    }
}
