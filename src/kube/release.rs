//! Releases of Helm as K3s's own controller makes them from HelmCharts: deployed or not, what became of their
//! workloads, and a failed one cleared away so that it is tried again.
//!
//! Helm keeps a Secret for every revision of a release; its labels say what became of it. See
//! <https://docs.k3s.io/add-ons/helm> and <https://helm.sh/docs/topics/advanced/#storage-backends>.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::kube::ResourceExt as _;
use ::kube::api::{DeleteParams, DynamicObject, ListParams};
use ::kube::core::PartialObjectMeta;
use ::kube::runtime::watcher;
use ::kube::{Api, Resource as _};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::jiff::Timestamp;

use super::client::Cluster;
use super::error::Error;
use super::object::{ObjectRef, applied_at};
use super::wait::{Check, Condition, Goal, condition};
use super::watch::Seen;
use crate::transport::prompt::printable;

/// The kinds whose pods a release runs.
const WORKLOADS: [&str; 3] = ["Deployment", "DaemonSet", "StatefulSet"];
/// How long K3s's controller may take to see that a failed job is gone.
const CLEARED_LIMIT: Duration = Duration::from_secs(60);
/// Lines of what Helm said that are shown.
const LAST_LINES: usize = 15;

/// A revision of a release, by its Secret's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Revision {
    number: u64,
    /// `deployed`, `superseded`, `failed`, `pending-upgrade`.
    status: String,
    made: Option<Timestamp>,
    secret: String,
}

impl From<&PartialObjectMeta<Secret>> for Revision {
    fn from(secret: &PartialObjectMeta<Secret>) -> Self {
        let label = |name: &str| secret.labels().get(name).cloned().unwrap_or_default();
        Self {
            number: label("version").parse().unwrap_or_default(),
            status: printable(&label("status")),
            made: secret.meta().creation_timestamp.as_ref().map(|time| time.0),
            secret: secret.name_any(),
        }
    }
}

/// Whether the newest revision is deployed, and made since the chart was last changed here. Both times are the API
/// server's, in whole seconds; `past` are the revisions up to a number, of which it is known that they are older.
fn deployed(revisions: &[Revision], since: Option<Timestamp>, past: u64) -> Check {
    let Some(newest) = revisions.iter().max_by_key(|revision| revision.number) else {
        return Check::NotYet("Helm has not installed it yet".into());
    };
    let is_old =
        newest.number <= past || since.is_some_and(|since| newest.made.is_some_and(|made| made < since));
    match newest.status.as_str() {
        _ if is_old => Check::NotYet("Helm has not come to its newest form yet".into()),
        "deployed" => Check::Done,
        status => Check::NotYet(format!("revision {} is {status}", newest.number)),
    }
}

/// What K3s's controller says of a job that has failed for good.
fn failure(chart: &DynamicObject) -> Option<String> {
    match condition(chart, "Failed") {
        Some(("True", why)) => Some(why),
        _ => None,
    }
}

/// Where a chart's objects go.
fn target(chart: &DynamicObject) -> String {
    let wanted = chart.data.pointer("/spec/targetNamespace").and_then(|name| name.as_str());
    wanted.map(str::to_owned).or_else(|| chart.namespace()).unwrap_or_else(|| "default".into())
}

impl Cluster {
    /// Why a chart's release is not what it should be; `None`: it is.
    pub(super) async fn not_released(
        &self,
        which: &ObjectRef,
        chart: &DynamicObject,
    ) -> Result<Option<String>, Error> {
        if let Some(why) = failure(chart) {
            return Ok(Some(format!("its installation has failed: {why}")));
        }
        let revisions = self.revisions(which, chart).await?;
        if let Some(why) = deployed(&revisions, applied_at(chart), 0).unmet() {
            return Ok(Some(why));
        }
        for (workload, object) in self.workloads(which, chart).await? {
            if let Some(why) = Condition::rolled_out().judge(Some(&object)).unmet() {
                return Ok(Some(format!("{workload}: {why}")));
            }
        }
        Ok(None)
    }

    /// The number of a chart's newest revision; 0: there is none.
    pub(super) async fn newest_revision(
        &self,
        which: &ObjectRef,
        chart: &DynamicObject,
    ) -> Result<u64, Error> {
        let revisions = self.revisions(which, chart).await?;
        Ok(revisions.iter().map(|revision| revision.number).max().unwrap_or(0))
    }

