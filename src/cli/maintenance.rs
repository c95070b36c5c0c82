//! `datahub maintenance`: what a cluster needs done now and then.

use super::cluster::{self, problem, report};
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::cluster::housekeeping;

/// Tidy the cluster: old Helm revisions, the datastore's holes, unused images
///
/// K3s is stopped on a server while its datastore is rewritten, and started again whatever happens; pods go on.
#[derive(clap::Args)]
pub struct Maintenance {
    /// How many revisions of each Helm release stay
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Run")]
    keep_revisions: usize,
    /// Leave the datastore as it is
    #[arg(long, help_heading = "Run")]
    no_vacuum: bool,
    /// Also remove images that no container uses, on every node
    #[arg(long, help_heading = "Run")]
    prune_images: bool,
    #[command(flatten)]
    login: Login,
}

impl Maintenance {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let (access, report) = (&cluster.access, report(ui));
        housekeeping::prune_helm(access, self.keep_revisions, &report).await.map_err(problem)?;
        if !self.no_vacuum {
            housekeeping::vacuum(access, &report).await.map_err(problem)?;
        }
        if self.prune_images {
            housekeeping::prune_images(access, &report).await.map_err(problem)?;
        }
        Ok(Exit::Done)
    }
}
