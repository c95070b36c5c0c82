//! What a node's run asks and does beyond the node itself: its cluster's API, a secret of a server.

use std::collections::{BTreeSet, HashMap};

use super::{Event, Run, Stop};
use crate::kube::drain::{self, DrainOptions};
use crate::kube::node::Ready;
use crate::kube::{self, Cluster, ObjectSeen};
use crate::probe::{Answer, Question};
use crate::resource::{ClusterCall, Fetch};
use crate::role::{ClusterNode, Handler, Planned, RolePlan};
use crate::secret::Secret;
use crate::transport::{self, Script};

/// How long a node may take to be Ready again after a restart.
const READY_LIMIT: std::time::Duration = std::time::Duration::from_secs(300);
/// Questions that the API is asked at the same time.
const ASKED_AT_ONCE: usize = 8;

impl Run<'_> {
    /// Answers the questions that the cluster's API answers. That it cannot be asked is an answer too.
    pub(super) async fn ask_cluster(&self, questions: &[Question]) -> HashMap<Question, Answer> {
        let open: BTreeSet<&Question> =
            questions.iter().filter(|question| question.is_of_cluster()).collect();
        let open: Vec<&Question> = open.into_iter().collect();
        let mut answers = HashMap::new();
        for some in open.chunks(ASKED_AT_ONCE) {
            let asked = some.iter().map(|question| self.answer(question));
            let answered = futures_util::future::join_all(asked).await;
            let both = some.iter().zip(answered);
            answers.extend(both.filter_map(|(question, answer)| Some(((*question).clone(), answer?))));
        }
        answers
    }

    /// What the cluster's API says; `None` for a question that is not for it.
    async fn answer(&self, question: &Question) -> Option<Answer> {
        let said = |error: kube::Error| error.to_string();
        Some(match question {
            Question::ClusterNode { server, node } => {
                Answer::ClusterNode(self.cluster_node(server, node).await.map_err(said))
            }
            Question::ClusterObject(wanted) => Answer::ClusterObject(match self.own_cluster().await {
                Ok(Some(cluster)) => cluster.look(wanted).await.map_err(said),
                Ok(None) => ObjectSeen::of_nothing(wanted).map_err(said),
                Err(error) => Err(said(error)),
            }),
            Question::ClusterSecret { namespace, name } => {
                Answer::ClusterSecret(match self.own_cluster().await {
                    Ok(Some(cluster)) => cluster.look_at_secret(namespace, name).await.map_err(said),
                    Ok(None) => Ok(None),
                    Err(error) => Err(said(error)),
                })
            }
            Question::ClusterKey(key) => Answer::ClusterKey(match self.own_cluster().await {
                Ok(Some(cluster)) => cluster.look_at_key(key).await.map_err(said),
                Ok(None) => Ok(None),
                Err(error) => Err(said(error)),
            }),
            _ => return None,
        })
    }

    /// The API of the cluster that this node is a server of; `None`: there is none yet.
    async fn own_cluster(&self) -> Result<Option<Cluster>, kube::Error> {
        match self.context.peers.cluster(&self.target.node).await {
            Ok(cluster) => Ok(Some(cluster)),
            Err(kube::Error::NoKubeconfig { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn cluster_node(&self, server: &str, node: &str) -> Result<Option<serde_json::Value>, kube::Error> {
        let object = self.context.peers.cluster(server).await?.raw_node(node).await?;
        // A Node always has a JSON form.
        Ok(object.and_then(|object| serde_json::to_value(object).ok()))
    }

    /// Reads a secret on another node.
    pub(super) async fn fetch(
        &self,
        role: &RolePlan,
        planned: &Planned,
        fetch: &Fetch,
    ) -> Result<Secret, Stop> {
        let failed = |why: &str| {
            let message = format!("cannot get {} from {}: {why}", fetch.what, fetch.node);
            let mut failure = self.failure(role, Some(planned), message);
            failure.hint = Some(format!("provision {} first; it must be running", fetch.node));
            Stop::from(failure)
        };
        let transport =
            self.context.peers.transport(&fetch.node).await.map_err(|e| failed(&e.to_string()))?;
        let script = Script::new(&*fetch.script);
        let output = transport::renewing(&*transport, || transport.run(&script)).await;
        let output = output.map_err(|e| failed(&e.to_string()))?;
        match (output.status, String::from_utf8(output.stdout)) {
            (0, Ok(text)) => Ok(Secret::new(text)),
            _ => Err(failed(String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    pub(super) async fn call(
        &self,
        role: &RolePlan,
        planned: &Planned,
        call: &ClusterCall,
    ) -> Result<(), Stop> {
        let work = async {
            match call {
                ClusterCall::Node { server, node, wanted, limit } => {
                    let cluster = self.context.peers.cluster(server).await?;
                    let progress = |still: &str| self.say(role, &format!("node {node}: {still}"));
                    cluster.wait_ready(node, &Ready::default(), *limit, &progress).await?;
                    cluster.apply_node(node, wanted).await?;
                    cluster.bring_back(node).await.map(|_| ())
                }
                ClusterCall::Object { wanted, limit } => {
                    let cluster = self.context.peers.cluster(&self.target.node).await?;
                    let progress = |still: &str| self.say(role, &format!("{}: {still}", planned.label()));
                    cluster.settle(wanted, *limit, &progress).await
                }
                ClusterCall::Secret(wanted) => {
                    self.context.peers.cluster(&self.target.node).await?.apply_secret(wanted).await
                }
            }
        };
        work.await.map_err(|e| self.cluster_failure(role, Some(planned), &e))
    }

    /// Takes the node out of service before a restart: what runs on it moves elsewhere. `None`: it is not in the
    /// cluster yet.
    pub(super) async fn take_out(
        &self,
        role: &RolePlan,
        node: &ClusterNode,
    ) -> Result<Option<Cluster>, Stop> {
        let work = async {
            let cluster = match self.context.peers.cluster(&node.server).await {
                Ok(cluster) => cluster,
                // There is no cluster yet that it could be missed in.
                Err(kube::Error::NoKubeconfig { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            if cluster.node(&node.name).await?.is_none() {
                return Ok(None);
            }
            if node.drain {
                let progress = |step: drain::Progress| self.say(role, &step.to_string());
                // What is in emptyDir volumes goes with its pod, as in any eviction: refusing because of it would leave
                // no way to restart a node.
                let options = DrainOptions { delete_emptydir: true, ..DrainOptions::default() };
                cluster.take_out(&node.name, &options, &progress).await?;
            }
            Ok(Some(cluster))
        };
        work.await.map_err(|e| self.cluster_failure(role, None, &e))
    }

    /// Waits until the node is Ready again, and lets work come back to it.
    pub(super) async fn bring_back(
        &self,
        role: &RolePlan,
        handler: &Handler,
        node: &ClusterNode,
        cluster: &Cluster,
        ready: &Ready,
    ) -> Result<(), Stop> {
        let progress = |still: &str| self.say(role, &format!("{}: {still}", handler.name));
        let work = async {
            cluster.wait_ready(&node.name, ready, READY_LIMIT, &progress).await?;
            cluster.bring_back(&node.name).await
        };
        work.await.map(|_| ()).map_err(|e| self.cluster_failure(role, None, &e))
    }

    fn say(&self, role: &RolePlan, step: &str) {
        self.emit(Event::Step {
            node: self.node(),
            role: role.name.clone(),
            step: step.to_owned(),
            says: None,
        });
    }

    fn cluster_failure(&self, role: &RolePlan, planned: Option<&Planned>, error: &kube::Error) -> Stop {
        let mut failure = self.failure(role, planned, error.to_string());
        failure.hint = error.hint();
        if let kube::Error::NotReady { events: lines, .. } | kube::Error::Failed { output: lines, .. } = error
        {
            failure.output = self.last_lines(&lines.join("\n"));
        }
        failure.into()
    }
}
