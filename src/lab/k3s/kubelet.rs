//! Stands in for the kubelet: pods of the node become Running without anything that runs.
//!
//! A pod of a Job succeeds after a moment, any other one is Ready. An image whose name holds `never-ready` is never
//! pulled: a rollout that cannot finish. A pod that is deleted goes at once, its grace period is not waited for.
//!
//! A pod with the annotation [`EXIT`] stands for a process that a controller plays: it runs until the annotation says
//! how it ended, and is started again as its restart policy says.

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
/// How a pod's process ended: `<restarts so far>=<exit code>`; anything else while it runs.
pub const EXIT: &str = "simulated/exit";
/// What the process has left in `/dev/termination-log`.
const SAID: &str = "simulated/termination-message";
/// While it is there, the pod's volumes cannot be mounted; it holds the kubelet's words.
pub const WAITS_FOR: &str = "simulated/waits-for";
/// A back-off grows up to this many times the time a container takes to start.
const LONGEST: u32 = 8;
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
        seen.retain(|turn, _| pods.iter().any(|pod| turn.starts_with(object::uid(pod))));
        let mut wait = IDLE;
        for pod in pods {
            if object::is_going(pod) {
                self.delete(pod).await?;
                continue;
            }
            let Some(turn) = turn(pod) else { continue };
            let key = format!("{} {turn:?} {}", object::uid(pod), restarts(pod));
            let since = *seen.entry(key).or_insert_with(Instant::now);
            match (self.settings.pod_start * turn.delay(pod)).checked_sub(since.elapsed()) {
                Some(left) if !left.is_zero() => wait = wait.min(left),
                _ => self.take(pod, turn).await?,
            }
        }
        Ok(wait)
    }

    async fn delete(&self, pod: &Value) -> Result<(), Failure> {
        let path = path(pod);
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": object::uid(pod)}});
        self.api.send(&Call::json(Method::DELETE, &path, &options)).await.map(drop)
    }

    async fn take(&self, pod: &Value, turn: Turn) -> Result<(), Failure> {
        let status = status(pod, turn, &self.node.addresses[0]);
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

/// What a pod's node has to do about it next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Its volumes are not there.
    Hold,
    Start,
    /// Its process has ended, with this exit code.
    End(i64),
    Restart,
}

impl Turn {
    /// After how many times the time a container takes to start.
    fn delay(self, pod: &Value) -> u32 {
        match self {
            Self::Hold | Self::End(_) => 0,
            Self::Start => 1,
            Self::Restart => 2_u32.checked_pow(restarts(pod) as u32).unwrap_or(LONGEST).min(LONGEST),
        }
    }
}

fn turn(pod: &Value) -> Option<Turn> {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    match pod["status"]["phase"].as_str() {
        Some("Pending") if object::annotation(pod, WAITS_FOR).is_some() => Some(Turn::Hold),
        Some("Pending") => Some(Turn::Start),
        Some("Running") if state["waiting"].is_object() => Some(Turn::Restart),
        Some("Running") => match exit(pod) {
            Some((restart, code)) if restart == restarts(pod) => Some(Turn::End(code)),
            // One that was Running while nobody heard of this node is said to be ready again.
            _ => (!object::is_ready(pod)).then_some(Turn::Start),
        },
        _ => None,
    }
}

/// How often the pod's first container was started again.
pub fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0)
}

/// The start and the exit code that the annotation tells.
fn exit(pod: &Value) -> Option<(i64, i64)> {
    let (restart, code) = object::annotation(pod, EXIT)?.split_once('=')?;
    Some((restart.parse().ok()?, code.parse().ok()?))
}

/// Whether a controller has yet to say how the pod's process, which runs, ends.
pub fn is_undecided(pod: &Value) -> bool {
    let runs = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    runs && object::annotation(pod, EXIT).is_some()
        && exit(pod).is_none_or(|(restart, _)| restart != restarts(pod))
}

/// Says how it ends.
pub fn end(pod: &mut Value, code: i64, said: &str) {
    let restarts = restarts(pod);
    let annotations = object::map_mut(&mut pod["metadata"], "annotations");
    annotations.insert(EXIT.into(), json!(format!("{restarts}={code}")));
    annotations.insert(SAID.into(), json!(said));
}

fn path(pod: &Value) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", object::namespace(pod), object::name(pod))
}

