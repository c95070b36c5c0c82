//! What a node's run asks and does beyond the node itself: its cluster's API, a secret of a server.

use std::collections::HashMap;

use super::{Event, Run, Stop};
use crate::kube::drain::{self, DrainOptions};
use crate::kube::node::Ready;
use crate::kube::{self, Cluster};
use crate::probe::{Answer, Question};
use crate::resource::{ClusterCall, Fetch};
use crate::role::{ClusterNode, Handler, Planned, RolePlan};
use crate::secret::Secret;
use crate::transport::Script;

/// How long a node may take to be Ready again after a restart.
const READY_LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

impl Run<'_> {
    /// Answers the questions that the cluster's API answers. That it cannot be asked is an answer too.
    pub(super) async fn ask_cluster(&self, questions: &[Question]) -> HashMap<Question, Answer> {
        let mut answers = HashMap::new();
        for question in questions {
            let Question::ClusterNode { server, node } = question else { continue };
            if answers.contains_key(question) {
                continue;
            }
            let found = self.cluster_node(server, node).await.map_err(|e| e.to_string());
            answers.insert(question.clone(), Answer::ClusterNode(found));
        }
        answers
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
        let output = transport.run(&Script::new(&*fetch.script)).await.map_err(|e| failed(&e.to_string()))?;
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
        let ClusterCall::Node { server, node, wanted, limit } = call;
        let work = async {
            let cluster = self.context.peers.cluster(server).await?;
            let progress = |still: &str| self.say(role, &format!("node {node}: {still}"));
            cluster.wait_ready(node, &Ready::default(), *limit, &progress).await?;
            cluster.apply_node(node, wanted).await?;
            cluster.bring_back(node).await?;
            Ok(())
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
        if let kube::Error::NotReady { events, .. } = error {
            failure.output = events.clone();
        }
        failure.into()
    }
}
