//! K3s's Helm controller, and the klipper-helm that its Jobs run.
//!
//! As in helm-controller's `pkg/controllers/chart`: a HelmChart is claimed, gets a Job for its configuration, and its
//! conditions; a changed configuration replaces the Job; a deleted chart gets a Job that uninstalls it. As in
//! klipper-helm's `entry`: what the Job does follows from the last release's status and the failure policy.
//!
//! Nothing is fetched or rendered. What a chart installs is a table's, `charts.toml`, in which the given values choose.
//! Left out: the Job's ServiceAccount, ClusterRoleBinding, values Secret and content ConfigMap; Jobs that are made
//! suspended; hooks; `driver: configmap`.

mod charts;
mod install;
mod job;
mod release;
mod render;
mod values;

use serde_json::{Value, json};

use super::Tools;
use crate::lab::k3s::object;
use crate::lab::k3s::store::Object;
use job::Action;

const CHARTS: &str = "helmcharts.helm.cattle.io";
const CONFIGS: &str = "helmchartconfigs.helm.cattle.io";
const FINALIZER: &str = "wrangler.cattle.io/on-helm-chart-remove";
const MANAGED_BY: &str = "helmcharts.cattle.io/managed-by";
const UNMANAGED: &str = "helmcharts.helm.cattle.io/unmanaged";
/// The name K3s gives its controller.
const CONTROLLER: &str = "helm-controller";
/// On the Job's pods and, cut short, on the release: which configuration they are of.
const CONFIG_HASH: &str = "helmcharts.helm.cattle.io/configHash";

pub fn step(tools: &Tools<'_>) {
    for chart in tools.list(CHARTS).iter().filter(|chart| is_managed(tools, chart)) {
        let chart = Chart::new(tools, chart);
        match object::is_going(chart.object) {
            true => remove(tools, &chart),
            false => keep(tools, &chart),
        }
    }
}

/// Whether the chart is this controller's; one that is nobody's is claimed.
fn is_managed(tools: &Tools<'_>, chart: &Value) -> bool {
    let has = |field: &str| chart["spec"][field].as_str().is_some_and(|text| !text.is_empty());
    if !(has("chart") || has("chartContent")) || object::annotation(chart, UNMANAGED).is_some() {
        return false;
    }
    let Some(manager) = object::annotation(chart, MANAGED_BY) else {
        tools.modify(CHARTS, chart, |chart| {
            object::map_mut(&mut chart["metadata"], "annotations")
                .insert(MANAGED_BY.into(), json!(CONTROLLER));
            object::add_finalizer(chart, FINALIZER);
        });
        return false;
    };
    manager == CONTROLLER
}

/// A HelmChart with its configuration.
struct Chart<'a> {
    object: &'a Value,
    config: Option<Object>,
    hash: String,
}

impl<'a> Chart<'a> {
    fn new(tools: &Tools<'_>, object: &'a Value) -> Self {
        let namespace = object::namespace(object);
        let config = tools.get(CONFIGS, namespace, object::name(object));
        let secrets: Vec<Value> = values::watched(object, config.as_deref())
            .filter_map(|name| tools.get("secrets", namespace, name))
            .map(|secret| secret["data"].clone())
            .collect();
        let config_spec = config.as_ref().map(|config| config["spec"].clone());
        let hash = object::digest(&json!([object["spec"], config_spec, secrets])).to_uppercase();
        Self { object, config, hash }
    }

    /// The release's name.
    fn name(&self) -> &'a str {
        object::name(self.object)
    }

    fn namespace(&self) -> &'a str {
        object::namespace(self.object)
    }

    fn spec(&self, field: &str) -> &'a str {
        self.object["spec"][field].as_str().unwrap_or_default()
    }

    /// The namespace the release goes to.
    fn target(&self) -> &'a str {
        Some(self.spec("targetNamespace")).filter(|name| !name.is_empty()).unwrap_or(self.namespace())
    }

    /// The chart's name, also where it is given as an address or an archive.
    fn chart(&self) -> &'a str {
        let file = self.spec("chart").rsplit('/').next().unwrap_or_default();
        let Some(file) = file.strip_suffix(".tgz") else {
            return if file.is_empty() { self.name() } else { file };
        };
        let is_version =
            |(_, end): &(&str, &str)| end.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        file.rsplit_once('-').filter(is_version).map_or(file, |(name, _)| name)
    }

    fn version(&self) -> &'a str {
        self.spec("version")
    }

    fn failure_policy(&self) -> &str {
        let config = self.config.as_ref().and_then(|config| config["spec"]["failurePolicy"].as_str());
        let given = config.or(self.object["spec"]["failurePolicy"].as_str());
        given.filter(|policy| !policy.is_empty()).unwrap_or("reinstall")
    }

    /// The configuration's hash, as long as a label may be.
    fn hash(&self) -> &str {
        &self.hash[..self.hash.len().min(63)]
    }

    fn values(&self, tools: &Tools<'_>) -> Result<Value, values::Unusable> {
        let secret = |name: &str| tools.get("secrets", self.namespace(), name).map(|found| (*found).clone());
        values::merged(self.object, self.config.as_deref(), secret)
    }
}

