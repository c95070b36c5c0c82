//! `datahub kubeconfig`: the way for kubectl to the cluster, put into the operator's own kubeconfig.

use super::cluster::{self, problem};
use super::problem::Problem;
use super::session::Login;
use super::{Exit, Global, Ui};
use crate::kube::client::{K3S_KUBECONFIG, read_kubeconfig};
use crate::kube::kubeconfig::{Current, Entry};
use crate::kube::kubeconfig_file::{Written, merge_into, paths};

/// Put the cluster into your kubeconfig, as a context of its own
///
/// What is there already is kept, and backed up before it is changed; a file that is broken is not touched.
#[derive(clap::Args)]
pub struct Kubeconfig {
    /// The context's name [default: the cluster's name]
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    context: Option<String>,
    /// The API's address as kubectl is to reach it [default: https://HOST-OF-THE-FIRST-SERVER:6443]
    #[arg(long, value_name = "URL", help_heading = "Run")]
    server: Option<String>,
    /// Make it the current context; without this only if there is none
    #[arg(long, help_heading = "Run")]
    set_current: bool,
    /// Print it instead of writing it. It holds a private key
    #[arg(long, conflicts_with = "set_current", help_heading = "Run")]
    print: bool,
    #[command(flatten)]
    login: Login,
}

impl Kubeconfig {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let cluster = cluster::open(global, &self.login, ui).await?;
        let first = cluster.access.members.first().map_err(problem)?.clone();
        let inventory = &cluster.project.inventory;
        let host = inventory.nodes.get(&first.node).map(|node| node.host.clone()).unwrap_or_default();
        let transport = cluster.access.transport(&first.node).await.map_err(problem)?;
        let text = read_kubeconfig(&*transport, K3S_KUBECONFIG).await.map_err(|e| problem(e.into()))?;
        let server = self.server.unwrap_or_else(|| format!("https://{host}:6443"));
        let name = self.context.unwrap_or_else(|| inventory.cluster.name.clone());
        let entry = Entry::new(&text, &server, &name)
            .map_err(|error| Problem::usage(error.to_string(), "the address looks like https://HOST:6443"))?;
        if self.print {
            ui.document(entry.alone(Current::Always).expose());
            return Ok(Exit::Done);
        }
        let paths = paths(std::env::var_os("KUBECONFIG").as_deref(), std::env::home_dir().as_deref());
        let written = paths.and_then(|paths| merge_into(&paths, &entry, self.set_current));
        match written.map_err(|error| {
            Problem::failed(error.to_string(), error.hint().unwrap_or_else(|| "nothing was changed".into()))
        })? {
            Written::Unchanged { path } => {
                ui.line(&format!("{}: context {name}, up to date", path.display()))
            }
            Written::Changed { path, backup, rewritten } => {
                ui.line(&format!("{}: context {name} → {server}", path.display()));
                if let Some(backup) = backup {
                    ui.note(&format!("what was there is in {}", backup.display()));
                }
                if rewritten {
                    ui.warning("its comments and its order could not be kept");
                }
            }
        }
        ui.hint(&format!("kubectl --context {name} get nodes"));
        Ok(Exit::Done)
    }
}
