//! Stands in for the kubelet: pods of the node become Running without anything that runs.
//!
//! A pod of a Job succeeds after a moment, any other one is Ready. An image whose name holds `never-ready` is never
//! pulled: a rollout that cannot finish. A pod that is deleted goes at once, its grace period is not waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};

use super::agent::NodeConfig;
use super::client::{Call, Client};
use super::settings::Settings;
use super::{Failure, log, object};

/// Images that are never pulled.
const NEVER: &str = "never-ready";
/// How long nothing may happen before the pods are looked at anyway.
const IDLE: Duration = Duration::from_secs(10);

pub struct Kubelet<'a> {
    settings: &'a Settings,
    node: &'a NodeConfig,
    api: &'a Client,
}

impl<'a> Kubelet<'a> {
    pub fn new(settings: &'a Settings, node: &'a NodeConfig, api: &'a Client) -> Self {
        Self { settings, node, api }
    }

    /// Works until it is dropped.
    pub async fn run(&self) {
        let mut seen = BTreeMap::new();
        loop {
            if let Err(failure) = self.follow(&mut seen).await {
                log::error(format!("Failed to watch pods: {failure}"));
            }
            tokio::time::sleep(self.settings.retry).await;
        }
    }

    /// Looks at the pods whenever one changes, until the watch ends. `seen`: since when a pod is starting.
    async fn follow(&self, seen: &mut BTreeMap<String, Instant>) -> Result<(), Failure> {
        let selector = format!("fieldSelector=spec.nodeName%3D{}", self.node.name);
        let watch = format!("/api/v1/pods?watch=true&{selector}");
        let mut changes = self.api.stream(&watch).await?.into_body();
        loop {
            let wait = self.settle(&selector, seen).await?;
            tokio::select! {
                frame = changes.frame() => match frame {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(Failure::request(error)),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Brings every pod a step further; says when to look again.
    async fn settle(
        &self,
        selector: &str,
        seen: &mut BTreeMap<String, Instant>,
    ) -> Result<Duration, Failure> {
        let list = self.api.send(&Call::get(&format!("/api/v1/pods?{selector}"))).await?.value();
        let pods = object::items(&list["items"]);
        seen.retain(|uid, _| pods.iter().any(|pod| object::uid(pod) == uid));
        let mut wait = IDLE;
        for pod in pods {
            if object::is_going(pod) {
                self.delete(pod).await?;
                continue;
            }
            // One that was Running while nobody heard of this node is said to be ready again.
            let is_doubted = pod["status"]["phase"] == "Running" && !object::is_ready(pod);
            if pod["status"]["phase"] != "Pending" && !is_doubted {
                continue;
            }
            let since = *seen.entry(object::uid(pod).to_owned()).or_insert_with(Instant::now);
            match self.settings.pod_start.checked_sub(since.elapsed()) {
                Some(left) if !left.is_zero() => wait = wait.min(left),
                _ => self.start(pod).await?,
            }
        }
        Ok(wait)
    }

    async fn delete(&self, pod: &Value) -> Result<(), Failure> {
        let path = path(pod);
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": object::uid(pod)}});
        self.api.send(&Call::json(Method::DELETE, &path, &options)).await.map(drop)
    }

    async fn start(&self, pod: &Value) -> Result<(), Failure> {
        let status = status(pod, &self.node.addresses[0]);
        if status["containerStatuses"] == pod["status"]["containerStatuses"] && status["phase"] == "Pending" {
            return Ok(());
        }
        let path = format!("{}/status", path(pod));
        let patch = Call {
            content_type: "application/merge-patch+json",
            ..Call::json(Method::PATCH, &path, &json!({"status": status}))
        };
        self.api.send(&patch).await.map(drop)
    }
}

fn path(pod: &Value) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", object::namespace(pod), object::name(pod))
}

/// The status of a pod after its start.
fn status(pod: &Value, host: &str) -> Value {
    let containers = object::items(&pod["spec"]["containers"]);
    let stuck =
        containers.iter().any(|container| container["image"].as_str().is_some_and(|i| i.contains(NEVER)));
    let ends = pod["spec"]["restartPolicy"] != "Always";
    let now = object::now();
    let (phase, ready) = match (stuck, ends) {
        (true, _) => ("Pending", false),
        (false, true) => ("Succeeded", false),
        (false, false) => ("Running", true),
    };
    let state = match phase {
        "Pending" => json!({"waiting": {
            "reason": "ImagePullBackOff", "message": "Back-off pulling image (simulated)",
        }}),
        "Succeeded" => json!({"terminated": {
            "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now,
        }}),
        _ => json!({"running": {"startedAt": now}}),
    };
    let statuses: Vec<Value> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "simulated",
                "containerID": "simulated://none", "ready": ready, "started": ready, "restartCount": 0,
                "state": state, "lastState": {},
            })
        })
        .collect();
    let hash = object::hash(&json!(object::uid(pod)));
    let byte = |at: usize| u8::from_str_radix(&hash[at..at + 2], 16).unwrap_or(1);
    let address = format!("10.42.{}.{}", byte(0), byte(2).clamp(2, 254));
    let mut new = json!({"status": {
        "phase": phase, "containerStatuses": statuses, "hostIP": host, "hostIPs": [{"ip": host}],
        "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": pod["status"]["conditions"].as_array().cloned().unwrap_or_default(),
    }});
    let condition = |yes: bool| if yes { "True" } else { "False" };
    let reason = if phase == "Succeeded" {
        "PodCompleted"
    } else if ready {
        ""
    } else {
        "ContainersNotReady"
    };
    object::set_condition(&mut new, "Initialized", "True", "", "");
    object::set_condition(&mut new, "ContainersReady", condition(ready), reason, "");
    object::set_condition(&mut new, "Ready", condition(ready), reason, "");
    new["status"].take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_start_end_or_hang() {
        let pod = |image: &str, restart: &str| {
            json!({
                "metadata": {"uid": "u"},
                "spec": {"restartPolicy": restart, "containers": [{"name": "x", "image": image}]},
            })
        };
        let cases = [
            ("web:1", "Always", "Running", "True"),
            ("job:1", "Never", "Succeeded", "False"),
            ("web:never-ready", "Always", "Pending", "False"),
        ];
        for (image, restart, phase, ready) in cases {
            let status = json!({"status": status(&pod(image, restart), "192.0.2.1")});
            assert_eq!(status["status"]["phase"], phase);
            assert_eq!(object::condition(&status, "Ready"), Some(ready));
        }
    }
}
