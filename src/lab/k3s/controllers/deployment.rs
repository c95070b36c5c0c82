//! Deployments: a ReplicaSet for each template, rolled from the old to the new one.

use serde_json::{Value, json};

use super::{Tools, pods};
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const ID: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub fn step(tools: &Tools<'_>) {
    for deployment in tools.list(ID).iter().filter(|deployment| !object::is_going(deployment)) {
        let hash = object::hash(&deployment["spec"]["template"]);
        let name = format!("{}-{hash}", object::name(deployment));
        let sets = sets_of(tools, deployment);
        let (new, old): (Vec<Object>, Vec<Object>) =
            sets.into_iter().partition(|set| object::name(set) == name);
        match new.first() {
            None => create(tools, deployment, &name, &hash, &old),
            Some(new) if deployment["spec"]["paused"] != true => roll(tools, deployment, new, &old),
            Some(_) => {}
        }
        clean(tools, deployment, &old);
        report(tools, deployment, &name);
    }
}

fn sets_of(tools: &Tools<'_>, deployment: &Value) -> Vec<Object> {
    let mut sets = tools.store.list(SETS, object::namespace(deployment)).0;
    sets.retain(|set| object::controller(set).is_some_and(|owner| owner["uid"] == object::uid(deployment)));
    sets
}

