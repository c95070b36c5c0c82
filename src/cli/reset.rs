//! `datahub reset`: takes the cluster down, and K3s off its machines.

use super::cluster::{self, confirm_by_name, problem, report};
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::cluster::leave::{take_off, volumes};

/// Take the whole cluster down: K3s off every machine, with all that it knows
///
/// Asks for the cluster's name first. What is in volumes stays: disks, NFS, Longhorn's data. Everything else that the
/// roles k3s-server and k3s-agent have put on the machines goes, and is looked for afterwards.
#[derive(clap::Args)]
pub struct Reset {
    /// Do not ask for the cluster's name
    #[arg(short, long, help_heading = "Run")]
    yes: bool,
    #[command(flatten)]
    login: Login,
}

impl Reset {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let name = &cluster.project.inventory.cluster.name;
        let members = &cluster.access.members;
        let nodes: Vec<&str> = members.0.iter().map(|member| member.node.as_str()).collect();
        let destroys = format!(
            "this destroys the cluster {name} on {}: every object and Secret in it. A backup first: datahub backup",
            nodes.join(", ")
        );
        // Before anybody is asked, and the first one is gone. Of one that is out of reach it is seen when it is its turn.
        for member in &members.0 {
            if let Ok(Some(refusal)) = volumes(&cluster.access, member).await {
                return Err(problem(refusal));
            }
        }
        confirm_by_name(ui, &destroys, name, self.yes)?;
        // Agents before servers, so that nothing joins anew. One that fails keeps no other from being cleaned.
        let mut failed = None;
        for member in members.agents().chain(members.servers()) {
            if let Err(error) = take_off(&cluster.access, member, &report(ui)).await {
                ui.error(&error.to_string(), &[], error.hint.as_deref());
                failed = failed.or(Some(error));
            }
        }
        Ok(if failed.is_some() { Exit::Failed } else { Exit::Done })
    }
}
