//! `datahub backup` and `datahub restore`: what the cluster knows, kept and put back.

use std::path::PathBuf;

use super::cluster::{self, confirm_by_name, problem, report};
use super::problem::Problem;
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::cluster::backup::{self, About};

/// Save the cluster's datastore and tokens into a file here
///
/// K3s runs on meanwhile. The file holds every Secret of the cluster: it is for you alone (0600), and belongs into no
/// repository. The server keeps its newest five as well.
#[derive(clap::Args)]
pub struct Backup {
    /// The folder for it [default: backups/ beside the inventory]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    to: Option<PathBuf>,
    #[command(flatten)]
    login: Login,
}

impl Backup {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let inventory = &cluster.project.inventory;
        let folder = self.to.unwrap_or_else(|| inventory.dir.join("backups"));
        let name = &inventory.cluster.name;
        let saved = backup::save(&cluster.access, name, &super::stamp(), &folder, &report(ui)).await;
        let saved = saved.map_err(problem)?;
        ui.line(&format!("{} ({})", saved.path.display(), crate::artifact::size(saved.size)));
        Ok(Exit::Done)
    }
}

/// Put a backup in the place of the cluster's datastore
///
/// Asks for the cluster's name first. What the cluster knows now stays on the server, beside it; what has changed
/// since the backup is lost to the cluster, what is in volumes is not touched.
#[derive(clap::Args)]
pub struct Restore {
    /// A file that `datahub backup` has made
    file: PathBuf,
    /// Do not ask for the cluster's name
    #[arg(short, long, help_heading = "Run")]
    yes: bool,
    #[command(flatten)]
    login: Login,
}

impl Restore {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let name = &cluster.project.inventory.cluster.name;
        let about = backup::bring(&cluster.access, &self.file).await.map_err(problem)?;
        if let Err(refusal) = self.agree(&about, name, ui) {
            backup::discard(&cluster.access).await.map_err(problem)?;
            return Err(refusal);
        }
        backup::restore(&cluster.access, &super::stamp(), &report(ui)).await.map_err(problem)?;
        Ok(Exit::Done)
    }

    /// Whether it is this cluster's, and the person means it.
    fn agree(&self, about: &About, name: &str, ui: &Ui) -> anyhow::Result<()> {
        if about.cluster != name {
            return Err(Problem::usage(
                format!("{} is of the cluster {}, not of {name}", self.file.display(), about.cluster),
                "name a backup of this cluster",
            ));
        }
        if about.is_too_new() {
            return Err(Problem::failed(
                format!(
                    "{} was made with {}, and the server has {}: an older K3s does not read a newer datastore",
                    self.file.display(),
                    about.version,
                    about.installed
                ),
                "install that release first: set version under [k3s], then datahub provision",
            ));
        }
        let destroys = format!(
            "this takes the cluster {name} back to {} (made with {}): what was changed since is lost",
            self.file.display(),
            about.version
        );
        confirm_by_name(ui, &destroys, name, self.yes)
    }
}
