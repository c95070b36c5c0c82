//! Taking a node out of service and bringing it back. Who cordoned it is noted on the node, so that a run which dies
//! in between is finished by the next one, and a node that somebody else cordoned stays so.

use ::kube::api::{Patch, PatchParams};
use serde_json::json;

use super::MANAGER;
use super::client::Cluster;
use super::drain::{DrainOptions, Progress};
use super::error::Error;

/// On a node that was cordoned here.
pub const CORDONED_ANNOTATION: &str = "datahub.home.arpa/cordoned";

impl Cluster {
    /// Cordons and drains a node. Done already: only what is left is evicted.
    pub async fn take_out(
        &self,
        node: &str,
        options: &DrainOptions,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let seen = self.node(node).await?.ok_or_else(|| Error::NotFound { what: format!("node {node}") })?;
        if !seen.unschedulable {
            self.mark(node, true).await?;
        }
        self.drain(node, options, progress).await.map(|_| ())
    }

    /// Uncordons a node if it was cordoned here. Whether it was.
    pub async fn bring_back(&self, node: &str) -> Result<bool, Error> {
        let seen = self.node(node).await?.ok_or_else(|| Error::NotFound { what: format!("node {node}") })?;
        if !seen.annotations.contains_key(CORDONED_ANNOTATION) {
            return Ok(false);
        }
        self.mark(node, false).await?;
        Ok(true)
    }

    /// Cordon and note in one write: there is no moment at which only one of them holds.
    async fn mark(&self, node: &str, cordoned: bool) -> Result<(), Error> {
        let patch = Patch::Merge(json!({
            "metadata": { "annotations": { CORDONED_ANNOTATION: cordoned.then_some("true") } },
            "spec": { "unschedulable": cordoned.then_some(true) },
        }));
        let what = format!("{} node {node}", if cordoned { "cordon" } else { "uncordon" });
        let by = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let api = self.node_api();
        self.call(&what, || api.patch(node, &by, &patch)).await.map(|_| ())
    }
}
