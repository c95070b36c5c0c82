//! `datahub upgrade`: the cluster to the release that the inventory names: a backup, then servers, then agents.

use super::cluster::{self, Cluster, problem, report};
use super::converge::{Wanted, converge, exit};
use super::problem::Problem;
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::cluster::upgrade::{Way, way};
use crate::cluster::{AGENT, SERVER, backup};
use crate::diagnostic::Diagnostics;
use crate::role;

/// Take the cluster to the release of K3s that the inventory names
///
/// Refuses to skip a minor release or to go back. Backs up the datastore and the tokens first; then servers one at a
/// time, then agents: drained, upgraded, waited for until they are Ready, and opened again. Stops at the first
/// failure. Run again, it goes on where it stopped.
#[derive(clap::Args)]
pub struct Upgrade {
    /// How many agents may be out of service at the same time
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Run")]
    concurrency: usize,
    /// Only show what would be changed, as a diff
    #[arg(long, help_heading = "Run")]
    dry_run: bool,
    /// Make no backup beforehand
    #[arg(long, help_heading = "Run")]
    no_backup: bool,
    #[command(flatten)]
    login: Login,
}

impl Upgrade {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let Cluster { project, access, login } = cluster::open(global, &self.login, ui).await?;
        let Some(k3s) = &project.inventory.k3s else {
            let hint = "add to it: [k3s] and version = \"v1.36.3+k3s1\"";
            return Err(Problem::usage("the inventory has no [k3s]: no release is named", hint));
        };
        if let Some(mistake) = role::unpinned(&project.inventory) {
            return Err(Diagnostics(vec![mistake]).into());
        }
        let version = k3s.version.clone();
        let nodes = access.api().await.map_err(problem)?.nodes().await.map_err(|e| problem(e.into()))?;
        let missing =
            access.members.0.iter().find(|member| !nodes.iter().any(|node| node.name == member.name));
        if let Some(missing) = missing {
            return Err(Problem::failed(
                format!(
                    "{} has not joined the cluster: it is to be whole before it is upgraded",
                    missing.node
                ),
                format!(
                    "bring it in at the version the others run, or take it out: datahub remove {}",
                    missing.node
                ),
            ));
        }
        match way(&nodes, &version).map_err(problem)? {
            Way::Arrived => ui.status("Upgrade", &format!("every node runs {version}")),
            Way::Ahead { nodes } => {
                ui.status("Upgrade", &format!("to {version}: {}", nodes.join(", ")));
                if !self.no_backup && !self.dry_run {
                    let folder = project.inventory.dir.join("backups");
                    let name = &project.inventory.cluster.name;
                    let saved = backup::save(&access, name, &super::stamp(), &folder, &report(ui)).await;
                    let saved = saved.map_err(problem)?;
                    ui.status("Backup", &saved.path.display().to_string());
                }
            }
        }
        let wanted = Wanted {
            nodes: access.members.0.iter().map(|member| member.node.clone()).collect(),
            roles: Some(vec![SERVER.to_owned(), AGENT.to_owned()]),
            set: [("k3s_upgrade".to_owned(), true.into())].into_iter().collect(),
            dry_run: self.dry_run,
            stop_at_failure: true,
            forks: self.login.forks,
            out_at_once: self.concurrency,
        };
        let outcome = converge(project, wanted, login, ui).await?;
        if outcome.failed > 0 {
            ui.hint("when the cause is gone, go on where it stopped: datahub upgrade --no-backup");
        }
        Ok(exit(&outcome, false))
    }
}