    /// Waits until a chart is released in its present form, by a revision with a number above `past`, and its workloads
    /// are rolled out. A job that fails for good ends it at once, with what the job said.
    pub(super) async fn wait_released(
        &self,
        which: &ObjectRef,
        chart: &DynamicObject,
        past: u64,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let fails = Condition::of("released", |chart| match failure(chart) {
            Some(why) => Check::Failed(why),
            None => Check::NotYet(String::new()),
        });
        let silent = |_: &str| ();
        let said = Mutex::new(String::new());
        let ended = tokio::select! {
            ended = self.wait(which, &fails, limit, &silent) => ended.map(|_| ()),
            ended = self.wait_deployed(which, chart, past, limit, progress) => ended,
            never = self.listen(which, limit, &said, progress) => match never {},
        };
        let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
        match ended {
            Err(Error::Failed { what, why, .. }) => {
                return Err(Error::Failed { what, why, output: last_lines(&said) });
            }
            Err(Error::Timeout { what, wanted, limit, last }) if !said.is_empty() => {
                let last = format!("{last}; Helm says: {}", last_lines(&said).join(" "));
                return Err(Error::Timeout { what, wanted, limit, last });
            }
            other => other?,
        }
        for (workload, object) in self.workloads(which, chart).await? {
            let progress = |still: &str| progress(&format!("{workload}: {still}"));
            match self.wait(&workload, &Condition::rolled_out(), limit, &progress).await {
                Err(Error::Timeout { what, wanted, limit, last }) => {
                    let ailing = self.ailing_pods(&object).await.unwrap_or_default();
                    let last = std::iter::once(last).chain(ailing).collect::<Vec<_>>().join("; ");
                    return Err(Error::Timeout { what, wanted, limit, last });
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Why a workload's pods do not run, each reason once.
    async fn ailing_pods(&self, workload: &DynamicObject) -> Result<Vec<String>, Error> {
        let labels =
            workload.data.pointer("/spec/selector/matchLabels").and_then(|labels| labels.as_object());
        let selector: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        let pods: Api<Pod> =
            Api::namespaced(self.client.clone(), &workload.namespace().unwrap_or_else(|| "default".into()));
        let ours = ListParams::default().labels(&selector.join(","));
        let list = self.call("list the workload's pods", || pods.list(&ours)).await?;
        Ok(list.items.iter().filter_map(ailment).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn wait_deployed(
        &self,
        which: &ObjectRef,
        chart: &DynamicObject,
        past: u64,
        limit: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Error> {
        let api = self.release_secrets(chart);
        let config = watcher::Config::default().labels(&selector(&which.name));
        let since = applied_at(chart);
        let goal = Goal { what: which.to_string(), wanted: "released", limit, progress };
        self.until(&goal, api, config, |seen: &Seen<PartialObjectMeta<Secret>>| {
            deployed(&seen.values().map(Revision::from).collect::<Vec<_>>(), since, past)
        })
        .await
    }

    /// Takes away what keeps a failed release from being tried again: the failed job, and Helm's note of the
    /// revisions that never came up. No workload is touched, and a revision that was ever deployed stays.
    pub(super) async fn clear_failed_release(&self, which: &ObjectRef) -> Result<(), Error> {
        let chart = match self.get(which).await {
            Err(Error::UnknownKind { .. }) => return Ok(()),
            found => found?,
        };
        let Some(chart) = chart.filter(|chart| failure(chart).is_some()) else { return Ok(()) };
        let mut revisions = self.revisions(which, &chart).await?;
        revisions.sort_by_key(|revision| std::cmp::Reverse(revision.number));
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &target(&chart));
        for stuck in revisions.iter().take_while(|revision| is_stuck(&revision.status)) {
            let what = format!("the revision {} of {which}", stuck.number);
            self.remove(&what, &secrets, &stuck.secret, &DeleteParams::default()).await?;
        }
        self.delete(&job(which)).await?;
        let cleared = Condition::of("cleared of its failure", |chart| match failure(chart) {
            Some(why) => Check::NotYet(why),
            None => Check::Done,
        });
        self.wait(which, &cleared, CLEARED_LIMIT, &|_| ()).await.map(|_| ())
    }

    async fn revisions(&self, which: &ObjectRef, chart: &DynamicObject) -> Result<Vec<Revision>, Error> {
        let api = self.release_secrets(chart);
        let ours = ListParams::default().labels(&selector(&which.name));
        let list = self.call("list Helm's releases", || api.list(&ours)).await?;
        Ok(list.items.iter().map(Revision::from).collect())
    }

    /// Only names and labels are fetched, not what the Secrets hold.
    fn release_secrets(&self, chart: &DynamicObject) -> Api<PartialObjectMeta<Secret>> {
        Api::namespaced(self.client.clone(), &target(chart))
    }

    /// The workloads that Helm has marked as the release's.
    async fn workloads(
        &self,
        which: &ObjectRef,
        chart: &DynamicObject,
    ) -> Result<Vec<(ObjectRef, DynamicObject)>, Error> {
        let namespace = target(chart);
        let helms = ListParams::default().labels("app.kubernetes.io/managed-by=Helm");
        let mut found = Vec::new();
        for kind in WORKLOADS {
            let api = self.api(&ObjectRef::new("apps/v1", kind, Some(&namespace), "")).await?;
            let list = self.call(&format!("list {kind}s"), || api.list(&helms)).await?;
            let ours = list
                .items
                .into_iter()
                .filter(|object| object.annotations().get("meta.helm.sh/release-name") == Some(&which.name));
            found.extend(ours.map(|mut object| {
                let workload = ObjectRef::new("apps/v1", kind, Some(&namespace), &object.name_any());
                // Objects of a list do not say their kind.
                object.types =
                    Some(::kube::core::TypeMeta { api_version: "apps/v1".into(), kind: kind.into() });
                (workload, object)
            }));
        }
        Ok(found)
    }

    /// Keeps what Helm said when it last failed, for as long as it is waited for: of a job that has failed for good the
    /// pods are gone, and what they said with them.
    async fn listen(
        &self,
        which: &ObjectRef,
        limit: Duration,
        said: &Mutex<String>,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Infallible {
        let namespace = which.namespace.as_deref().unwrap_or("default");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let ours =
            watcher::Config::default().labels(&format!("helmcharts.helm.cattle.io/chart={}", which.name));
        let what = format!("listen to the job of {which}");
        let heard = self.follow::<Pod, Infallible>(&what, pods, ours, limit, |seen| {
            if let Some(message) = seen.values().find_map(failed_with) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if *said != message {
                    progress(&format!(
                        "Helm has failed, and tries again: {}",
                        last_lines(&message).join(" ")
                    ));
                    *said = message;
                }
            }
            None
        });
        // What it was to hear is only for people: the wait itself goes on without.
        let _ = heard.await;
        std::future::pending().await
    }
}

/// What a container that has failed left as its last words.
fn failed_with(pod: &Pod) -> Option<String> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let states = containers.flat_map(|container| [&container.state, &container.last_state]).flatten();
    let ended = states.filter_map(|state| state.terminated.as_ref()).filter(|ended| ended.exit_code != 0);
    ended.filter_map(|ended| ended.message.clone()).find(|message| !message.trim().is_empty())
}

fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines[from..].iter().map(|line| printable(line)).collect()
}

/// Why a pod does not run: it has no node, or one of its containers waits.
fn ailment(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting =
        containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()).find_map(|waiting| {
            let reason = waiting.reason.as_ref().filter(|reason| *reason != "PodInitializing")?;
            Some(
                [Some(reason), waiting.message.as_ref()]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(": "),
            )
        });
    let unscheduled = || {
        let scheduled =
            status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
        scheduled.message.clone().filter(|_| scheduled.status == "False")
    };
    waiting.or_else(unscheduled).map(|why| printable(&why))
}

fn job(chart: &ObjectRef) -> ObjectRef {
    let name = format!("helm-install-{}", chart.name);
    ObjectRef::new("batch/v1", "Job", chart.namespace.as_deref(), &name)
}

fn selector(release: &str) -> String {
    format!("owner=helm,name={release}")
}

/// Neither deployed nor replaced by one that is: Helm refuses to go on from it.
fn is_stuck(status: &str) -> bool {
    status == "failed" || status.starts_with("pending-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ails_a_pod_is_said() {
        let ail = |status: serde_json::Value| {
            ailment(&serde_json::from_value(serde_json::json!({ "status": status })).expect("a pod"))
        };
        let waiting = |reason: &str| {
            serde_json::json!({ "containerStatuses": [{ "name": "a", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "state": { "waiting": { "reason": reason, "message": "no such image" } } }] })
        };
        let nowhere = serde_json::json!({ "conditions": [
            { "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }] });
        assert_eq!(ail(waiting("ImagePullBackOff")).as_deref(), Some("ImagePullBackOff: no such image"));
        assert_eq!(ail(waiting("PodInitializing")), None);
        assert_eq!(ail(nowhere).as_deref(), Some("0/3 nodes are available"));
        assert_eq!(ail(serde_json::json!({})), None);
    }

    #[test]
    fn a_release_is_deployed_when_its_newest_revision_is() {
        let time = |second: i64| Timestamp::from_second(second).expect("a time");
        let revision = |number: u64, status: &str, made: i64| Revision {
            number,
            status: status.into(),
            made: Some(time(made)),
            secret: format!("v{number}"),
        };
        let not = |text: &str| Check::NotYet(text.into());
        let old = "Helm has not come to its newest form yet";
        for (revisions, since, past, expected) in [
            (vec![], None, 0, not("Helm has not installed it yet")),
            (vec![revision(1, "deployed", 5)], None, 0, Check::Done),
            (vec![revision(1, "deployed", 5)], Some(5), 0, Check::Done),
            (vec![revision(1, "deployed", 5)], Some(6), 0, not(old)),
            (vec![revision(9, "superseded", 5), revision(10, "deployed", 7)], Some(6), 0, Check::Done),
            (
                vec![revision(9, "deployed", 5), revision(10, "failed", 5)],
                None,
                0,
                not("revision 10 is failed"),
            ),
            (vec![revision(2, "deployed", 5)], Some(5), 2, not(old)),
            (vec![revision(2, "superseded", 5), revision(3, "deployed", 5)], Some(5), 2, Check::Done),
            (vec![revision(1, "pending-install", 7)], Some(6), 0, not("revision 1 is pending-install")),
        ] {
            assert_eq!(
                deployed(&revisions, since.map(time), past),
                expected,
                "{revisions:?} {since:?} {past}"
            );
        }
    }
}
