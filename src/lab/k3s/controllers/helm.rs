//! K3s's Helm controller: a HelmChart gets a Job, which "installs" it by leaving a release's Secret.
//!
//! Kept: the Job's name, `status.jobName`, the target namespace, the release's revisions, the removal with the
//! chart. Left out: charts. Nothing is fetched or rendered, so no workload of the chart comes up.

use serde_json::{Value, json};

use super::Tools;
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;

const CHARTS: &str = "helmcharts.helm.cattle.io";
const JOBS: &str = "jobs.batch";
const FINALIZER: &str = "wrangler.cattle.io/on-helm-chart-remove";
const CONFIG: &str = "helmcharts.helm.cattle.io/configHash";

pub fn step(tools: &Tools<'_>) {
    for chart in tools.list(CHARTS) {
        match object::is_going(&chart) {
            true => remove(tools, &chart),
            false => install(tools, &chart),
        }
    }
}

/// The namespace a chart's objects go to.
fn target(chart: &Value) -> &str {
    chart["spec"]["targetNamespace"]
        .as_str()
        .filter(|name| !name.is_empty())
        .unwrap_or(object::namespace(chart))
}

fn install(tools: &Tools<'_>, chart: &Value) {
    let (namespace, name) = (object::namespace(chart), object::name(chart));
    let config = tools.get("helmchartconfigs.helm.cattle.io", namespace, name);
    let hash = object::hash(&json!([chart["spec"], config.map(|config| config["spec"].clone())]));
    let job_name = format!("helm-install-{name}");
    if !object::items(&chart["metadata"]["finalizers"]).iter().any(|finalizer| finalizer == FINALIZER) {
        tools.modify(CHARTS, chart, |chart| {
            object::list_mut(&mut chart["metadata"], "finalizers").push(json!(FINALIZER));
        });
    }
    if chart["spec"]["createNamespace"] == true && tools.get("namespaces", "", target(chart)).is_none() {
        tools.create("namespaces", "", json!({"metadata": {"name": target(chart)}}));
    }
    match tools.get(JOBS, namespace, &job_name) {
        Some(job) if job["metadata"]["annotations"][CONFIG] != hash.as_str() => tools.delete(JOBS, &job),
        Some(job) if object::condition(&job, "Complete") == Some("True") => release(tools, chart, &hash),
        Some(_) => {}
        None => tools.create(JOBS, namespace, job(chart, &job_name, &hash)),
    }
    if chart["status"]["jobName"] != job_name.as_str() {
        tools.modify_status(CHARTS, chart, |chart| {
            object::map_mut(chart, "status").insert("jobName".into(), json!(job_name));
        });
    }
}

fn job(chart: &Value, name: &str, hash: &str) -> Value {
    let labels = json!({"helmcharts.helm.cattle.io/chart": object::name(chart)});
    json!({
        "metadata": {
            "name": name, "labels": labels, "annotations": {CONFIG: hash}, "ownerReferences": object::owned_by(chart),
        },
        "spec": {
            "backoffLimit": 1000,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "OnFailure",
                    "tolerations": [
                        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"},
                    ],
                    "containers": [{"name": "helm", "image": "simulated/klipper-helm"}],
                },
            },
        },
    })
}

fn releases(tools: &Tools<'_>, chart: &Value) -> Vec<Object> {
    let mut found = tools.store.list("secrets", target(chart)).0;
    found.retain(|secret| {
        secret["type"] == "helm.sh/release.v1" && object::label(secret, "name") == Some(object::name(chart))
    });
    found
}

/// Leaves a release of this configuration, once.
fn release(tools: &Tools<'_>, chart: &Value, hash: &str) {
    let old = releases(tools, chart);
    if old.iter().any(|secret| {
        object::label(secret, "status") == Some("deployed")
            && secret["metadata"]["annotations"][CONFIG] == hash
    }) {
        return;
    }
    for secret in old.iter().filter(|secret| object::label(secret, "status") == Some("deployed")) {
        tools
            .modify("secrets", secret, |secret| secret["metadata"]["labels"]["status"] = json!("superseded"));
    }
    let version = old.len() + 1;
    let name = object::name(chart);
    let secret = json!({
        "metadata": {
            "name": format!("sh.helm.release.v1.{name}.v{version}"), "annotations": {CONFIG: hash},
            "labels": {"name": name, "owner": "helm", "status": "deployed", "version": version.to_string()},
        },
        "type": "helm.sh/release.v1", "stringData": {"release": "simulated"},
    });
    tools.create("secrets", target(chart), secret);
}

fn remove(tools: &Tools<'_>, chart: &Value) {
    for secret in releases(tools, chart) {
        tools.delete("secrets", &secret);
    }
    tools.modify(CHARTS, chart, |chart| {
        object::list_mut(&mut chart["metadata"], "finalizers").retain(|finalizer| finalizer != FINALIZER);
    });
}
