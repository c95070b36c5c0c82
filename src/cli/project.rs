//! The project a command works on: inventory, roles and secrets, found and checked.

use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::{Global, Ui};
use crate::artifact::store::Store;
use crate::cluster::{SERVER, with_components};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::{self, Inventory, Vars};
use crate::role::{self, Files, NodePlan, Roles};
use crate::secret::Secrets;
use crate::transport::ssh::config;

/// Everything a plan is made from, but the facts.
pub struct Project {
    pub inventory: Inventory,
    pub roles: Roles,
    pub secrets: Secrets,
}

impl Project {
    /// Reads inventory and roles. All mistakes of both are reported together.
    pub fn load(global: &Global, ui: &Ui) -> anyhow::Result<Self> {
        let path = inventory_path(global)?;
        let inventory = inventory::load(&path);
        let folder = match &global.roles {
            Some(folder) if !folder.is_dir() => {
                return Err(Problem::usage(
                    format!("there is no folder {}", folder.display()),
                    "--roles names a folder that holds roles/ and templates/",
                ));
            }
            Some(folder) => folder.clone(),
            None => above(&path),
        };
        let roles = Roles::load(Files::builtin(), Some(&folder));
        let (inventory, roles) = match (inventory, roles) {
            (Ok(inventory), Ok(roles)) => (inventory, roles),
            (inventory, roles) => {
                let mistakes = [inventory.err(), roles.err()].into_iter().flatten().flat_map(|m| m.0);
                return Err(Diagnostics(mistakes.collect()).into());
            }
        };
        needs_server(&inventory)?;
        role::check(&with_components(&inventory), &roles)?;
        if let Some(home) = std::env::home_dir() {
            config::warnings(&home.join(".ssh/config")).iter().for_each(|warning| ui.warning(warning));
        }
        let secrets = Secrets::open(&inventory);
        Ok(Self { inventory, roles, secrets })
    }

    /// The same project, whose first server has the cluster's components too.
    pub fn with_components(self) -> Self {
        Self { inventory: with_components(&self.inventory), ..self }
    }

    /// With `--lab`: the same project, its hosts replaced by the lab's machines.
    #[cfg(feature = "lab")]
    pub async fn in_lab(mut self, global: &Global, ui: &Ui) -> anyhow::Result<Self> {
        let cache = self.artifacts();
        self.inventory = global.lab.stand_in(self.inventory, cache, ui).await?;
        Ok(self)
    }

    /// Built without the lab: the hosts are the inventory's.
    #[cfg(not(feature = "lab"))]
    pub async fn in_lab(self, _: &Global, _: &Ui) -> anyhow::Result<Self> {
        Ok(self)
    }

    /// The user's cache of releases' files, `~/.cache/datahub`, filled from the inventory's source.
    pub fn artifacts(&self) -> Store {
        use etcetera::BaseStrategy as _;
        let folder =
            etcetera::choose_base_strategy().map_or_else(|_| std::env::temp_dir(), |base| base.cache_dir());
        Store::new(folder.join("datahub"), self.inventory.k3s.as_ref().map(|k3s| k3s.source.clone()))
    }

    /// What a node should be, from what the inventory claims about it: finds the mistakes that need no node.
    pub fn plan_offline(
        &self,
        node: &str,
        set: &Vars,
        only_roles: Option<&[String]>,
        secrets: &Secrets,
    ) -> Result<NodePlan, Diagnostics> {
        let claimed = self.inventory.nodes.get(node).map(inventory::claimed).unwrap_or_default();
        role::plan(&self.inventory, &self.roles, node, &claimed, set, only_roles, secrets)
    }
}

/// Components are installed through a server.
fn needs_server(inventory: &Inventory) -> Result<(), Diagnostics> {
    let is_server = |node: &inventory::Node| node.roles.iter().any(|role| role == SERVER);
    if inventory.cluster.components.is_empty() || inventory.nodes.values().any(is_server) {
        return Ok(());
    }
    let mut error =
        Diagnostic::new("the cluster has components, but no server that they could be installed through")
            .label("installed through the first server")
            .help(format!("give a node the role {SERVER}"));
    error.place = inventory.key_place("cluster.components");
    Err(Diagnostics(vec![error]))
}

/// Plans of several nodes; all their mistakes, each once.
pub fn all_plans(
    plans: impl IntoIterator<Item = Result<NodePlan, Diagnostics>>,
) -> Result<Vec<NodePlan>, Diagnostics> {
    let (mut good, mut mistakes) = (Vec::new(), Vec::new());
    for plan in plans {
        match plan {
            Ok(plan) => good.push(plan),
            Err(errors) => {
                mistakes.extend(errors.0.into_iter().filter(|e| !mistakes.contains(e)).collect::<Vec<_>>());
            }
        }
    }
    if mistakes.is_empty() { Ok(good) } else { Err(Diagnostics(mistakes)) }
}

pub fn inventory_path(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = &global.inventory {
        return Ok(path.clone());
    }
    let here = std::env::current_dir()?;
    let found =
        here.ancestors().map(|folder| folder.join("inventory")).find(|f| f.join("datahub.toml").is_file());
    match found {
        // As the user would write it.
        Some(folder) if folder.parent() == Some(&here) => Ok("inventory".into()),
        Some(folder) => Ok(folder),
        None => Err(Problem::usage(
            "there is no inventory/datahub.toml here or in a folder above",
            "change to your project, or name the inventory: --inventory PATH",
        )),
    }
}

/// The folder above the one that holds datahub.toml.
fn above(inventory: &Path) -> PathBuf {
    let folder = if inventory.is_dir() { inventory } else { inventory.parent().unwrap_or(Path::new("")) };
    match folder.canonicalize() {
        // A relative path stays one in messages.
        Ok(_) if folder == Path::new("inventory") => PathBuf::from(""),
        Ok(full) => full.parent().map(Path::to_owned).unwrap_or(full),
        Err(_) => folder.join(".."),
    }
}
