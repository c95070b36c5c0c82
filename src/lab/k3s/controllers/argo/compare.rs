//! What a comparison of an application finds: sync status, health, resources, conditions.

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::{Argo, operation, project};
use crate::lab::k3s::levers::{self, APP_COMPARISON_ERROR, APP_DEGRADED, APP_SYNC_FAILS};
use crate::lab::k3s::{object, token};

/// What a lever says about a resource of an application.
pub struct Fault {
    pub kind: String,
    pub name: String,
    pub message: String,
}

/// The rule of a lever that names a resource.
pub fn fault(argo: &Argo<'_>, lever: &str, app: &Value) -> Option<Fault> {
    let rule = levers::app_rule(argo.tools.settings, lever, object::namespace(app), object::name(app))?;
    let (resource, message) = levers::split(&rule).unwrap_or((&rule, ""));
    let (kind, name) = resource.split_once('/').unwrap_or((resource, object::name(app)));
    let message = if message.is_empty() { "broken by a lever (simulated)" } else { message };
    Some(Fault { kind: kind.to_owned(), name: name.to_owned(), message: message.to_owned() })
}

/// `revision`, or `revisions` where there are several sources: the commit a name stands for, a chart's version.
pub fn revisions(app: &Value) -> Vec<String> {
    let revision = |source: &Value| {
        let text = |field: &str| source[field].as_str().unwrap_or_default();
        let target = text("targetRevision");
        let is_commit = target.len() == 40 && target.bytes().all(|byte| byte.is_ascii_hexdigit());
        match source["chart"].is_string() || is_commit {
            true => target.to_owned(),
            false => token::hex(&Sha1::digest(format!("{} {target}", text("repoURL")))),
        }
    };
    project::sources(app).iter().map(revision).collect()
}

fn has_several_sources(app: &Value) -> bool {
    !object::items(&app["spec"]["sources"]).is_empty()
}

/// Puts revisions and sources where Argo CD has them.
pub fn put_sources(place: &mut Value, app: &Value) {
    put_revisions(place, app);
    match has_several_sources(app) {
        true => place["sources"] = app["spec"]["sources"].clone(),
        false => place["source"] = app["spec"]["source"].clone(),
    }
}

fn put_revisions(place: &mut Value, app: &Value) {
    let revisions = revisions(app);
    match has_several_sources(app) {
        true => place["revisions"] = json!(revisions),
        false => place["revision"] = json!(revisions.first()),
    }
}

/// Whether something of a sync is of the sources the application has now.
pub fn is_of(synced: &Value, app: &Value) -> bool {
    let mut wanted = json!({});
    put_sources(&mut wanted, app);
    ["revision", "revisions", "source", "sources"].iter().all(|field| synced[*field] == wanted[*field])
}

/// The parts of the status a comparison writes.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub sync: Value,
    pub health: Value,
    pub resources: Value,
    pub conditions: Vec<(&'static str, String)>,
}

impl Found {
    /// Whether a comparison got as far as the repository and the cluster.
    pub fn is_valid(&self) -> bool {
        self.sync["comparedTo"].is_object()
    }

    pub fn is_out_of_sync(&self) -> bool {
        self.sync["status"] == "OutOfSync"
    }
}

/// Compares.
pub fn compare(argo: &Argo<'_>, app: &Value) -> Found {
    let objections = project::objections(argo, app);
    if !objections.is_empty() {
        return Found {
            sync: json!({"status": "Unknown"}),
            health: json!({"status": "Unknown"}),
            resources: Value::Null,
            conditions: objections,
        };
    }
    let status = &app["status"];
    let destination = &status["sync"]["comparedTo"]["destination"];
    let moved = destination.is_object() && *destination != app["spec"]["destination"];
    let last = object::items(&status["history"]).last();
    let is_deployed = last.is_some_and(|last| is_of(last, app)) && !moved;
    let lever = levers::app_rule(
        argo.tools.settings,
        APP_COMPARISON_ERROR,
        object::namespace(app),
        object::name(app),
    );
    let mut conditions = Vec::new();
    let sync_status = match (&lever, is_deployed) {
        (Some(why), _) => {
            conditions.push((
                "ComparisonError",
                format!(
                    "Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = \
                     Unknown desc = {why}"
                ),
            ));
            "Unknown"
        }
        (None, true) => "Synced",
        (None, false) => "OutOfSync",
    };
    let mut sync = json!({"status": sync_status, "comparedTo": compared_to(app)});
    put_revisions(&mut sync, app);
    let fault = fault(argo, APP_DEGRADED, app).filter(|_| last.is_some());
    let health = match (&fault, last.is_some() || lever.is_some()) {
        (Some(_), _) => "Degraded",
        (None, true) => "Healthy",
        (None, false) => "Missing",
    };
    if sync_status == "OutOfSync" {
        conditions.extend(failed_sync(argo, app).map(|why| ("SyncError", why)));
    }
    let persist = argo.parameters["controller.resource.health.persist"] == "true";
    let resources = match &lever {
        Some(_) => status["resources"].clone(),
        None => resources(app, fault.as_ref(), sync_status, health, persist),
    };
    Found { sync, health: json!({"status": health}), resources, conditions }
}

fn compared_to(app: &Value) -> Value {
    let spec = &app["spec"];
    let mut compared = json!({"destination": spec["destination"]});
    let sources = if has_several_sources(app) { "sources" } else { "source" };
    for field in [sources, "ignoreDifferences"] {
        if !spec[field].is_null() {
            compared[field] = spec[field].clone();
        }
    }
    compared
}