/// The status of a pod after a turn.
fn status(pod: &Value, turn: Turn, host: &str) -> Value {
    let containers = object::items(&pod["spec"]["containers"]);
    let stuck =
        containers.iter().any(|container| container["image"].as_str().is_some_and(|i| i.contains(NEVER)));
    let is_played = object::annotation(pod, EXIT).is_some();
    let ends = pod["spec"]["restartPolicy"] != "Always" && !is_played;
    let once = pod["spec"]["restartPolicy"] == "Never";
    let now = object::now();
    let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let ended = |code: i64| {
        let reason = if code == 0 { "Completed" } else { "Error" };
        let message = object::annotation(pod, SAID).unwrap_or_default();
        json!({"terminated": {
            "exitCode": code, "reason": reason, "message": message, "startedAt": now, "finishedAt": now,
        }})
    };
    let held = object::annotation(pod, WAITS_FOR).unwrap_or_default();
    let (phase, state, last) = match turn {
        Turn::Hold => ("Pending", waiting("ContainerCreating", held), json!({})),
        _ if stuck => {
            ("Pending", waiting("ImagePullBackOff", "Back-off pulling image (simulated)"), json!({}))
        }
        Turn::Start if ends => ("Succeeded", ended(0), json!({})),
        Turn::End(0) => ("Succeeded", ended(0), json!({})),
        Turn::End(code) if once => ("Failed", ended(code), json!({})),
        Turn::End(code) => {
            ("Running", waiting("CrashLoopBackOff", "back-off restarting failed container"), ended(code))
        }
        Turn::Start | Turn::Restart => ("Running", json!({"running": {"startedAt": now}}), json!({})),
    };
    let ready = phase == "Running" && state["running"].is_object();
    let restarts = restarts(pod) + i64::from(matches!(turn, Turn::End(code) if code != 0 && !once));
    let statuses: Vec<Value> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "simulated",
                "containerID": "simulated://none", "ready": ready, "started": ready, "restartCount": restarts,
                "state": state, "lastState": last,
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

    fn pod(image: &str, restart: &str, annotations: Value) -> Value {
        json!({
            "metadata": {"uid": "u", "annotations": annotations}, "status": {"phase": "Pending"},
            "spec": {"restartPolicy": restart, "containers": [{"name": "x", "image": image}]},
        })
    }

    fn after(pod: &mut Value) -> Option<Turn> {
        let turn = turn(pod)?;
        pod["status"] = status(pod, turn, "192.0.2.1");
        Some(turn)
    }

    #[test]
    fn pods_start_end_or_hang() {
        let cases = [
            ("web:1", "Always", "Running", "True"),
            ("job:1", "Never", "Succeeded", "False"),
            ("web:never-ready", "Always", "Pending", "False"),
        ];
        for (image, restart, phase, ready) in cases {
            let mut pod = pod(image, restart, json!({}));
            assert_eq!(after(&mut pod), Some(Turn::Start));
            assert_eq!(pod["status"]["phase"], phase);
            assert_eq!(object::condition(&pod, "Ready"), Some(ready));
        }
    }

    #[test]
    fn a_played_process_ends_as_it_is_told_once_each_start() {
        let mut pod = pod("helm", "OnFailure", json!({EXIT: "", WAITS_FOR: "a volume"}));
        assert_eq!(after(&mut pod), Some(Turn::Hold));
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "a volume");
        object::map_mut(&mut pod["metadata"], "annotations").remove(WAITS_FOR);
        assert_eq!(after(&mut pod), Some(Turn::Start));
        assert!(is_undecided(&pod));
        assert_eq!(turn(&pod), None);

        end(&mut pod, 1, "it broke");
        assert!(!is_undecided(&pod));
        assert_eq!(after(&mut pod), Some(Turn::End(1)));
        let container = pod["status"]["containerStatuses"][0].clone();
        assert_eq!(container["lastState"]["terminated"]["message"], "it broke");
        assert_eq!(
            (container["restartCount"].clone(), pod["status"]["phase"].clone()),
            (json!(1), json!("Running"))
        );
        assert_eq!((after(&mut pod), Turn::Restart.delay(&pod)), (Some(Turn::Restart), 2));
        assert!(is_undecided(&pod), "what was said is of the start before");
        end(&mut pod, 0, "");
        assert_eq!(after(&mut pod), Some(Turn::End(0)));
        assert_eq!((pod["status"]["phase"].clone(), turn(&pod)), (json!("Succeeded"), None));

        pod["spec"]["restartPolicy"] = json!("Never");
        pod["status"] = json!({"phase": "Pending"});
        assert_eq!(after(&mut pod), Some(Turn::Start));
        end(&mut pod, 3, "");
        assert_eq!((after(&mut pod), pod["status"]["phase"].clone()), (Some(Turn::End(3)), json!("Failed")));
    }
}
