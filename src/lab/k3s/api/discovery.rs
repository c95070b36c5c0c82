//! Discovery: `/api`, `/apis`, and what each group and version serves.

use serde_json::{Value, json};

use super::{Reply, Request};
use crate::lab::k3s::cluster::Cluster;
use crate::lab::k3s::resources::{self, Resource};

pub fn answer(cluster: &Cluster, request: &Request) -> Option<Reply> {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let served = || resources::all(&cluster.store);
    let found = match parts.as_slice() {
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": cluster.address()}],
        })),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(&served())})),
        ["api", version] => resource_list(&served(), "", version),
        ["apis", group] => {
            groups(&served()).into_iter().find(|found| found["name"] == *group).map(|mut found| {
                found["kind"] = json!("APIGroup");
                found["apiVersion"] = json!("v1");
                found
            })
        }
        ["apis", group, version] => resource_list(&served(), group, version),
        _ => None,
    };
    found.map(|value| Reply::json(200, &value))
}

fn groups(served: &[Resource]) -> Vec<Value> {
    let mut names: Vec<&str> =
        served.iter().map(|r| r.group.as_str()).filter(|group| !group.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| group(served, name)).collect()
}

fn group(served: &[Resource], name: &str) -> Value {
    let mut versions: Vec<&str> =
        served.iter().filter(|r| r.group == name).map(|r| r.version.as_str()).collect();
    versions.dedup();
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions[0], "versions": versions})
}

fn resource_list(served: &[Resource], group: &str, version: &str) -> Option<Value> {
    let of_group: Vec<&Resource> =
        served.iter().filter(|r| r.group == group && r.version == version).collect();
    let first = of_group.first()?;
    let mut list = Vec::new();
    for resource in &of_group {
        list.push(resource.describe());
        let subresource = |name: &str, kind: &str, verbs: &[&str]| {
            json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            })
        };
        if resource.status {
            list.push(subresource("status", &resource.kind, &["get", "patch", "update"]));
        }
        if resource.id() == "pods" {
            let mut eviction = subresource("eviction", "Eviction", &["create"]);
            eviction["group"] = json!("policy");
            eviction["version"] = json!("v1");
            list.push(eviction);
            list.push(subresource("log", "Pod", &["get"]));
        }
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": list,
    }))
}
