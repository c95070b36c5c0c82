//! Sync operations, automated and requested (`operation` of an Application): started, retried, ended.
//!
//! Phases, messages and results are those of Argo CD's `controller/sync.go` and `gitops-engine`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::compare::{self, Fault};
use super::{APPLICATIONS, Argo, project};
use crate::lab::k3s::levers::{self, APP_COMPARISON_ERROR, APP_SYNC_FAILS};
use crate::lab::k3s::object;

/// Argo CD's `RevisionHistoryLimit`.
const HISTORY: i64 = 10;
/// How often an automated sync is retried.
const RETRIES: i64 = 5;

/// Noted in an operation that a lever has broken, so that it is tried again when the lever is gone.
static BY_LEVER: LazyLock<Value> = LazyLock::new(|| json!({"name": "simulated", "value": "lever"}));

/// The operation an application's automated policy asks for.
pub fn automated(app: &Value) -> Value {
    let policy = &app["spec"]["syncPolicy"];
    let mut sync = json!({});
    compare::put_sources(&mut sync, app);
    if policy["automated"]["prune"] == true {
        sync["prune"] = json!(true);
    }
    if !policy["syncOptions"].is_null() {
        sync["syncOptions"] = policy["syncOptions"].clone();
    }
    let retry = if policy["retry"].is_object() { policy["retry"].clone() } else { json!({"limit": RETRIES}) };
    json!({"sync": sync, "initiatedBy": {"automated": true}, "retry": retry})
}

/// Takes the next step of an operation.
pub fn advance(argo: &Argo<'_>, app: &Value) {
    let state = &app["status"]["operationState"];
    let change = |change: &dyn Fn(&mut Value)| argo.tools.modify(APPLICATIONS, app, change);
    if state["phase"] != "Running" {
        return change(&start);
    }
    let what = format!("operation {} {}", object::uid(app), state["startedAt"]);
    if !argo.tools.has_passed(argo.tools.settings.moment, what) {
        return;
    }
    if state["finishedAt"].is_string() {
        return change(&retry);
    }
    match outcome(argo, app) {
        Ok(()) => change(&|app| succeed(app)),
        Err(failed) => change(&|app| fail(app, &failed)),
    }
}

/// Whether a lever made an operation fail.
pub fn was_by_lever(state: &Value) -> bool {
    object::items(&state["operation"]["info"]).contains(&BY_LEVER)
}

fn start(app: &mut Value) {
    let mut result = json!({});
    compare::put_sources(&mut result, app);
    let message = format!("waiting for healthy state of apps/Deployment/{}", object::name(app));
    let state = json!({
        "operation": app["operation"], "phase": "Running", "startedAt": object::now(), "syncResult": result,
        "message": message,
    });
    object::map_mut(app, "status").insert("operationState".into(), state);
}

fn retry(app: &mut Value) {
    let state = object::as_map(&mut app["status"]["operationState"]);
    state.remove("finishedAt");
    let count = state.get("retryCount").and_then(Value::as_i64).unwrap_or(0);
    state.insert("message".into(), json!(format!("Retrying operation. Attempt #{count}")));
}

/// How a sync ends badly.
struct Failed {
    /// `Failed` where resources were refused, `Error` where it did not come to them.
    phase: &'static str,
    message: String,
    fault: Option<Fault>,
    by_lever: bool,
}

/// Does what a sync does outside of the application: makes its namespace.
fn outcome(argo: &Argo<'_>, app: &Value) -> Result<(), Failed> {
    let mut conditions = project::objections(argo, app);
    let (namespace, name) = (object::namespace(app), object::name(app));
    if let Some(why) = levers::app_rule(argo.tools.settings, APP_COMPARISON_ERROR, namespace, name) {
        conditions.push(("ComparisonError", why));
    }
    if !conditions.is_empty() {
        let shown: Vec<String> =
            conditions.iter().map(|(kind, message)| format!("{kind}: {message}")).collect();
        return Err(Failed { phase: "Error", message: shown.join(";"), fault: None, by_lever: false });
    }
    let failed = |fault: Fault, by_lever: bool| {
        let message = format!("one or more objects failed to apply, reason: {}", fault.message);
        Failed { phase: "Failed", message, fault: Some(fault), by_lever }
    };
    let target = app["spec"]["destination"]["namespace"].as_str().unwrap_or_default();
    let options = object::items(&app["operation"]["sync"]["syncOptions"]);
    if !target.is_empty() && argo.tools.get("namespaces", "", target).is_none() {
        if !options.iter().any(|option| option == "CreateNamespace=true") {
            let message = format!("namespaces {target:?} not found");
            return Err(failed(Fault { kind: "Deployment".into(), name: name.into(), message }, false));
        }
        argo.tools.create("namespaces", "", json!({"metadata": {"name": target}}));
    }
    match compare::fault(argo, APP_SYNC_FAILS, app) {
        Some(fault) => Err(failed(fault, true)),
        None => Ok(()),
    }
}