/// Why no automated sync is tried again: the last one, to the same sources, has failed. A lever that is gone stands
/// for the commit that mends it.
fn failed_sync(argo: &Argo<'_>, app: &Value) -> Option<String> {
    let state = &app["status"]["operationState"];
    let has_failed = matches!(state["phase"].as_str(), Some("Failed" | "Error"));
    let is_mended = operation::was_by_lever(state) && fault(argo, APP_SYNC_FAILS, app).is_none();
    if !has_failed || is_mended || !is_of(&state["syncResult"], app) || !is_automated(app) {
        return None;
    }
    let revisions = revisions(app).join(" ");
    Some(format!(
        "Failed last sync attempt to [{revisions}]: {}",
        state["message"].as_str().unwrap_or_default()
    ))
}

/// Whether syncs start of themselves.
pub fn is_automated(app: &Value) -> bool {
    let automated = &app["spec"]["syncPolicy"]["automated"];
    automated.is_object() && automated["enabled"] != false
}

/// Group, version and kind of the resources every application has, in the order Argo CD lists them.
const RESOURCES: &[(&str, &str, &str)] = &[("", "v1", "Service"), ("apps", "v1", "Deployment")];

/// A resource's identity, as Argo CD writes it.
pub fn resource(group: &str, version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut resource = json!({"version": version, "kind": kind, "name": name});
    for (field, value) in [("group", group), ("namespace", namespace)] {
        if !value.is_empty() {
            resource[field] = json!(value);
        }
    }
    resource
}

/// The application's resources, and the one a lever names.
pub fn identities(app: &Value, fault: Option<&Fault>) -> Vec<Value> {
    let namespace = app["spec"]["destination"]["namespace"].as_str().unwrap_or_default();
    let name = object::name(app);
    let mut found: Vec<Value> = RESOURCES
        .iter()
        .map(|(group, version, kind)| resource(group, version, kind, namespace, name))
        .collect();
    if let Some(fault) = fault.filter(|fault| !found.iter().any(|resource| is_at(resource, fault))) {
        let group = match fault.kind.as_str() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps",
            "Job" | "CronJob" => "batch",
            "Ingress" => "networking.k8s.io",
            _ => "",
        };
        found.push(resource(group, "v1", &fault.kind, namespace, &fault.name));
    }
    let key = |resource: &Value| {
        ["group", "kind", "namespace", "name"]
            .map(|field| resource[field].as_str().unwrap_or_default().to_owned())
    };
    found.sort_by_key(key);
    found
}

/// Whether a lever means a resource.
pub fn is_at(resource: &Value, fault: &Fault) -> bool {
    resource["kind"] == fault.kind.as_str() && resource["name"] == fault.name.as_str()
}

/// `status.resources`. Since Argo CD 3.0 their health is only there where `controller.resource.health.persist` asks
/// for it.
fn resources(app: &Value, fault: Option<&Fault>, sync: &str, health: &str, persist: bool) -> Value {
    let state = |mut resource: Value| {
        resource["status"] = json!(sync);
        if persist {
            resource["health"] = match (fault.filter(|fault| is_at(&resource, fault)), health) {
                (Some(fault), _) => json!({"status": "Degraded", "message": fault.message}),
                (None, "Degraded") => json!({"status": "Healthy"}),
                (None, health) => json!({"status": health}),
            };
        }
        resource
    };
    identities(app, fault).into_iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_commits_or_versions() {
        let app = |source: Value| json!({"spec": {"source": source}});
        let one = |source: Value| revisions(&app(source)).remove(0);
        let branch = one(json!({"repoURL": "https://git.home.arpa/a", "targetRevision": "main"}));
        assert_eq!(branch.len(), 40);
        assert_ne!(branch, one(json!({"repoURL": "https://git.home.arpa/a", "targetRevision": "other"})));
        let chart = json!({"repoURL": "https://charts.home.arpa", "chart": "web", "targetRevision": "1.2.3"});
        assert_eq!(one(chart), "1.2.3");
        assert_eq!(one(json!({"repoURL": "x", "targetRevision": branch})), branch);
        let several = json!({"spec": {"sources": [{"repoURL": "a"}, {"repoURL": "b"}]}});
        let mut synced = json!({});
        put_sources(&mut synced, &several);
        assert_eq!(synced["revisions"].as_array().map(Vec::len), Some(2));
        assert!(is_of(&synced, &several));
        assert!(!is_of(&synced, &app(json!({"repoURL": "a"}))));
    }

    #[test]
    fn resources_are_listed_with_health_where_it_is_asked_for() {
        let app = json!({"metadata": {"name": "web"}, "spec": {"destination": {"namespace": "shop"}}});
        let fault = Fault { kind: "Job".into(), name: "init".into(), message: "it broke".into() };
        let seen = resources(&app, Some(&fault), "Synced", "Degraded", true);
        let kinds: Vec<&Value> = object::items(&seen).iter().map(|resource| &resource["kind"]).collect();
        assert_eq!(kinds, ["Service", "Deployment", "Job"]);
        assert_eq!(seen[0]["health"]["status"], "Healthy");
        assert_eq!(seen[2]["health"], json!({"status": "Degraded", "message": "it broke"}));
        assert_eq!(seen[2]["group"], "batch");
        let fault = Fault { kind: "Deployment".into(), name: "web".into(), ..fault };
        let seen = resources(&app, Some(&fault), "Synced", "Degraded", false);
        assert_eq!(seen.as_array().map(Vec::len), Some(2));
        assert!(seen[1]["health"].is_null());
    }
}
