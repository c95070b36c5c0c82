//! `datahub validate`: everything that can be checked without a connection.

use super::project::{Project, all_plans};
use super::{Exit, Global, Ui};
use crate::inventory::Vars;
use crate::secret::Secrets;

/// Check inventory, roles and templates, without a connection
///
/// Plans every node from what the inventory claims about it. Secrets are not read: placeholders stand in.
#[derive(clap::Args)]
pub struct Validate {}

impl Validate {
    pub fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?.with_components();
        let secrets = Secrets::placeholder();
        let nodes = project.inventory.nodes.keys();
        let plans = all_plans(nodes.map(|node| project.plan_offline(node, &Vars::new(), None, &secrets)))?;
        let resources: usize =
            plans.iter().flat_map(|plan| &plan.roles).map(|role| role.resources.len()).sum();
        ui.line(&format!(
            "{}: valid ({} nodes, {} groups, {} roles, {resources} resources)",
            project.inventory.source.path.display(),
            project.inventory.nodes.len(),
            project.inventory.groups.len(),
            project.roles.roles.len(),
        ));
        Ok(Exit::Done)
    }
}
