//! PodDisruptionBudgets: how many pods may go now, and whether a certain one may.

use serde_json::Value;

use super::{Tools, pods};
use crate::lab::k3s::object;
use crate::lab::k3s::selector::Labels;
use crate::lab::k3s::store::Store;

/// Why a pod must not go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub budget: String,
    pub healthy: i64,
    pub needed: i64,
}

/// A budget's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub expected: i64,
    pub healthy: i64,
    pub needed: i64,
}

impl Numbers {
    /// Counts a budget's pods.
    pub fn of(budget: &Value, pods: &[&Value]) -> Self {
        let expected = pods.len() as i64;
        let healthy =
            pods.iter().filter(|pod| object::is_ready(pod) && !object::is_going(pod)).count() as i64;
        let spec = &budget["spec"];
        let needed = match (&spec["minAvailable"], &spec["maxUnavailable"]) {
            (Value::Null, Value::Null) => 0,
            (Value::Null, most) => expected - share(most, expected),
            (least, _) => share(least, expected),
        };
        Self { expected, healthy, needed: needed.max(0) }
    }

    pub fn allowed(self) -> i64 {
        if self.expected == 0 { 0 } else { (self.healthy - self.needed).max(0) }
    }
}

/// Keeps every budget's status.
pub fn step(tools: &Tools<'_>) {
    const ID: &str = "poddisruptionbudgets.policy";
    for budget in tools.list(ID) {
        let pods = tools.store.list("pods", object::namespace(&budget)).0;
        let selector = Labels::from_object(&budget["spec"]["selector"]);
        let selected: Vec<&Value> = pods
            .iter()
            .map(|pod| &**pod)
            .filter(|pod| selector.matches(pod) && pods::is_active(pod))
            .collect();
        let numbers = Numbers::of(&budget, &selected);
        tools.modify_status(ID, &budget, |budget| {
            pods::put_status(
                budget,
                &[
                    ("expectedPods", numbers.expected),
                    ("currentHealthy", numbers.healthy),
                    ("desiredHealthy", numbers.needed),
                    ("disruptionsAllowed", numbers.allowed()),
                ],
            );
        });
    }
}

/// A number, or a percentage rounded up.
fn share(value: &Value, of: i64) -> i64 {
    match value
        .as_str()
        .and_then(|text| text.strip_suffix('%'))
        .and_then(|percent| percent.parse::<i64>().ok())
    {
        Some(percent) => (percent * of + 99) / 100,
        None => value.as_i64().unwrap_or(0),
    }
}

/// The budget that forbids a pod's eviction now. A pod that is not ready may always go.
pub fn refusal(store: &Store, pod: &Value) -> Option<Refusal> {
    if !object::is_ready(pod) {
        return None;
    }
    let namespace = object::namespace(pod);
    let pods = store.list("pods", namespace).0;
    store.list("poddisruptionbudgets.policy", namespace).0.iter().find_map(|budget| {
        let selector = Labels::from_object(&budget["spec"]["selector"]);
        if !selector.matches(pod) {
            return None;
        }
        let selected: Vec<&Value> = pods
            .iter()
            .map(|pod| &**pod)
            .filter(|pod| selector.matches(pod) && pods::is_active(pod))
            .collect();
        let numbers = Numbers::of(budget, &selected);
        (numbers.allowed() == 0).then(|| Refusal {
            budget: object::name(budget).to_owned(),
            healthy: numbers.healthy,
            needed: numbers.needed,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn budgets() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let waiting = json!({});
        let cases = [
            (json!({"minAvailable": 1}), 2, 0, 1),
            (json!({"minAvailable": 2}), 2, 0, 0),
            (json!({"minAvailable": "50%"}), 3, 0, 1),
            (json!({"maxUnavailable": 1}), 3, 0, 1),
            (json!({"maxUnavailable": 1}), 2, 1, 0),
            (json!({"maxUnavailable": "100%"}), 2, 0, 2),
            (json!({"maxUnavailable": 0}), 1, 0, 0),
            (json!({"minAvailable": 0}), 0, 0, 0),
        ];
        for (spec, up, down, wanted) in cases {
            let pods: Vec<&Value> =
                std::iter::repeat_n(&ready, up).chain(std::iter::repeat_n(&waiting, down)).collect();
            let numbers = Numbers::of(&json!({"spec": spec}), &pods);
            assert_eq!(numbers.allowed(), wanted, "{spec} with {up} up and {down} down");
        }
    }
}
