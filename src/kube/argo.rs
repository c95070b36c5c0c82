//! Applications of Argo CD: when one is done, and which of its resources is at fault when it is not.
//!
//! The fields are those of <https://argo-cd.readthedocs.io/en/stable/user-guide/> and its CRDs. An application is done
//! when what is in Git is what is in the cluster (`Synced`), all of it works (`Healthy`), the last operation has
//! succeeded, and all that is said of the application's present form.

use std::time::Duration;

use ::kube::ResourceExt as _;
use ::kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use ::kube::runtime::watcher;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::MANAGER;
use super::client::Cluster;
use super::error::Error;
use super::object::{ObjectRef, applied_at};
use super::wait::{Check, Condition, Goal, condition};
use super::watch::Seen;
use crate::transport::prompt::printable;

pub const API_VERSION: &str = "argoproj.io/v1alpha1";
/// Asks Argo CD to look at an application now; it takes the annotation away when it has.
const REFRESH: &str = "argocd.argoproj.io/refresh";

/// An application in one line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Application {
    pub namespace: String,
    pub name: String,
    /// `Synced`, `OutOfSync`, `Unknown`.
    pub sync: String,
    /// `Healthy`, `Progressing`, `Degraded`, `Suspended`, `Missing`, `Unknown`.
    pub health: String,
    /// The first of its sources' revisions, shortened as Git does.
    pub revision: String,
    /// What is at fault, if anything is.
    pub message: Option<String>,
}

