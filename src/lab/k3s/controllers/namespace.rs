//! Namespaces: what every one has, and how one goes.

use serde_json::{Value, json};

use super::Tools;
use crate::lab::k3s::object;

pub fn step(tools: &Tools<'_>, ca: &str) {
    for namespace in tools.list("namespaces") {
        match object::is_going(&namespace) {
            true => empty(tools, &namespace),
            false => furnish(tools, object::name(&namespace), ca),
        }
    }
}

/// The default service account and the cluster's CA.
fn furnish(tools: &Tools<'_>, name: &str, ca: &str) {
    if tools.get("serviceaccounts", name, "default").is_none() {
        tools.create("serviceaccounts", name, json!({"metadata": {"name": "default"}}));
    }
    if tools.get("configmaps", name, "kube-root-ca.crt").is_none() {
        let map = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ca}});
        tools.create("configmaps", name, map);
    }
}

/// Deletes what is in a namespace that is going; the last object takes the namespace along.
fn empty(tools: &Tools<'_>, namespace: &Value) {
    let keys = tools.store.keys_in(object::name(namespace));
    if keys.is_empty() {
        tools.modify("namespaces", namespace, |namespace| namespace["spec"]["finalizers"] = json!([]));
        return;
    }
    for key in keys {
        if let Some(found) = tools.store.get(&key).filter(|found| !object::is_going(found)) {
            tools.delete(&key.resource, &found);
        }
    }
}
