//! Waiting until an object is as wanted, by watch: rolled out, established, complete, gone, or anything else.

use std::fmt::Debug;
use std::time::Duration;

use ::kube::api::{Api, DynamicObject};
use ::kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::Cluster;
use super::error::Error;
use super::object::ObjectRef;
use super::watch::Seen;
use crate::transport::prompt::printable;

/// What an object's state means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Done,
    /// What is still missing: `2 of 3 replicas are available`.
    NotYet(String),
    /// It will not come to be: why.
    Failed(String),
}

impl Check {
    /// Why it is not done, if it is not.
    pub fn unmet(self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::NotYet(why) | Self::Failed(why) => Some(why),
        }
    }
}

type Judge = Box<dyn Fn(Option<&DynamicObject>) -> Check + Send + Sync>;

/// What to wait for.
pub struct Condition {
    /// Completes "was not …": `rolled out`.
    wanted: String,
    judge: Judge,
}

impl Condition {
    /// Any condition; the object is `None` while it does not exist.
    pub fn new(
        wanted: impl Into<String>,
        judge: impl Fn(Option<&DynamicObject>) -> Check + Send + Sync + 'static,
    ) -> Self {
        Self { wanted: wanted.into(), judge: Box::new(judge) }
    }

    /// As [`Condition::new`], for an object that has to exist.
    pub fn of(
        wanted: impl Into<String>,
        judge: impl Fn(&DynamicObject) -> Check + Send + Sync + 'static,
    ) -> Self {
        Self::new(wanted, move |object| match object {
            Some(object) => judge(object),
            None => Check::NotYet("it does not exist".into()),
        })
    }

    /// What an object's state means; `None`: it does not exist.
    pub fn judge(&self, object: Option<&DynamicObject>) -> Check {
        (self.judge)(object)
    }

    /// A CustomResourceDefinition whose objects the API takes.
    pub fn established() -> Self {
        Self::of("established", |crd| match condition(crd, "NamesAccepted") {
            Some(("False", why)) => Check::Failed(why),
            _ => match condition(crd, "Established") {
                Some(("True", _)) => Check::Done,
                _ => Check::NotYet("the API does not serve it yet".into()),
            },
        })
    }

    /// A Deployment, DaemonSet or StatefulSet all of whose pods are of its newest form and available.
    pub fn rolled_out() -> Self {
        Self::of("rolled out", |object| {
            if number(object, "/metadata/generation") > number(object, "/status/observedGeneration") {
                return Check::NotYet("its newest form has not been seen by its controller".into());
            }
            match object.types.as_ref().map(|types| types.kind.as_str()) {
                Some("DaemonSet") => daemon_set(object),
                Some("StatefulSet") => stateful_set(object),
                _ => deployment(object),
            }
        })
    }

    /// A Job that has succeeded; one that has failed ends the wait at once.
    pub fn job_complete() -> Self {
        Self::of("complete", |job| match (condition(job, "Complete"), condition(job, "Failed")) {
            (Some(("True", _)), _) => Check::Done,
            (_, Some(("True", why))) => Check::Failed(why),
            _ => {
                let count = |field: &str| number(job, &format!("/status/{field}"));
                Check::NotYet(format!("{} pods run, {} have failed", count("active"), count("failed")))
            }
        })
    }

    /// Gone, its finalizers done.
    pub fn absent() -> Self {
        Self::new("gone", |object| match object {
            None => Check::Done,
            Some(object) => Check::NotYet(match object.metadata.finalizers.as_deref() {
                Some(finalizers) if !finalizers.is_empty() => {
                    format!("waits for its finalizers {}", printable(&finalizers.join(", ")))
                }
                _ => "it still exists".into(),
            }),
        })
    }
}

/// A status condition's status, and its reason and message in one.
pub fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<(&'a str, String)> {
    let all = object.data.pointer("/status/conditions")?.as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let part = |name: &str| found[name].as_str().filter(|text| !text.is_empty());
    let why = [part("reason"), part("message")].into_iter().flatten().collect::<Vec<_>>().join(": ");
    Some((found["status"].as_str().unwrap_or_default(), printable(&why)))
}

