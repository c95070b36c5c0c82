//! `datahub reboot`: nodes one after another, each drained before and Ready again afterwards.

use super::converge::{Wanted, converge, exit};
use super::project::Project;
use super::selection::Selection;
use super::session::Login;
use super::{Exit, Global, Ui};

/// The role that says what a reboot is.
const ROLE: &str = "reboot";

/// Reboot nodes, one after another
///
/// A node of the cluster is drained first; the next one has its turn when this one is back with a new boot id, Ready,
/// and open for pods again. Stops at the first failure.
#[derive(clap::Args)]
pub struct Reboot {
    #[command(flatten)]
    selection: Selection,
    /// Only nodes that ask for it: after an upgrade of the kernel or of libraries (/run/reboot-required)
    #[arg(long, help_heading = "Run")]
    if_required: bool,
    /// Only show which nodes would be rebooted
    #[arg(long, help_heading = "Run")]
    dry_run: bool,
    #[command(flatten)]
    login: Login,
}

impl Reboot {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?;
        let nodes = self.selection.nodes(&project.inventory)?;
        let mut project = project.in_lab(global, ui).await?;
        for node in &nodes {
            project
                .inventory
                .nodes
                .get_mut(node)
                .into_iter()
                .for_each(|node| node.roles.push(ROLE.to_owned()));
        }
        let set = [
            ("reboot_asked".to_owned(), super::stamp().into()),
            ("reboot_if_required".to_owned(), self.if_required.into()),
        ];
        let wanted = Wanted {
            nodes,
            roles: Some(vec![ROLE.to_owned()]),
            set: set.into_iter().collect(),
            dry_run: self.dry_run,
            stop_at_failure: true,
            forks: 1,
            ..Wanted::default()
        };
        Ok(exit(&converge(project, wanted, self.login.options(ui)?, ui).await?, false))
    }
}
