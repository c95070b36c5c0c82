//! `datahub shutdown`: switches machines off in the order that the cluster needs.

use super::cluster::{self, confirm, problem, report};
use super::problem::Problem;
use super::selection::Selection;
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::cluster::power::{shut_down, stages};
use crate::diagnostic::suggest;

/// Nodes of this group hold what all others use.
const STORAGE: &str = "nas";

/// Switch nodes off: agents first, then servers, and the storage (group `nas`) last
///
/// Each stage waits until the one before is off. Nothing can switch them on again from here.
#[derive(clap::Args)]
pub struct Shutdown {
    #[command(flatten)]
    selection: Selection,
    /// Switch these off last, instead of the nodes of the group `nas`
    #[arg(long, value_name = "NODE", value_delimiter = ',', help_heading = "Run")]
    last: Vec<String>,
    /// Do not ask
    #[arg(short, long, help_heading = "Run")]
    yes: bool,
    #[command(flatten)]
    login: Login,
}

impl Shutdown {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let inventory = &cluster.project.inventory;
        let nodes = self.selection.nodes(inventory)?;
        let stored =
            || inventory.nodes.values().filter(|node| node.groups.iter().any(|group| group == STORAGE));
        if let Some(stray) = self.last.iter().find(|node| !nodes.contains(node)) {
            return Err(Problem::usage(
                format!("--last {stray}: no such node is to be switched off"),
                suggest(stray, nodes.iter().map(String::as_str)),
            ));
        }
        let last = match self.last.is_empty() {
            true => stored().map(|node| node.name.clone()).collect(),
            false => self.last,
        };
        let stages = stages(&cluster.access, &nodes, &last);
        let order: Vec<String> = stages.iter().map(|stage| stage.join(", ")).collect();
        if !confirm(ui, &format!("Switch off {}?", order.join("; then ")), self.yes)? {
            return Ok(Exit::Failed);
        }
        shut_down(&cluster.access, &stages, &report(ui)).await.map_err(problem)?;
        Ok(Exit::Done)
    }
}
