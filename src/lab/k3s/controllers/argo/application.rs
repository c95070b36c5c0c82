//! Applications: compared whenever something about them has changed, when asked to, and now and then.

use serde_json::{Value, json};

use super::compare::{self, Found, compare};
use super::{APPLICATIONS, Argo, operation, release};
use crate::lab::k3s::object;

const REFRESH: &str = "argocd.argoproj.io/refresh";
/// Argo CD's `timeout.reconciliation`, in seconds.
const INTERVAL: f64 = 120.0;

pub fn step(argo: &Argo<'_>) {
    for app in argo.watched(APPLICATIONS, "application.namespaces") {
        if object::is_going(&app) {
            finalize(argo, &app);
        } else if app["operation"].is_object() {
            operation::advance(argo, &app);
        } else {
            refresh(argo, &app);
        }
    }
}

fn finalize(argo: &Argo<'_>, app: &Value) {
    if argo.tools.has_passed(argo.tools.settings.moment, format!("finalized {}", object::uid(app))) {
        release(argo, APPLICATIONS, app);
    }
}

/// Compares an application whose state is not what was last found, once the moment a comparison takes has passed.
fn refresh(argo: &Argo<'_>, app: &Value) {
    let found = compare(argo, app);
    let is_asked = object::annotation(app, REFRESH).is_some();
    let is_old = object::age(&app["status"]["reconciledAt"]).is_none_or(|age| age > INTERVAL);
    let is_due = is_asked || (is_old && found.is_valid()) || !is_recorded(app, &found);
    if !is_due {
        return;
    }
    if argo.tools.has_passed(argo.tools.settings.moment, format!("refreshed {}", object::uid(app))) {
        argo.tools.modify(APPLICATIONS, app, |app| record(argo, app, &found));
    }
}

fn is_recorded(app: &Value, found: &Found) -> bool {
    let mut then = app.clone();
    write(&mut then, found);
    then["status"] == app["status"]
}

fn record(argo: &Argo<'_>, app: &mut Value, found: &Found) {
    write(app, found);
    if object::annotation(app, REFRESH).is_some() {
        object::map_mut(&mut app["metadata"], "annotations").remove(REFRESH);
    }
    let status = object::map_mut(app, "status");
    status.insert("controllerNamespace".into(), json!(argo.namespace));
    if found.is_valid() {
        status.insert("reconciledAt".into(), json!(object::now()));
    }
    let has_failed = found.conditions.iter().any(|(kind, _)| *kind == "SyncError");
    if found.is_out_of_sync() && compare::is_automated(app) && !has_failed {
        app["operation"] = operation::automated(app);
    }
}

/// Writes what was found; times stay where nothing has changed.
fn write(app: &mut Value, found: &Found) {
    let now = object::now();
    let status = object::map_mut(app, "status");
    let mut sync = found.sync.clone();
    if !found.is_valid() {
        // What was compared last stays there.
        sync = status.get("sync").cloned().unwrap_or_else(|| json!({}));
        sync["status"] = found.sync["status"].clone();
    }
    status.insert("sync".into(), sync);
    let mut health = found.health.clone();
    let old = status.get("health").cloned().unwrap_or_default();
    let same = old["status"] == health["status"];
    health["lastTransitionTime"] = if same { old["lastTransitionTime"].clone() } else { json!(now) };
    status.insert("health".into(), health);
    let persisted = object::items(&found.resources).iter().any(|resource| resource["health"].is_object());
    match persisted {
        true => drop(status.remove("resourceHealthSource")),
        false => drop(status.insert("resourceHealthSource".into(), json!("appTree"))),
    }
    if !found.resources.is_null() {
        status.insert("resources".into(), found.resources.clone());
    }
    let old = status.remove("conditions").unwrap_or_default();
    let condition = |(kind, message): &(&str, String)| {
        let same =
            object::items(&old).iter().find(|old| old["type"] == *kind && old["message"] == message.as_str());
        same.cloned().unwrap_or_else(|| json!({"type": kind, "message": message, "lastTransitionTime": now}))
    };
    if !found.conditions.is_empty() {
        status.insert("conditions".into(), found.conditions.iter().map(condition).collect());
    }
}