fn keep(tools: &Tools<'_>, chart: &Chart<'_>) {
    if !object::has_finalizer(chart.object, FINALIZER) {
        tools.modify(CHARTS, chart.object, |object| object::add_finalizer(object, FINALIZER));
    }
    let Some(job) = job::get(tools, chart, Action::Install) else {
        job::create(tools, chart, Action::Install);
        return report(tools, chart, Action::Install, false);
    };
    if object::is_going(&job) {
        return;
    }
    if object::condition(&job, "Failed") == Some("True") {
        report(tools, chart, Action::Install, true);
    }
    let is_of_this = job::hash(&job) == Some(chart.hash.as_str());
    if object::condition(&job, "Complete") == Some("True") {
        match release::newest(tools, chart).filter(|newest| is_of_this && release::is_of(newest, chart)) {
            Some(newest) => install::bring_withheld(tools, chart, &newest),
            None => job::replace(tools, &job),
        }
    } else if is_of_this {
        job::run(tools, chart, Action::Install, &job);
    } else {
        job::replace(tools, &job);
    }
}

/// Writes what became of the chart. These conditions have no times.
fn report(tools: &Tools<'_>, chart: &Chart<'_>, action: Action, failed: bool) {
    let name = job::name(chart, action);
    let created = json!({
        "type": "JobCreated", "status": "True", "reason": "Job created",
        "message": format!("Applying HelmChart using Job {}/{name}", chart.namespace()),
    });
    let failed = match failed {
        true => json!({
            "type": "Failed", "status": "True", "reason": "Job failed",
            "message": "Job has reached configured number of retries without succeeding",
        }),
        false => json!({"type": "Failed", "status": "False"}),
    };
    tools.modify_status(CHARTS, chart.object, |object| {
        let status = object::map_mut(object, "status");
        status.insert("jobName".into(), json!(name));
        if action == Action::Install {
            status.insert("conditions".into(), json!([created, failed]));
        }
    });
}

/// Uninstalls the release, then lets the chart go; its Jobs go with it.
fn remove(tools: &Tools<'_>, chart: &Chart<'_>) {
    if !object::has_finalizer(chart.object, FINALIZER) {
        return;
    }
    let let_go = || tools.modify(CHARTS, chart.object, |object| object::strike_finalizer(object, FINALIZER));
    if tools.get("namespaces", "", chart.namespace()).is_some_and(|namespace| object::is_going(&namespace)) {
        // No Job can be made there any more.
        return let_go();
    }
    if let Some(install) = job::get(tools, chart, Action::Install) {
        job::replace(tools, &install);
    }
    match job::get(tools, chart, Action::Delete) {
        None => {
            job::create(tools, chart, Action::Delete);
            report(tools, chart, Action::Delete, false);
        }
        Some(job) if object::condition(&job, "Complete") == Some("True") => let_go(),
        Some(job) => job::run(tools, chart, Action::Delete, &job),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_are_named_by_their_repositories_addresses_and_archives() {
        let cases = [
            ("cert-manager", "cert-manager"),
            ("oci://registry.home.arpa/charts/traefik", "traefik"),
            ("https://%{KUBERNETES_API}%/static/charts/traefik-crd-41.2.0+up1.tgz", "traefik-crd"),
            ("https://%{KUBERNETES_API}%/static/charts/traefik-crd.tgz", "traefik-crd"),
            ("", "release"),
        ];
        for (given, wanted) in cases {
            let object = json!({"metadata": {"name": "release"}, "spec": {"chart": given}});
            let chart = Chart { object: &object, config: None, hash: String::new() };
            assert_eq!(chart.chart(), wanted, "{given}");
        }
    }
}
