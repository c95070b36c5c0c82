//! The Jobs of charts, and the process in their pods: what klipper-helm does, done from here.
//!
//! A pod of these Jobs runs until it is told how it ends: see [`kubelet::EXIT`].

use serde_json::{Value, json};

use super::values::Unusable;
use super::{CONFIG_HASH, Chart, install};
use crate::lab::k3s::controllers::{Tools, pods};
use crate::lab::k3s::store::Object;
use crate::lab::k3s::{kubelet, object};

const JOBS: &str = "jobs.batch";

/// What a Job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Install,
    Delete,
}

pub fn name(chart: &Chart<'_>, action: Action) -> String {
    let word = match action {
        Action::Install => "install",
        Action::Delete => "delete",
    };
    format!("helm-{word}-{}", chart.name())
}

pub fn get(tools: &Tools<'_>, chart: &Chart<'_>, action: Action) -> Option<Object> {
    tools.get(JOBS, chart.namespace(), &name(chart, action))
}

/// The hash of the configuration a Job is of.
pub fn hash(job: &Value) -> Option<&str> {
    object::annotation(&job["spec"]["template"], CONFIG_HASH)?.strip_prefix("SHA256=")
}

/// Takes a Job away; the next pass makes another one.
pub fn replace(tools: &Tools<'_>, job: &Value) {
    if !object::is_going(job) {
        tools.delete(JOBS, job);
    }
}

pub fn create(tools: &Tools<'_>, chart: &Chart<'_>, action: Action) {
    let labels = json!({"helmcharts.helm.cattle.io/chart": chart.name()});
    let hash = format!("SHA256={}", chart.hash);
    let mut spec = json!({
        "restartPolicy": "OnFailure", "serviceAccountName": format!("helm-{}", chart.name()),
        "priorityClassName": "system-cluster-critical", "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [{"name": "helm", "image": "simulated/klipper-helm"}],
    });
    if chart.object["spec"]["bootstrap"] == true {
        bootstrap(&mut spec);
    }
    // Its pods start when `hold` has seen what they mount.
    let annotations = json!({CONFIG_HASH: hash, kubelet::EXIT: "", kubelet::WAITS_FOR: "values"});
    let job = json!({
        "metadata": {
            "name": name(chart, action), "labels": labels, "ownerReferences": object::owned_by(chart.object),
        },
        "spec": {
            "backoffLimit": chart.object["spec"]["backOffLimit"].as_i64().unwrap_or(1000),
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": spec,
            },
        },
    });
    tools.create(JOBS, chart.namespace(), job);
}

/// A chart the cluster cannot start without runs where nothing else does yet.
fn bootstrap(spec: &mut Value) {
    spec["hostNetwork"] = json!(true);
    spec["nodeSelector"]["node-role.kubernetes.io/control-plane"] = json!("true");
    spec["tolerations"] = json!([
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"},
        {"key": "node.cloudprovider.kubernetes.io/uninitialized", "operator": "Equal", "value": "true",
         "effect": "NoSchedule"},
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/etcd", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
    ]);
}

/// Plays the process of every pod of a Job that runs and has not ended yet.
pub fn run(tools: &Tools<'_>, chart: &Chart<'_>, action: Action, job: &Value) {
    for pod in pods::of(tools, job).iter().filter(|pod| pods::is_active(pod)) {
        if pod["status"]["phase"] == "Pending" {
            hold(tools, chart, action, pod);
        }
        if !kubelet::is_undecided(pod) {
            continue;
        }
        let done = match (action, chart.values(tools)) {
            (Action::Delete, _) => Ok(install::uninstall(tools, chart)),
            // They were there when the pod started; the next one waits for them.
            (Action::Install, Err(Unusable::Missing(why) | Unusable::Malformed(why))) => Err(why),
            (Action::Install, Ok(values)) => install::install(tools, chart, &values),
        };
        let (code, said) = match done {
            Ok(false) => continue,
            Ok(true) => (0, String::new()),
            Err(why) => (1, why),
        };
        tools.modify("pods", pod, |pod| kubelet::end(pod, code, &said));
    }
}

/// A pod waits for the Secrets it mounts.
fn hold(tools: &Tools<'_>, chart: &Chart<'_>, action: Action, pod: &Value) {
    let missing = match (action, chart.values(tools)) {
        (Action::Install, Err(Unusable::Missing(why))) => Some(why),
        _ => None,
    };
    tools.modify("pods", pod, |pod| {
        let annotations = object::map_mut(&mut pod["metadata"], "annotations");
        match missing {
            Some(why) => drop(annotations.insert(kubelet::WAITS_FOR.into(), json!(why))),
            None => drop(annotations.remove(kubelet::WAITS_FOR)),
        }
    });
}
