//! `datahub validate`: everything that can be checked without a connection.

use super::project::{Project, all_plans};
use super::{Exit, Global, Ui};
use crate::inventory::Vars;
use crate::role;
use crate::secret::Secrets;

/// Check inventory, roles and templates, without a connection
///
/// Plans every node from what the inventory claims about it. Secrets are not read: placeholders stand in. A release that
/// is not pinned yet is a warning: the first run on real machines needs it.
#[derive(clap::Args)]
pub struct Validate {}

impl Validate {
    pub fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let mut project = Project::load(global, ui)?.with_components();
        let unpinned = role::unpinned(&project.inventory);
        if let (Some(_), Some(k3s)) = (&unpinned, &project.inventory.k3s) {
            project.inventory.lock.suppose(&k3s.version);
        }
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
        if let Some(unpinned) = unpinned {
            ui.advice(&unpinned);
        }
        Ok(Exit::Done)
    }
}
