//! `datahub bootstrap`: every node, then the cluster's own components, until Git takes over.

use super::converge::{Wanted, converge, exit};
use super::problem::Problem;
use super::project::Project;
use super::provision::Settings;
use super::{Exit, Global, Ui};
use crate::cluster::Members;
use crate::diagnostic::suggest;
use crate::role;

/// Provision every node, then install the cluster's components
///
/// The components are the roles of [cluster] components in the inventory, in that order: charts, the objects around
/// them, and the roots of the Git repositories. Each is waited for before the next one begins; cut off, the next run
/// goes on, and a second run changes nothing.
#[derive(clap::Args)]
pub struct Bootstrap {
    /// Every node, then every component
    #[arg(long, conflicts_with = "only", help_heading = "Targets")]
    all: bool,
    /// Only these components, and no node; may be given several times
    #[arg(long, value_name = "COMPONENT", value_delimiter = ',', help_heading = "Targets")]
    only: Vec<String>,
    #[command(flatten)]
    pub settings: Settings,
    /// Only show what would be changed, on nodes and in the cluster, as a diff
    #[arg(long, help_heading = "Run")]
    dry_run: bool,
    /// With --dry-run: exit with 2 if changes are pending
    #[arg(long, requires = "dry_run", help_heading = "Run")]
    detailed_exitcode: bool,
}

impl Bootstrap {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?.with_components();
        let inventory = &project.inventory;
        let components = &inventory.cluster.components;
        if components.is_empty() {
            return Err(Problem::usage(
                "the inventory names no components",
                "name them, in their order: components = [\"cert-manager\", …] under [cluster]",
            ));
        }
        if !self.all && self.only.is_empty() {
            return Err(Problem::usage(
                "no target: which components?",
                format!("--all, or --only COMPONENT, one or more of: {}", components.join(", ")),
            ));
        }
        if let Some(component) = self.only.iter().find(|component| !components.contains(component)) {
            let help = match project.roles.roles.contains_key(component) {
                true => format!("add it to [cluster] components: {}", inventory.source.path.display()),
                false => suggest(component, components.iter().map(String::as_str)),
            };
            return Err(Problem::usage(
                format!("`{component}` is not one of the cluster's components"),
                help,
            ));
        }
        let members = Members::of(inventory, |_| String::new());
        let server = members.first().map_err(super::cluster::problem)?.node.clone();
        let (nodes, roles) = match self.all {
            true => (inventory.nodes.keys().cloned().collect(), None),
            false => (vec![server], Some(self.only)),
        };
        let Settings { set, login, .. } = self.settings;
        let set = set.into_iter().collect();
        role::check_set(inventory, &project.roles, &nodes, &set)?;
        let project = project.in_lab(global, ui).await?;
        let (dry_run, forks) = (self.dry_run, login.forks);
        let wanted = Wanted { nodes, roles, set, dry_run, forks, ..Wanted::default() };
        let outcome = converge(project, wanted, login.options(ui)?, ui).await?;
        Ok(exit(&outcome, dry_run && self.detailed_exitcode))
    }
}
