//! Jobs: pods until enough of them have succeeded.

use serde_json::{Value, json};

use super::{Tools, pods};
use crate::lab::k3s::object;

const ID: &str = "jobs.batch";

pub fn step(tools: &Tools<'_>) {
    for job in tools.list(ID).iter().filter(|job| !object::is_going(job)) {
        match object::condition(job, "Complete") == Some("True") {
            true => expire(tools, job),
            false => advance(tools, job),
        }
    }
}

fn advance(tools: &Tools<'_>, job: &Value) {
    let spec = |field: &str| job["spec"][field].as_i64().unwrap_or(1);
    let found = pods::of(tools, job);
    let succeeded = found.iter().filter(|pod| pod["status"]["phase"] == "Succeeded").count() as i64;
    let active = found.iter().filter(|pod| pods::is_active(pod)).count() as i64;
    let missing = (spec("completions") - succeeded - active).min(spec("parallelism") - active).max(0);
    if job["spec"]["suspend"] != true {
        for _ in 0..missing {
            tools.create("pods", object::namespace(job), pods::from_template(job, &[]));
        }
    }
    let ready = pods::ready(&found) as i64;
    tools.modify_status(ID, job, |job| {
        let status = object::map_mut(job, "status");
        status.entry("startTime").or_insert_with(|| json!(object::now()));
        status.insert("active".into(), json!(active + missing));
        status.insert("ready".into(), json!(ready));
        status.insert("succeeded".into(), json!(succeeded));
        if succeeded >= job["spec"]["completions"].as_i64().unwrap_or(1) {
            let reason = "CompletionsReached";
            let message = "Reached expected number of succeeded pods";
            object::set_condition(job, "SuccessCriteriaMet", "True", reason, message);
            object::set_condition(job, "Complete", "True", reason, message);
            job["status"]["completionTime"] = json!(object::now());
            object::map_mut(job, "status").remove("active");
        }
    });
}

/// Deletes a finished job whose time is over, where it has one.
fn expire(tools: &Tools<'_>, job: &Value) {
    let Some(seconds) = job["spec"]["ttlSecondsAfterFinished"].as_f64() else { return };
    if object::age(&job["status"]["completionTime"]).is_some_and(|age| age >= seconds) {
        tools.delete(ID, job);
    }
}