/// A number by its JSON pointer; 0 where there is none, as the API leaves out zeros.
fn number(object: &DynamicObject, pointer: &str) -> i64 {
    if pointer == "/metadata/generation" {
        return object.metadata.generation.unwrap_or_default();
    }
    object.data.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The replicas asked for; the API's default is one.
fn replicas(object: &DynamicObject) -> i64 {
    object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

/// The first count that falls short of `wanted`.
fn short(wanted: i64, counts: &[(i64, &str)]) -> Check {
    match counts.iter().find(|(count, _)| *count < wanted) {
        Some((count, what)) => Check::NotYet(format!("{count} of {wanted} pods {what}")),
        None => Check::Done,
    }
}

/// As `kubectl rollout status` decides.
fn deployment(object: &DynamicObject) -> Check {
    if let Some(("False", why)) = condition(object, "Progressing")
        && why.starts_with("ProgressDeadlineExceeded")
    {
        return Check::Failed(why);
    }
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let updated = status("updatedReplicas");
    match short(replicas(object), &[(updated, "are of the newest form")]) {
        Check::Done if status("replicas") > updated => {
            Check::NotYet(format!("{} old pods have not ended", status("replicas") - updated))
        }
        Check::Done => short(updated, &[(status("availableReplicas"), "are available")]),
        other => other,
    }
}

fn daemon_set(object: &DynamicObject) -> Check {
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let counts = [
        (status("updatedNumberScheduled"), "are of the newest form"),
        (status("numberAvailable"), "are available"),
    ];
    short(status("desiredNumberScheduled"), &counts)
}

fn stateful_set(object: &DynamicObject) -> Check {
    let status = |field: &str| number(object, &format!("/status/{field}"));
    // Only pods from the partition on are updated.
    let wanted = replicas(object);
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    match short(wanted, &[(status("readyReplicas"), "are ready")]) {
        Check::Done => {
            short((wanted - partition).max(0), &[(status("updatedReplicas"), "are of the newest form")])
        }
        other => other,
    }
}

/// What is waited for, and how.
pub(super) struct Goal<'a> {
    /// Its subject: `HelmChart kube-system/dex`.
    pub what: String,
    /// Completes "was not …".
    pub wanted: &'a str,
    pub limit: Duration,
    /// Hears what is still missing, each time that changes.
    pub progress: &'a (dyn Fn(&str) + Send + Sync),
}

impl Cluster {
    /// Watches an object until the condition holds; the object then, or `None` where it does not exist.
    /// `progress` hears what is still missing, each time that changes.
    pub async fn wait(
        &self,
        which: &ObjectRef,
        condition: &Condition,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Option<DynamicObject>, Error> {
        let api = self.api(which).await?;
        let config = watcher::Config::default().fields(&format!("metadata.name={}", which.name));
        let goal = Goal { what: which.to_string(), wanted: &condition.wanted, limit, progress };
        let mut found = None;
        self.until(&goal, api, config, |seen: &Seen<DynamicObject>| {
            let object = seen.values().next();
            found = object.cloned();
            condition.judge(object)
        })
        .await?;
        Ok(found)
    }

    /// Watches objects until `judge` is content with them, or sees that it never will be.
    pub(super) async fn until<K>(
        &self,
        goal: &Goal<'_>,
        api: Api<K>,
        config: watcher::Config,
        mut judge: impl FnMut(&Seen<K>) -> Check,
    ) -> Result<(), Error>
    where
        K: ::kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let Goal { what, wanted, limit, progress } = goal;
        let mut missing = String::new();
        let found = self
            .follow(&format!("wait for {what}"), api, config, *limit, |seen| match judge(seen) {
                Check::Done => Some(Ok(())),
                Check::Failed(why) => {
                    Some(Err(Error::Failed { what: what.clone(), why, output: Vec::new() }))
                }
                Check::NotYet(still) => {
                    if still != missing {
                        progress(&still);
                        missing = still;
                    }
                    None
                }
            })
            .await?;
        found.unwrap_or_else(|late| {
            Err(Error::Timeout {
                what: what.clone(),
                wanted: (*wanted).to_owned(),
                limit: *limit,
                last: late.map_or(missing, |last| format!("the API server does not answer: {last}")),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(condition: &Condition, kind: &str, spec: Value, status: Value) -> Check {
        let metadata = json!({ "name": "a", "generation": 2 });
        let object = json!({
            "apiVersion": "x/v1", "kind": kind, "metadata": metadata, "spec": spec, "status": status,
        });
        (condition.judge)(Some(&super::super::object::object(object).expect("an object")))
    }

    /// The status of a Deployment: its pods, those of the newest form, those available.
    fn pods(all: u8, updated: u8, available: u8) -> Value {
        json!({ "replicas": all, "updatedReplicas": updated, "availableReplicas": available })
    }

    /// The status of a DaemonSet.
    fn daemons(wanted: u8, available: u8) -> Value {
        json!({ "desiredNumberScheduled": wanted, "updatedNumberScheduled": wanted, "numberAvailable": available })
    }

    #[test]
    fn roll_outs_are_judged_as_kubectl_judges_them() {
        let not = |text: &str| Check::NotYet(text.into());
        let two = || json!({ "replicas": 2 });
        let partition = json!({ "replicas": 2, "updateStrategy": { "rollingUpdate": { "partition": 1 } } });
        let half = || json!({ "readyReplicas": 2, "updatedReplicas": 1 });
        let late = json!({ "conditions": [
            { "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late" },
        ]});
        let table: Vec<(&str, Value, Value, Check)> = vec![
            ("Deployment", json!({}), json!({}), not("0 of 1 pods are of the newest form")),
            ("Deployment", json!({ "replicas": 0 }), json!({}), Check::Done),
            ("Deployment", two(), pods(3, 2, 3), not("1 old pods have not ended")),
            ("Deployment", two(), pods(2, 2, 1), not("1 of 2 pods are available")),
            ("Deployment", two(), pods(2, 2, 2), Check::Done),
            ("Deployment", two(), late, Check::Failed("ProgressDeadlineExceeded: late".into())),
            ("DaemonSet", json!({}), daemons(3, 2), not("2 of 3 pods are available")),
            ("DaemonSet", json!({}), daemons(3, 3), Check::Done),
            ("StatefulSet", two(), half(), not("1 of 2 pods are of the newest form")),
            ("StatefulSet", partition, half(), Check::Done),
        ];
        let out = Condition::rolled_out();
        for (kind, spec, mut status, expected) in table {
            status["observedGeneration"] = 2.into();
            assert_eq!(check(&out, kind, spec.clone(), status.clone()), expected, "{kind} {spec} {status}");
        }
        let unseen = check(&out, "Deployment", json!({}), json!({ "observedGeneration": 1 }));
        assert_eq!(unseen, not("its newest form has not been seen by its controller"));
    }

    #[test]
    fn jobs_and_definitions_can_fail() {
        let with = |kind: &str, status: &str| json!({ "conditions": [{ "type": kind, "status": status, "reason": "Because" }] });
        let failed = || Check::Failed("Because".into());
        let job = |status: Value| check(&Condition::job_complete(), "Job", json!({}), status);
        assert_eq!(job(with("Complete", "True")), Check::Done);
        assert_eq!(job(with("Failed", "True")), failed());
        assert_eq!(job(json!({ "active": 1 })), Check::NotYet("1 pods run, 0 have failed".into()));
        let definition =
            |status| check(&Condition::established(), "CustomResourceDefinition", json!({}), status);
        assert_eq!(definition(with("Established", "True")), Check::Done);
        assert_eq!(definition(with("NamesAccepted", "False")), failed());
        assert!(matches!(definition(json!({})), Check::NotYet(_)));
        assert!(matches!((Condition::established().judge)(None), Check::NotYet(_)));
        assert_eq!((Condition::absent().judge)(None), Check::Done);
    }
}
