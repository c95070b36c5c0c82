//! What nobody owns any more: dependents of deleted objects, pods of nodes that are gone.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Tools;
use crate::lab::k3s::object;
use crate::lab::k3s::store::{Key, Object};

pub fn step(tools: &Tools<'_>) {
    lost_pods(tools);
    let all: Vec<(Key, Object)> = tools
        .store
        .keys()
        .into_iter()
        .filter_map(|key| Some((key.clone(), tools.store.get(&key)?)))
        .collect();
    let living: BTreeSet<&str> = all.iter().map(|(_, object)| object::uid(object)).collect();
    for (key, object) in &all {
        let owners = object::items(&object["metadata"]["ownerReferences"]);
        let orphaned = !owners.is_empty()
            && owners.iter().all(|owner| !living.contains(owner["uid"].as_str().unwrap_or_default()));
        if orphaned && !object::is_going(object) {
            tools.delete(&key.resource, object);
        }
        if object::is_going(object) {
            finalize(tools, key, object, &all);
        }
    }
}

/// A pod whose node is gone has nobody to stop it.
fn lost_pods(tools: &Tools<'_>) {
    for pod in tools.list("pods") {
        if pod["spec"]["nodeName"].as_str().is_some_and(|node| tools.get("nodes", "", node).is_none()) {
            tools.remove("pods", &pod);
        }
    }
}

/// Carries out a deletion's propagation: dependents first, or dependents let go.
fn finalize(tools: &Tools<'_>, key: &Key, owner: &Value, all: &[(Key, Object)]) {
    let has = |name: &str| object::has_finalizer(owner, name);
    let is_owner = |reference: &Value| reference["uid"] == object::uid(owner);
    let dependents = || {
        all.iter()
            .filter(|(_, object)| object::items(&object["metadata"]["ownerReferences"]).iter().any(is_owner))
    };
    let strike = |name: &'static str| {
        tools.modify(&key.resource, owner, |owner| object::strike_finalizer(owner, name));
    };
    if has("orphan") {
        for (key, dependent) in dependents() {
            tools.modify(&key.resource, dependent, |dependent| {
                object::list_mut(&mut dependent["metadata"], "ownerReferences")
                    .retain(|reference| reference["uid"] != object::uid(owner));
            });
        }
        strike("orphan");
    }
    if has("foregroundDeletion") {
        for (key, dependent) in dependents().filter(|(_, dependent)| !object::is_going(dependent)) {
            tools.delete(&key.resource, dependent);
        }
        if dependents().next().is_none() {
            strike("foregroundDeletion");
        }
    }
}