impl From<&DynamicObject> for Application {
    fn from(object: &DynamicObject) -> Self {
        let text = |pointer: &str| printable(text(&object.data, pointer).unwrap_or("Unknown"));
        let revision = text("/status/sync/revision");
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            sync: text("/status/sync/status"),
            health: text("/status/health/status"),
            revision: if is_commit(&revision) { revision.chars().take(7).collect() } else { revision },
            message: judge(object, None).unmet(),
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// How far an application is. `since`: what was said of it before counts for nothing.
pub(super) fn judge(application: &DynamicObject, since: Option<Timestamp>) -> Check {
    let at = |pointer: &str| text(&application.data, pointer);
    let looked: Option<Timestamp> = at("/status/reconciledAt").and_then(|time| time.parse().ok());
    let is_stale = since.is_some_and(|since| looked.is_none_or(|looked| looked < since));
    let phase = at("/status/operationState/phase");
    if application.annotations().contains_key(REFRESH) {
        return Check::NotYet("Argo CD has not looked at it yet".into());
    }
    if application.data.get("operation").is_some() || matches!(phase, Some("Running" | "Terminating")) {
        return Check::NotYet(printable(
            at("/status/operationState/message").unwrap_or("it is being synced"),
        ));
    }
    // Where nothing can be compared, Argo CD never says that it has looked.
    if let Some(error) = error_condition(application) {
        return Check::Failed(error);
    }
    if is_stale {
        return Check::NotYet("Argo CD has not looked at it yet".into());
    }
    let spec = |field: &str| application.data.pointer(&format!("/spec/{field}"));
    let compared = |field: &str| application.data.pointer(&format!("/status/sync/comparedTo/{field}"));
    if ["source", "sources"].iter().any(|field| spec(field) != compared(field)) {
        return Check::NotYet("Argo CD has not come to its newest form yet".into());
    }
    if let Some(phase @ ("Failed" | "Error")) = phase {
        let why = printable(at("/status/operationState/message").unwrap_or(phase));
        let faults = failed_results(application);
        return Check::Failed(if faults.is_empty() { why } else { format!("{why}: {}", faults.join("; ")) });
    }
    let health = at("/status/health/status").unwrap_or("Unknown");
    if health == "Degraded" {
        let faults = unhealthy(application);
        return Check::Failed(if faults.is_empty() { "it is Degraded".into() } else { faults.join("; ") });
    }
    let wanted = at("/spec/source/targetRevision").filter(|revision| is_commit(revision));
    let synced = at("/status/sync/revision");
    match (at("/status/sync/status").unwrap_or("Unknown"), phase) {
        ("Synced", Some("Succeeded")) if wanted.is_some() && synced != wanted => {
            Check::NotYet("it is not at its revision yet".into())
        }
        ("Synced", Some("Succeeded")) if health == "Healthy" => Check::Done,
        ("Synced", Some("Succeeded")) => {
            let faults = unhealthy(application);
            Check::NotYet(if faults.is_empty() { format!("it is {health}") } else { faults.join("; ") })
        }
        ("Synced", _) => Check::NotYet("it has not been synced yet".into()),
        (sync, _) => Check::NotYet(format!("it is {sync}")),
    }
}

/// `ComparisonError: …`, `InvalidSpecError: …`. Not `SyncError`, which only repeats what the operation says, and stays
/// for a while after the next one.
fn error_condition(application: &DynamicObject) -> Option<String> {
    let all = application.data.pointer("/status/conditions")?.as_array()?;
    let error = all.iter().find(|condition| {
        condition["type"].as_str().is_some_and(|kind| kind.ends_with("Error") && kind != "SyncError")
    })?;
    let part = |name: &str| error[name].as_str().unwrap_or_default();
    Some(printable(&format!("{}: {}", part("type"), part("message"))))
}

/// The resources that are not healthy, with what they say.
fn unhealthy(application: &DynamicObject) -> Vec<String> {
    let all = application.data.pointer("/status/resources").and_then(Value::as_array);
    let ill = all.into_iter().flatten().filter(|resource| {
        matches!(resource["health"]["status"].as_str(), Some("Degraded" | "Progressing" | "Missing"))
    });
    ill.map(|resource| {
        let status = resource["health"]["status"].as_str().unwrap_or_default();
        describe(resource, resource["health"]["message"].as_str().unwrap_or(status))
    })
    .collect()
}

/// What the last operation could not apply.
fn failed_results(application: &DynamicObject) -> Vec<String> {
    let all =
        application.data.pointer("/status/operationState/syncResult/resources").and_then(Value::as_array);
    let failed = all.into_iter().flatten().filter(|resource| {
        resource["status"] == "SyncFailed"
            || matches!(resource["hookPhase"].as_str(), Some("Failed" | "Error"))
    });
    failed.map(|resource| describe(resource, resource["message"].as_str().unwrap_or("failed"))).collect()
}

fn describe(resource: &Value, why: &str) -> String {
    let part = |name: &str| resource[name].as_str().unwrap_or_default();
    let name = match part("namespace") {
        "" => part("name").to_owned(),
        namespace => format!("{namespace}/{}", part("name")),
    };
    printable(&format!("{} {name}: {why}", part("kind")))
}

/// How many applications an ApplicationSet makes, where that can be told: from its lists.
fn made_of_lists(set: &DynamicObject) -> usize {
    let generators = set.data.pointer("/spec/generators").and_then(Value::as_array);
    generators
        .into_iter()
        .flatten()
        .filter_map(|generator| generator.pointer("/list/elements")?.as_array().map(Vec::len))
        .sum()
}

/// How far an ApplicationSet and its applications are.
fn judge_set(set: &DynamicObject, made: &[&DynamicObject], since: Option<Timestamp>) -> Check {
    if let Some(("True", why)) = condition(set, "ErrorOccurred") {
        return Check::Failed(why);
    }
    let wanted = made_of_lists(set);
    if made.len() < wanted.max(1) {
        return Check::NotYet(format!("{} of {} applications are made", made.len(), wanted.max(1)));
    }
    let mut missing = None;
    for application in made {
        let name = application.name_any();
        match judge(application, since) {
            Check::Done => {}
            Check::Failed(why) => return Check::Failed(format!("Application {name}: {why}")),
            Check::NotYet(why) => missing = missing.or(Some(format!("Application {name}: {why}"))),
        }
    }
    missing.map_or(Check::Done, Check::NotYet)
}

fn is_made_by(application: &DynamicObject, set: &DynamicObject) -> bool {
    application.owner_references().iter().any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

impl Cluster {
    /// All applications of the cluster; `None` where there is no Argo CD.
    pub async fn applications(&self) -> Result<Option<Vec<Application>>, Error> {
        let api = match self.everywhere(&ObjectRef::new(API_VERSION, "Application", None, "")).await {
            Err(Error::UnknownKind { .. }) => return Ok(None),
            api => api?,
        };
        let every = ListParams::default();
        let all = self.call("list the applications", || api.list(&every)).await?;
        Ok(Some(all.items.iter().map(Application::from).collect()))
    }

    /// Why an Application, or one that an ApplicationSet makes, is not done; `None`: it is.
    pub(super) async fn not_synced(&self, root: &DynamicObject) -> Result<Option<String>, Error> {
        let since = applied_at(root);
        if !is_set(root) {
            return Ok(judge(root, since).unmet());
        }
        let made = self.made_by(root).await?;
        Ok(judge_set(root, &made.iter().collect::<Vec<_>>(), since).unmet())
    }

    /// Waits until an Application, or all that an ApplicationSet makes, is done. One that has failed ends it at once.
    pub(super) async fn wait_synced(
        &self,
        which: &ObjectRef,
        root: &DynamicObject,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let since = applied_at(root);
        if !is_set(root) {
            self.look_anew(root).await?;
            let done = Condition::of("synced and healthy", move |application| judge(application, since));
            return self.wait(which, &done, limit, progress).await.map(|_| ());
        }
        for application in self.made_by(root).await? {
            self.look_anew(&application).await?;
        }
        let applications = ObjectRef { kind: "Application".into(), name: String::new(), ..which.clone() };
        let api = self.api(&applications).await?;
        let config = watcher::Config::default();
        let refused = Condition::of("free of errors", |set| match condition(set, "ErrorOccurred") {
            Some(("True", why)) => Check::Failed(why),
            _ => Check::NotYet(String::new()),
        });
        let silent = |_: &str| ();
        let goal = Goal { what: which.to_string(), wanted: "synced and healthy", limit, progress };
        let synced = self.until(&goal, api, config, |seen: &Seen<DynamicObject>| {
            let made: Vec<&DynamicObject> =
                seen.values().filter(|application| is_made_by(application, root)).collect();
            // What the set itself says is watched beside this.
            judge_set(root, &made, since)
        });
        tokio::select! {
            ended = self.wait(which, &refused, limit, &silent) => ended.map(|_| ()),
            ended = synced => ended,
        }
    }

    async fn made_by(&self, set: &DynamicObject) -> Result<Vec<DynamicObject>, Error> {
        let namespace = set.namespace();
        let api = self.api(&ObjectRef::new(API_VERSION, "Application", namespace.as_deref(), "")).await?;
        let every = ListParams::default();
        let all = self.call("list the applications", || api.list(&every)).await?;
        Ok(all.items.into_iter().filter(|application| is_made_by(application, set)).collect())
    }

    /// Has Argo CD look at an application now, and try an operation again that has failed: of itself it never does.
    async fn look_anew(&self, application: &DynamicObject) -> Result<(), Error> {
        let name = application.name_any();
        let namespace = application.namespace();
        let api = self.api(&ObjectRef::new(API_VERSION, "Application", namespace.as_deref(), &name)).await?;
        let mut patch = json!({ "metadata": { "annotations": { REFRESH: "normal" } } });
        if let Some("Failed" | "Error") = text(&application.data, "/status/operationState/phase") {
            let options = application.data.pointer("/spec/syncPolicy/syncOptions");
            let sync = json!({ "syncOptions": options });
            patch["operation"] = json!({ "initiatedBy": { "username": MANAGER }, "sync": sync });
        }
        let patch = Patch::Merge(patch);
        // Under another name than what is applied: both are taken away again by Argo CD.
        let by = PatchParams { field_manager: Some(format!("{MANAGER}-refresh")), ..PatchParams::default() };
        self.call(&format!("refresh Application {name}"), || api.patch(&name, &by, &patch)).await.map(|_| ())
    }
}

fn is_set(root: &DynamicObject) -> bool {
    root.types.as_ref().is_some_and(|types| types.kind == "ApplicationSet")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    fn application(status: Value) -> DynamicObject {
        let source = json!({ "repoURL": "https://git.home.arpa/core.git", "targetRevision": COMMIT });
        let mut status = status;
        if status["sync"]["comparedTo"].is_null() {
            status["sync"]["comparedTo"] = json!({ "source": source });
        }
        super::super::object::object(json!({
            "apiVersion": API_VERSION, "kind": "Application",
            "metadata": { "name": "core", "namespace": "automation" },
            "spec": { "source": source }, "status": status,
        }))
        .expect("an object")
    }

    fn done() -> Value {
        json!({
            "reconciledAt": "2026-01-01T00:00:10Z",
            "sync": { "status": "Synced", "revision": COMMIT },
            "health": { "status": "Healthy" },
            "operationState": { "phase": "Succeeded" },
        })
    }

    #[test]
    fn an_application_is_done_or_says_what_is_at_fault() {
        let deployment = json!([{ "kind": "Deployment", "namespace": "data", "name": "trino",
            "health": { "status": "Degraded", "message": "0 of 1 pods" } }]);
        let results = json!({ "resources": [{ "kind": "Secret", "name": "s", "status": "SyncFailed",
            "message": "no such namespace" }] });
        type Change = fn(&mut Value, Value);
        let not = |text: &str| Check::NotYet(text.into());
        let failed = |text: &str| Check::Failed(text.into());
        let cases: [(Change, Value, Check); 9] = [
            (|_, _| (), json!(0), Check::Done),
            (
                |s, _| s["reconciledAt"] = json!("2026-01-01T00:00:00Z"),
                json!(0),
                not("Argo CD has not looked at it yet"),
            ),
            (
                |s, v| s["sync"]["comparedTo"] = v,
                json!({ "source": {} }),
                not("Argo CD has not come to its newest form yet"),
            ),
            (|s, _| s["sync"]["status"] = json!("OutOfSync"), json!(0), not("it is OutOfSync")),
            (|s, _| s["sync"]["revision"] = json!("a"), json!(0), not("it is not at its revision yet")),
            (|s, _| s["health"]["status"] = json!("Progressing"), json!(0), not("it is Progressing")),
            (
                |s, v| {
                    s["health"]["status"] = json!("Degraded");
                    s["resources"] = v;
                },
                deployment,
                failed("Deployment data/trino: 0 of 1 pods"),
            ),
            (
                |s, v| {
                    s["operationState"] = json!({ "phase": "Failed", "message": "one or more objects failed", "syncResult": v });
                },
                results,
                failed("one or more objects failed: Secret s: no such namespace"),
            ),
            (
                |s, v| s["conditions"] = v,
                json!([{ "type": "ComparisonError", "message": "no such repository" }]),
                failed("ComparisonError: no such repository"),
            ),
        ];
        let since = "2026-01-01T00:00:05Z".parse().ok();
        for (change, value, expected) in cases {
            let mut status = done();
            change(&mut status, value);
            assert_eq!(judge(&application(status.clone()), since), expected, "{status}");
        }
    }

    #[test]
    fn a_set_is_as_far_as_the_last_of_its_applications() {
        let set = super::super::object::object(json!({
            "apiVersion": API_VERSION, "kind": "ApplicationSet", "metadata": { "name": "core" },
            "spec": { "generators": [{ "list": { "elements": [{}, {}] } }] },
        }))
        .expect("an object");
        let good = application(done());
        let mut status = done();
        status["health"]["status"] = json!("Degraded");
        let bad = application(status);
        let check = |made: &[&DynamicObject]| judge_set(&set, made, None);
        assert_eq!(check(&[&good]), Check::NotYet("1 of 2 applications are made".into()));
        assert_eq!(check(&[&good, &good]), Check::Done);
        assert_eq!(check(&[&good, &bad]), Check::Failed("Application core: it is Degraded".into()));
    }
}
