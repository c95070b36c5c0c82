//! `datahub remove NODE`: one node out of the cluster.

use super::cluster::{self, confirm, problem, report};
use super::problem::Problem;
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::cluster::leave::remove;
use crate::diagnostic::suggest;

/// Take a node out of the cluster: drained, K3s removed, forgotten with its password
///
/// Afterwards take the role k3s-agent from it in the inventory, or `provision` brings it back.
#[derive(clap::Args)]
pub struct Remove {
    /// The node
    node: String,
    /// The machine is gone or was installed anew: only let the cluster forget it
    #[arg(long, help_heading = "Run")]
    gone: bool,
    /// Do not ask
    #[arg(short, long, help_heading = "Run")]
    yes: bool,
    #[command(flatten)]
    login: Login,
}

impl Remove {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let members = &cluster.access.members;
        let Some(member) = members.get(&self.node) else {
            let nodes = members.0.iter().map(|member| member.node.as_str());
            return Err(Problem::usage(
                format!("`{}` is no member of the cluster", self.node),
                suggest(&self.node, nodes),
            ));
        };
        let question = format!("Take {} out of the cluster, with all its pods?", self.node);
        if !confirm(ui, &question, self.yes)? {
            return Ok(Exit::Failed);
        }
        remove(&cluster.access, member, self.gone, &report(ui)).await.map_err(problem)?;
        Ok(Exit::Done)
    }
}
