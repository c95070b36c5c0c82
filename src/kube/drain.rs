//! Draining a node: its pods are evicted, so that their workloads start them elsewhere, and waited for until
//! gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::kube::api::{Api, DeleteParams, EvictParams, ListParams, Preconditions};
use ::kube::core::{Selector, SelectorExt as _};
use ::kube::runtime::watcher;
use ::kube::{Error as ClientError, ResourceExt as _};
use futures_util::future::{Either, select, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::{Instant, sleep};

use super::client::Cluster;
use super::error::Error;
use crate::transport::prompt::printable;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOptions {
    /// All pods must be gone within this time.
    pub timeout: Duration,
    /// Seconds a pod gets to end; `None` is each pod's own setting.
    pub grace: Option<u32>,
    /// Evict pods with emptyDir volumes, whose data is lost.
    pub delete_emptydir: bool,
    /// Evict pods without a controller, which nothing starts again.
    pub force_unmanaged: bool,
    /// Leave pods of DaemonSets where they are; otherwise they are a reason to refuse.
    pub ignore_daemonsets: bool,
    /// Between two attempts at a pod that a PodDisruptionBudget holds, unless the API asks for another.
    pub pause: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            grace: None,
            delete_emptydir: false,
            force_unmanaged: false,
            ignore_daemonsets: true,
            pause: Duration::from_secs(5),
        }
    }
}

/// What a drain does, as it does it. Pods are named `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// How many pods there are to evict.
    Begun {
        pods: usize,
    },
    Evicted {
        pod: String,
    },
    /// A PodDisruptionBudget does not allow it yet.
    Held {
        pod: String,
        why: String,
    },
    Gone {
        pod: String,
        left: usize,
    },
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Begun { pods: 1 } => write!(f, "draining: 1 pod to evict"),
            Self::Begun { pods } => write!(f, "draining: {pods} pods to evict"),
            Self::Evicted { pod } => write!(f, "draining: {pod} evicted"),
            Self::Held { pod, why } => write!(f, "draining: {pod} is held: {why}"),
            Self::Gone { pod, left } => write!(f, "draining: {pod} is gone, {left} left"),
        }
    }
}

/// A pod that must not be evicted without being told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `namespace/name`
    pub pod: String,
    pub cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It has an emptyDir volume.
    LocalData,
    NoController,
    DaemonSet,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.cause {
            Cause::LocalData => "has data in an emptyDir volume",
            Cause::NoController => "has no controller to start it again",
            Cause::DaemonSet => "belongs to a DaemonSet",
        };
        write!(f, "pod {} {why}", self.pod)
    }
}

/// A pod that was still there when time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// `namespace/name`
    pub pod: String,
    /// The PodDisruptionBudget that held it, `namespace/name`.
    pub budget: Option<String>,
    pub why: String,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.budget {
            Some(budget) => {
                write!(f, "pod {} is held by PodDisruptionBudget {budget}: {}", self.pod, self.why)
            }
            None => write!(f, "pod {} {}", self.pod, self.why),
        }
    }
}

/// `namespace/name`
fn full_name(pod: &Pod) -> String {
    printable(&format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
}

/// The pods to evict, or why not, for those on a node. The rules are those of `kubectl drain`.
pub fn to_evict(pods: Vec<Pod>, options: &DrainOptions) -> Result<Vec<Pod>, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut evict = Vec::new();
    for pod in pods {
        match judge(&pod, options) {
            Judgement::Evict => evict.push(pod),
            Judgement::Leave => {}
            Judgement::Refuse(cause) => refusals.push(Refusal { pod: full_name(&pod), cause }),
        }
    }
    if refusals.is_empty() { Ok(evict) } else { Err(refusals) }
}

enum Judgement {
    Evict,
    Leave,
    Refuse(Cause),
}

fn judge(pod: &Pod, options: &DrainOptions) -> Judgement {
    // The kubelet runs it from a file of its own; the API only shows it.
    if pod.annotations().contains_key("kubernetes.io/config.mirror") {
        return Judgement::Leave;
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Judgement::Evict;
    }
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    match controller {
        Some(owner) if owner.kind == "DaemonSet" && options.ignore_daemonsets => return Judgement::Leave,
        Some(owner) if owner.kind == "DaemonSet" => return Judgement::Refuse(Cause::DaemonSet),
        None if !options.force_unmanaged => return Judgement::Refuse(Cause::NoController),
        _ => {}
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    if volumes.iter().any(|volume| volume.empty_dir.is_some()) && !options.delete_emptydir {
        return Judgement::Refuse(Cause::LocalData);
    }
    Judgement::Evict
}

/// What holds each pod, by `namespace/name`, shared by the evictions and the wait.
type Held = Mutex<BTreeMap<String, String>>;

fn lock(held: &Held) -> MutexGuard<'_, BTreeMap<String, String>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Answer {
    Accepted,
    /// Not now: the API's words, and when to ask again.
    Held(String, Option<Duration>),
}

