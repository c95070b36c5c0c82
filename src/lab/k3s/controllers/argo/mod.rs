//! An Argo CD, from the moment its application controller is ready: what can be seen of it in its objects.
//!
//! Kept, as in Argo CD's `controller` and `applicationset`: projects and what they permit, comparison, automated and
//! requested syncs with their retries, health, refreshes, finalizers, ApplicationSets of list generators, which
//! namespaces are watched. Left out: repositories (a revision is made of its source's address and name, and every
//! application has the same two resources, which nobody makes), self healing, sync waves, hooks, sync windows, other
//! clusters, the API server and its accounts.
//!
//! Times: a comparison, a sync, a step towards health takes [`Settings::moment`]; a retry of a sync comes after the
//! same, not after growing minutes; what a project changes is seen at once, not with the next comparison.
//!
//! [`Settings::moment`]: crate::lab::k3s::settings::Settings::moment

mod application;
mod application_set;
mod compare;
mod operation;
mod project;

use serde_json::Value;

use super::Tools;
use crate::lab::k3s::{glob, object};

const APPLICATIONS: &str = "applications.argoproj.io";
const SETS: &str = "applicationsets.argoproj.io";
const PROJECTS: &str = "appprojects.argoproj.io";
/// Deleting an object with it deletes what is deployed first. Argo CD has variants with a `/` behind it.
const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

pub fn step(tools: &Tools<'_>) {
    let Some(argo) = Argo::find(tools) else { return };
    project::step(&argo);
    if argo.has_set_controller() {
        application_set::step(&argo);
    }
    application::step(&argo);
}

/// An installation that is up.
struct Argo<'a> {
    tools: &'a Tools<'a>,
    /// Where it is installed, and where its projects are.
    namespace: String,
    /// `argocd-cmd-params-cm`.
    parameters: Value,
}

impl<'a> Argo<'a> {
    fn find(tools: &'a Tools<'a>) -> Option<Self> {
        let is_controller = |set: &Value| {
            object::label(set, "app.kubernetes.io/part-of") == Some("argocd")
                && object::name(set).ends_with("-application-controller")
                && set["status"]["readyReplicas"].as_i64().unwrap_or(0) > 0
        };
        let found = tools.list("statefulsets.apps").into_iter().find(|set| is_controller(set))?;
        let namespace = object::namespace(&found).to_owned();
        let parameters = tools.get("configmaps", &namespace, "argocd-cmd-params-cm");
        let parameters = parameters.map(|map| map["data"].clone()).unwrap_or_default();
        Some(Self { tools, namespace, parameters })
    }

    fn has_set_controller(&self) -> bool {
        self.tools.store.list("deployments.apps", &self.namespace).0.iter().any(|deployment| {
            object::name(deployment).ends_with("-applicationset-controller")
                && deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) > 0
        })
    }

    /// Whether a namespace is the installation's own or is among those of a parameter.
    fn is_among(&self, parameter: &str, namespace: &str) -> bool {
        let listed = self.parameters[parameter].as_str().unwrap_or_default();
        namespace == self.namespace
            || listed.split(',').any(|pattern| glob::matches(pattern.trim(), namespace, None))
    }

    /// Objects that are not in its own or the parameter's namespaces do not exist for it.
    fn watched(&self, id: &str, parameter: &str) -> Vec<Value> {
        let objects = self.tools.list(id).into_iter();
        objects
            .filter(|found| self.is_among(parameter, object::namespace(found)))
            .map(|found| (*found).clone())
            .collect()
    }
}

/// Strikes Argo CD's finalizers off an object that is going.
fn release(argo: &Argo<'_>, id: &str, going: &Value) {
    argo.tools.modify(id, going, |going| {
        object::list_mut(&mut going["metadata"], "finalizers").retain(|finalizer| {
            !finalizer.as_str().is_some_and(|name| name.contains("-finalizer.argocd.argoproj.io"))
        });
    });
}
