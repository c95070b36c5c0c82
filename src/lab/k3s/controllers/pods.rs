//! What the workload controllers share: pods of a template, and counting them.

use serde_json::{Value, json};

use super::Tools;
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

/// The pods an object controls, oldest first.
pub fn of(tools: &Tools<'_>, owner: &Value) -> Vec<Object> {
    let mut pods: Vec<Object> = tools.store.list("pods", object::namespace(owner)).0;
    pods.retain(|pod| {
        object::controller(pod).is_some_and(|reference| reference["uid"] == object::uid(owner))
    });
    pods.sort_by_key(|pod| version(pod));
    pods
}

fn version(pod: &Value) -> (String, u64) {
    let time = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    (time, pod["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Whether a pod still counts: not over, and not going.
pub fn is_active(pod: &Value) -> bool {
    !object::is_going(pod) && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// How many are Ready and stay.
pub fn ready(pods: &[Object]) -> usize {
    pods.iter().filter(|pod| is_active(pod) && object::is_ready(pod)).count()
}

/// A pod of a workload's template, with more labels.
pub fn from_template(owner: &Value, labels: &[(&str, &str)]) -> Value {
    let template = &owner["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": {
            "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
            "namespace": object::namespace(owner), "ownerReferences": object::owned_by(owner),
            "generateName": format!("{}-", object::name(owner)),
        },
    });
    let map = object::map_mut(&mut pod["metadata"], "labels");
    for (key, value) in labels {
        map.insert((*key).to_owned(), json!(value));
    }
    if pod["metadata"]["annotations"].is_null() {
        object::map_mut(&mut pod, "metadata").remove("annotations");
    }
    pod
}

/// A count or a percentage of a rolling update's limit.
pub fn limit(value: &Value, of: i64, round_up: bool) -> i64 {
    let percent =
        value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<i64>().ok());
    match percent {
        Some(percent) if round_up => (percent * of + 99) / 100,
        Some(percent) => percent * of / 100,
        None => value.as_i64().unwrap_or(0),
    }
}

/// Writes fields of a status, and the generation it is of.
pub fn put_status(object: &mut Value, fields: &[(&str, i64)]) {
    let generation = object["metadata"]["generation"].clone();
    let status = object::map_mut(object, "status");
    for (field, value) in fields {
        status.insert((*field).to_owned(), json!(value));
    }
    status.insert("observedGeneration".into(), generation);
}