impl Cluster {
    /// Cordons the node and evicts its pods. It stays cordoned, also after an error.
    pub async fn drain(
        &self,
        node: &str,
        options: &DrainOptions,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let begun = Instant::now();
        self.cordon(node).await?;
        let pods = to_evict(self.pods_on(node).await?, options)
            .map_err(|pods| Error::DrainRefused { node: node.into(), pods })?;
        progress(Progress::Begun { pods: pods.len() });
        if pods.is_empty() {
            return Ok(());
        }
        let held = Held::default();
        let limit = options.timeout.saturating_sub(begun.elapsed());
        let evictions = std::pin::pin!(async {
            try_join_all(pods.iter().map(|pod| self.evict(pod, options, &held, progress))).await
        });
        let gone = std::pin::pin!(self.until_gone(node, &pods, limit, progress));
        // The evictions alone end nothing: a pod is gone when the kubelet has ended it.
        let left = match select(gone, evictions).await {
            Either::Left((left, _)) => left?,
            Either::Right((evicted, gone)) => {
                evicted?;
                gone.await?
            }
        };
        if left.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut *lock(&held));
        let pods = self.explain(left, &held).await;
        Err(Error::DrainTimeout { node: node.into(), limit: options.timeout, pods })
    }

    /// Asks for a pod's eviction until it is accepted. The caller ends it when time is up.
    async fn evict(
        &self,
        pod: &Pod,
        options: &DrainOptions,
        held: &Held,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let name = full_name(pod);
        let note = |why: Option<&String>| {
            let mut held = lock(held);
            match why {
                Some(why) => held.insert(name.clone(), why.clone()),
                None => held.remove(&name),
            }
        };
        loop {
            match self.try_evict(pod, options).await? {
                Answer::Accepted => {
                    note(None);
                    progress(Progress::Evicted { pod: name });
                    return Ok(());
                }
                Answer::Held(why, after) => {
                    if note(Some(&why)).as_ref() != Some(&why) {
                        progress(Progress::Held { pod: name.clone(), why });
                    }
                    sleep(after.unwrap_or(options.pause)).await;
                }
            }
        }
    }

    async fn try_evict(&self, pod: &Pod, options: &DrainOptions) -> Result<Answer, Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        // A StatefulSet may have started a new pod of that name, elsewhere.
        let preconditions = Preconditions { uid: pod.uid(), ..Preconditions::default() };
        let how = DeleteParams {
            grace_period_seconds: options.grace,
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let eviction = EvictParams { delete_options: Some(how), ..EvictParams::default() };
        let evict = || async {
            match api.evict(&name, &eviction).await {
                Ok(_) => Ok(Answer::Accepted),
                Err(ClientError::Api(status)) if status.code == 404 || namespace_ends(&status) => {
                    Ok(Answer::Accepted)
                }
                // A budget; or a conflict, with another writer or because another pod has the name by now.
                Err(ClientError::Api(status)) if matches!(status.code, 409 | 429) => {
                    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                    let after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                    Ok(Answer::Held(words(&status), after))
                }
                Err(error) => Err(error),
            }
        };
        self.call(&format!("evict pod {namespace}/{name}"), evict).await
    }

    /// Watches until none of the pods is on the node any more; those that were when time was up.
    async fn until_gone(
        &self,
        node: &str,
        pods: &[Pod],
        limit: Duration,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Vec<Pod>, Error> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let here = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let mut left: Vec<&Pod> = pods.iter().collect();
        let done = self
            .follow(&format!("wait for the pods on {node} to go"), api, here, limit, |seen| {
                let mut gone = Vec::new();
                left.retain(|pod| {
                    let stays = seen.values().any(|other| other.uid() == pod.uid());
                    if !stays {
                        gone.push(full_name(pod));
                    }
                    stays
                });
                for pod in gone {
                    progress(Progress::Gone { pod, left: left.len() });
                }
                left.is_empty().then_some(())
            })
            .await?;
        Ok(match done {
            Ok(()) => Vec::new(),
            Err(_) => left.into_iter().cloned().collect(),
        })
    }

    async fn explain(&self, left: Vec<Pod>, held: &BTreeMap<String, String>) -> Vec<Left> {
        let mut explained = Vec::new();
        for pod in left {
            let name = full_name(&pod);
            explained.push(match held.get(&name) {
                None => Left { pod: name, budget: None, why: "has not ended".into() },
                Some(why) => Left { budget: self.budget_of(&pod).await, pod: name, why: why.clone() },
            });
        }
        explained
    }

    /// The budget that covers a pod and allows no disruption. That it cannot be found out must not hide the
    /// rest.
    async fn budget_of(&self, pod: &Pod) -> Option<String> {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &namespace);
        let all = ListParams::default();
        let budgets = self.call("list the PodDisruptionBudgets", || api.list(&all)).await.ok()?.items;
        let found = budgets.into_iter().find(|budget| holds(budget, pod))?;
        Some(printable(&format!("{namespace}/{}", found.name_any())))
    }
}

fn holds(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    allowed == 0 && selector.is_some_and(|selector| selector.matches(pod.labels()))
}

/// The pod goes with its namespace.
fn namespace_ends(status: &::kube::core::Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// The budget's own words stand in the details: `The disruption budget web needs 2 healthy pods and has 2
/// currently`.
fn words(status: &::kube::core::Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let cause = causes.map(|cause| &cause.message).find(|message| !message.is_empty());
    printable(cause.unwrap_or(&status.message))
}
