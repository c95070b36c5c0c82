//! The scheduler: pods without a node get one that is ready, wanted and tolerated; the emptiest of these.
//!
//! Looked at: taints, node selector, required node affinity, the number of pods. Not looked at: requests, pod
//! affinity, topology.

use serde_json::{Value, json};

use super::{Tools, pods};
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

pub fn step(tools: &Tools<'_>) {
    let nodes = tools.list("nodes");
    let all = tools.list("pods");
    let mut load: Vec<usize> = nodes
        .iter()
        .map(|node| all.iter().filter(|pod| pod["spec"]["nodeName"] == object::name(node)).count())
        .collect();
    for pod in all.iter().filter(|pod| pod["spec"]["nodeName"].is_null() && pods::is_active(pod)) {
        let best = (0..nodes.len()).filter(|at| fits(&nodes[*at], pod)).min_by_key(|at| load[*at]);
        match best {
            Some(at) => {
                load[at] += 1;
                bind(tools, pod, object::name(&nodes[at]));
            }
            None => refuse(tools, pod, &nodes),
        }
    }
}

fn bind(tools: &Tools<'_>, pod: &Value, node: &str) {
    tools.modify("pods", pod, |pod| pod["spec"]["nodeName"] = json!(node));
    tools.modify_status("pods", pod, |pod| object::set_condition(pod, "PodScheduled", "True", "", ""));
}

fn refuse(tools: &Tools<'_>, pod: &Value, nodes: &[Object]) {
    let message = format!("0/{} nodes are available.", nodes.len());
    tools.modify_status("pods", pod, |pod| {
        object::set_condition(pod, "PodScheduled", "False", "Unschedulable", &message);
    });
}

/// Whether a pod may be put on a node now.
fn fits(node: &Value, pod: &Value) -> bool {
    let tolerations = object::items(&pod["spec"]["tolerations"]);
    let open = object::items(&node["spec"]["taints"])
        .iter()
        .filter(|taint| taint["effect"] != "PreferNoSchedule")
        .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)));
    !object::is_going(node) && open && is_wanted(node, &pod["spec"])
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let any = |field: &str| toleration[field].as_str().is_none_or(str::is_empty);
    let key = match any("key") {
        true => toleration["operator"] == "Exists",
        false => toleration["key"] == taint["key"],
    };
    let value = toleration["operator"] == "Exists"
        || toleration["value"].as_str().unwrap_or_default() == taint["value"].as_str().unwrap_or_default();
    key && value && (any("effect") || toleration["effect"] == taint["effect"])
}

/// Whether a pod's selector and required affinity take a node.
pub fn is_wanted(node: &Value, spec: &Value) -> bool {
    let selected = spec["nodeSelector"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| object::label(node, key) == value.as_str());
    let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let terms = object::items(terms);
    selected && (terms.is_empty() || terms.iter().any(|term| term_takes(node, term)))
}

fn term_takes(node: &Value, term: &Value) -> bool {
    let labels = object::items(&term["matchExpressions"]).iter().all(|expression| {
        takes(expression, object::label(node, expression["key"].as_str().unwrap_or_default()))
    });
    let fields = object::items(&term["matchFields"])
        .iter()
        .all(|expression| takes(expression, Some(object::name(node))));
    labels && fields
}

fn takes(expression: &Value, value: Option<&str>) -> bool {
    let listed =
        object::items(&expression["values"]).iter().any(|wanted| value.is_some_and(|value| *wanted == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(expression["values"][0].as_str());
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_cover_taints() {
        let taint = json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"});
        let cases = [
            (json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"}), true),
            (json!({"key": "gpu", "operator": "Equal", "value": "yes"}), true),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "gpu", "value": "no"}), false),
            (json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({}), false),
        ];
        for (toleration, wanted) in cases {
            assert_eq!(tolerates(&toleration, &taint), wanted, "{toleration}");
        }
    }

    #[test]
    fn nodes_are_wanted_by_label_and_name() {
        let node = json!({"metadata": {"name": "one", "labels": {"disk": "ssd", "cores": "4"}}});
        let affinity = |term: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [term],
            }}}})
        };
        let expression = |key: &str, operator: &str, value: &str| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": [value]}]}))
        };
        let cases = [
            (json!({}), true),
            (json!({"nodeSelector": {"disk": "ssd"}}), true),
            (json!({"nodeSelector": {"disk": "hdd"}}), false),
            (expression("disk", "In", "ssd"), true),
            (expression("disk", "NotIn", "ssd"), false),
            (expression("gone", "DoesNotExist", ""), true),
            (expression("cores", "Gt", "3"), true),
            (expression("cores", "Lt", "3"), false),
            (
                affinity(
                    json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["one"]}]}),
                ),
                true,
            ),
            (
                affinity(
                    json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["two"]}]}),
                ),
                false,
            ),
        ];
        for (spec, wanted) in cases {
            assert_eq!(is_wanted(&node, &spec), wanted, "{spec}");
        }
    }
}