fn succeed(app: &mut Value) {
    let resources = results(app, None);
    let limit = usize::try_from(app["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(HISTORY)).unwrap_or(0);
    let now = object::now();
    let state = &mut app["status"]["operationState"];
    state["syncResult"]["resources"] = resources;
    end(state, "Succeeded", "successfully synced (all tasks run)");
    let mut entry = json!({
        "deployedAt": now, "deployStartedAt": state["startedAt"], "initiatedBy": state["operation"]["initiatedBy"],
    });
    compare::put_sources(&mut entry, app);
    let status = object::as_map(&mut app["status"]);
    // The next comparison finds it healthy.
    status.insert("health".into(), json!({"status": "Progressing", "lastTransitionTime": now}));
    let history = object::list_mut(&mut app["status"], "history");
    entry["id"] = json!(history.last().and_then(|last| last["id"].as_i64()).map_or(0, |id| id + 1));
    history.push(entry);
    let surplus = history.len().saturating_sub(limit.max(1));
    history.drain(..surplus);
    object::as_map(app).remove("operation");
}

fn fail(app: &mut Value, failed: &Failed) {
    let resources = results(app, failed.fault.as_ref());
    let limit = app["operation"]["retry"]["limit"].as_i64().unwrap_or(0);
    let state = &mut app["status"]["operationState"];
    state["syncResult"]["resources"] = resources;
    if failed.by_lever {
        state["operation"]["info"] = json!([*BY_LEVER]);
    }
    let count = state["retryCount"].as_i64().unwrap_or(0);
    if count < limit || limit < 0 {
        let at = jiff::Timestamp::now().strftime("%-I:%M%p");
        let message = format!("{}. Retrying attempt #{} at {at}.", failed.message, count + 1);
        state["retryCount"] = json!(count + 1);
        state["finishedAt"] = json!(object::now());
        state["message"] = json!(message);
        return;
    }
    let message = match count {
        0 => failed.message.clone(),
        count => format!("{} (retried {count} times).", failed.message),
    };
    end(state, failed.phase, &message);
    object::as_map(app).remove("operation");
}

fn end(state: &mut Value, phase: &str, message: &str) {
    state["phase"] = json!(phase);
    state["message"] = json!(message);
    state["finishedAt"] = json!(object::now());
}

/// `syncResult.resources`.
fn results(app: &Value, fault: Option<&Fault>) -> Value {
    let first = object::items(&app["status"]["history"]).is_empty();
    let done = if first { "created" } else { "configured" };
    let result = |mut resource: Value| {
        let text = |field: &str| resource[field].as_str().unwrap_or_default().to_lowercase();
        let kind = [text("kind"), text("group")].join(".");
        let message = format!("{}/{} {done}", kind.trim_end_matches('.'), text("name"));
        let (status, phase, message) = match fault.filter(|fault| compare::is_at(&resource, fault)) {
            Some(fault) => ("SyncFailed", "Failed", fault.message.clone()),
            None => ("Synced", "Running", message),
        };
        for (field, value) in
            [("status", status), ("hookPhase", phase), ("syncPhase", "Sync"), ("message", &message)]
        {
            resource[field] = json!(value);
        }
        for field in ["group", "namespace"] {
            if resource[field].is_null() {
                resource[field] = json!("");
            }
        }
        resource
    };
    compare::identities(app, fault).into_iter().map(result).collect()
}