fn revision(object: &Value) -> i64 {
    object["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn create(tools: &Tools<'_>, deployment: &Value, name: &str, hash: &str, old: &[Object]) {
    let number = old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
    let mut template = deployment["spec"]["template"].clone();
    object::map_mut(&mut template["metadata"], "labels").insert(HASH.into(), json!(hash));
    let mut selector = deployment["spec"]["selector"].clone();
    object::map_mut(&mut selector, "matchLabels").insert(HASH.into(), json!(hash));
    let replicas = if old.iter().all(|set| replicas(set) == 0) { replicas(deployment) } else { 0 };
    let set = json!({
        "metadata": {
            "name": name, "labels": template["metadata"]["labels"],
            "annotations": {REVISION: number.to_string()}, "ownerReferences": object::owned_by(deployment),
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    });
    tools.create(SETS, object::namespace(deployment), set);
    tools.modify(ID, deployment, |deployment| {
        object::map_mut(&mut deployment["metadata"], "annotations")
            .insert(REVISION.into(), json!(number.to_string()));
    });
}

fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn available(set: &Value) -> i64 {
    set["status"]["availableReplicas"].as_i64().unwrap_or(0)
}

/// How many replicas the new set and the old ones together may have now.
fn plan(deployment: &Value, new: (i64, i64), old: (i64, i64), old_pods: i64) -> (i64, i64) {
    let wanted = replicas(deployment);
    let ((new_count, new_available), (old_count, old_available)) = (new, old);
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] == "Recreate" {
        return (if old_count == 0 && old_pods == 0 { wanted } else { new_count.min(wanted) }, 0);
    }
    let surge = pods::limit(&strategy["rollingUpdate"]["maxSurge"], wanted, true);
    let mut missing = pods::limit(&strategy["rollingUpdate"]["maxUnavailable"], wanted, false);
    if surge == 0 && missing == 0 {
        missing = 1;
    }
    let grown = (wanted + surge - old_count).clamp(new_count.min(wanted), wanted.max(0));
    // Old pods that are not available can go at once, available ones while enough others are.
    let spare = (new_available + old_available - (wanted - missing)).max(0);
    let shrunk = (old_available - spare).clamp(0, old_count);
    (grown, shrunk)
}

fn roll(tools: &Tools<'_>, deployment: &Value, new: &Value, old: &[Object]) {
    let sum = |count: fn(&Value) -> i64| old.iter().map(|set| count(set)).sum::<i64>();
    let old_pods = old.iter().map(|set| pods::of(tools, set).len() as i64).sum();
    let (grown, shrunk) =
        plan(deployment, (replicas(new), available(new)), (sum(replicas), sum(available)), old_pods);
    scale(tools, new, grown);
    let mut left = shrunk;
    for set in old {
        let kept = replicas(set).min(left);
        left -= kept;
        scale(tools, set, kept);
    }
    // An old template that came back is the newest revision again.
    let newest = old.iter().map(|set| revision(set)).max().unwrap_or(0);
    if revision(new) < newest {
        let number = json!((newest + 1).to_string());
        tools.modify(SETS, new, |set| set["metadata"]["annotations"][REVISION] = number.clone());
        tools.modify(ID, deployment, |deployment| {
            object::map_mut(&mut deployment["metadata"], "annotations").insert(REVISION.into(), number);
        });
    }
}

fn scale(tools: &Tools<'_>, set: &Value, count: i64) {
    if replicas(set) != count {
        tools.modify(SETS, set, |set| set["spec"]["replicas"] = json!(count));
    }
}

/// Old sets without pods go, beyond the history that is wanted.
fn clean(tools: &Tools<'_>, deployment: &Value, old: &[Object]) {
    let keep =
        usize::try_from(deployment["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10)).unwrap_or(0);
    let mut done: Vec<&Object> =
        old.iter().filter(|set| replicas(set) == 0 && set["status"]["replicas"] == 0).collect();
    done.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    done.into_iter().skip(keep).for_each(|set| tools.delete(SETS, set));
}

fn report(tools: &Tools<'_>, deployment: &Value, new: &str) {
    let sets = sets_of(tools, deployment);
    let count = |set: &Value, field: &str| set["status"][field].as_i64().unwrap_or(0);
    let sum = |field: &str| sets.iter().map(|set| count(set, field)).sum::<i64>();
    let updated = sets.iter().find(|set| object::name(set) == new).map_or(0, |set| count(set, "replicas"));
    let (total, ready, wanted) = (sum("replicas"), sum("readyReplicas"), replicas(deployment));
    let limit = &deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"];
    let enough = ready >= wanted - pods::limit(limit, wanted, false);
    let complete = updated == wanted && total == wanted && ready == wanted;
    tools.modify_status(ID, deployment, |deployment| {
        let before = deployment["status"].clone();
        pods::put_status(
            deployment,
            &[
                ("replicas", total),
                ("updatedReplicas", updated),
                ("readyReplicas", ready),
                ("availableReplicas", ready),
                ("unavailableReplicas", (wanted - ready).max(0)),
            ],
        );
        match enough {
            true => {
                let words = ("MinimumReplicasAvailable", "Deployment has minimum availability.");
                object::set_condition(deployment, "Available", "True", words.0, words.1);
            }
            false => {
                let words = ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.");
                object::set_condition(deployment, "Available", "False", words.0, words.1);
            }
        }
        progress(deployment, &before, new, complete);
    });
}

/// The condition a rollout is waited for by: done, under way, or for too long without a step.
fn progress(deployment: &mut Value, before: &Value, set: &str, complete: bool) {
    let numbers = ["updatedReplicas", "readyReplicas", "replicas", "observedGeneration"];
    let moved = numbers.iter().any(|field| before[field] != deployment["status"][field]);
    let last = object::items(&before["conditions"]).iter().find(|c| c["type"] == "Progressing").cloned();
    let stepped = match &last {
        Some(last) if !moved => last["lastUpdateTime"].clone(),
        _ => json!(object::now()),
    };
    let limit = deployment["spec"]["progressDeadlineSeconds"].as_f64().unwrap_or(600.0);
    let late = !complete && object::age(&stepped).is_some_and(|age| age > limit);
    let (status, reason, message) = match (complete, late) {
        (true, _) => {
            ("True", "NewReplicaSetAvailable", format!("ReplicaSet {set:?} has successfully progressed."))
        }
        (false, true) => {
            ("False", "ProgressDeadlineExceeded", format!("ReplicaSet {set:?} has timed out progressing."))
        }
        (false, false) => ("True", "ReplicaSetUpdated", format!("ReplicaSet {set:?} is progressing.")),
    };
    object::set_condition(deployment, "Progressing", status, reason, &message);
    let conditions = object::list_mut(&mut deployment["status"], "conditions");
    if let Some(condition) = conditions.iter_mut().find(|c| c["type"] == "Progressing") {
        condition["lastUpdateTime"] = stepped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_go_in_steps() {
        let deployment =
            |count: i64, strategy: Value| json!({"spec": {"replicas": count, "strategy": strategy}});
        let rolling = |surge: Value, missing: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}});
        let usual = || rolling(json!("25%"), json!("25%"));
        // (replicas, strategy, (new, available), (old, available), old pods) → (new, old)
        let cases = [
            (4, usual(), (0, 0), (4, 4), 4, (1, 3)),
            (4, usual(), (1, 1), (3, 3), 3, (2, 2)),
            (4, usual(), (4, 4), (0, 0), 0, (4, 0)),
            (1, usual(), (0, 0), (1, 1), 1, (1, 1)),
            (1, usual(), (1, 1), (1, 1), 1, (1, 0)),
            (2, rolling(json!(0), json!(0)), (0, 0), (2, 2), 2, (0, 1)),
            (2, usual(), (1, 0), (2, 0), 2, (1, 0)),
            (2, json!({"type": "Recreate"}), (0, 0), (2, 2), 2, (0, 0)),
            (2, json!({"type": "Recreate"}), (0, 0), (0, 0), 1, (0, 0)),
            (2, json!({"type": "Recreate"}), (0, 0), (0, 0), 0, (2, 0)),
            (0, usual(), (2, 2), (0, 0), 0, (0, 0)),
        ];
        for (count, strategy, new, old, old_pods, wanted) in cases {
            let seen = plan(&deployment(count, strategy.clone()), new, old, old_pods);
            assert_eq!(seen, wanted, "{count} {strategy} {new:?} {old:?}");
        }
    }
}
