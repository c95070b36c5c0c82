//! Jobs: pods until enough of them have succeeded, or one has failed too often.

use serde_json::{Value, json};

use super::{Tools, pods};
use crate::lab::k3s::store::Object;
use crate::lab::k3s::{kubelet, object};

const ID: &str = "jobs.batch";

pub fn step(tools: &Tools<'_>) {
    for job in tools.list(ID).iter().filter(|job| !object::is_going(job)) {
        let is = |condition: &str| object::condition(job, condition) == Some("True");
        if is("Complete") || is("Failed") {
            expire(tools, job);
        } else if is("FailureTarget") || has_failed(tools, job) {
            fail(tools, job);
        } else {
            advance(tools, job);
        }
    }
}

/// Whether the retries are used up: pods that failed, or starts of containers that are started again.
fn has_failed(tools: &Tools<'_>, job: &Value) -> bool {
    let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
    let found = pods::of(tools, job);
    match job["spec"]["template"]["spec"]["restartPolicy"].as_str() {
        Some("OnFailure") => {
            let restarts: i64 =
                found.iter().filter(|pod| pods::is_active(pod)).map(|pod| kubelet::restarts(pod)).sum();
            restarts >= limit.max(1)
        }
        _ => found.iter().filter(|pod| pod["status"]["phase"] == "Failed").count() as i64 > limit,
    }
}

/// Stops the pods, then says that the job has failed.
fn fail(tools: &Tools<'_>, job: &Value) {
    let (reason, message) = ("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    let running: Vec<Object> = pods::of(tools, job)
        .into_iter()
        .filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
        .collect();
    tools.modify_status(ID, job, |job| {
        let failed = job["status"]["failed"].as_i64().unwrap_or(0);
        if object::condition(job, "FailureTarget").is_none() {
            object::map_mut(job, "status").insert("failed".into(), json!(failed + running.len() as i64));
        }
        object::set_condition(job, "FailureTarget", "True", reason, message);
        let status = object::map_mut(job, "status");
        status.insert("ready".into(), json!(0));
        status.remove("active");
        if running.is_empty() {
            object::set_condition(job, "Failed", "True", reason, message);
        }
    });
    running.iter().filter(|pod| !object::is_going(pod)).for_each(|pod| tools.delete("pods", pod));
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
    let failed = found.iter().filter(|pod| pod["status"]["phase"] == "Failed").count() as i64;
    tools.modify_status(ID, job, |job| {
        let status = object::map_mut(job, "status");
        status.entry("startTime").or_insert_with(|| json!(object::now()));
        status.insert("active".into(), json!(active + missing));
        status.insert("ready".into(), json!(ready));
        status.insert("succeeded".into(), json!(succeeded));
        if failed > 0 {
            status.insert("failed".into(), json!(failed));
        }
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
    let ended = object::items(&job["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Complete" || condition["type"] == "Failed");
    if ended.and_then(|ended| object::age(&ended["lastTransitionTime"])).is_some_and(|age| age >= seconds) {
        tools.delete(ID, job);
    }
}
