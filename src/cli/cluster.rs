//! What the commands for a whole cluster share: the way to it, its steps on the screen, and the question before
//! something is destroyed.

use std::sync::Arc;

use super::problem::Problem;
use super::project::Project;
use super::session::{self, Login};
use super::{Global, Ui};
use crate::cluster::{self, Access, DATA_DIR, Members};
use crate::engine::peers::Peers;
use crate::inventory::{Vars, vars};
use crate::role;
use crate::transport::prompt::Question;
use crate::transport::ssh;

/// A project and the cluster it describes.
pub struct Cluster {
    pub project: Project,
    pub access: Access,
    /// How its machines are logged in to, what had to be asked for that included.
    pub login: ssh::Options,
}

/// Reads the project and makes ready to reach its cluster. Connects to nothing yet.
pub async fn open(global: &Global, login: &Login, ui: &Ui) -> anyhow::Result<Cluster> {
    let project = Project::load(global, ui)?.in_lab(global, ui).await?;
    let login = login.options(ui)?;
    let inventory = &project.inventory;
    let members = Members::of(inventory, |node| {
        let declared = role::declarations(&project.roles, node);
        // Mistakes in variables were reported when the project was loaded.
        let merged = vars::merged(inventory, node, &declared, &Vars::new()).ok();
        let value = merged.and_then(|merged| Some(merged.get("k3s_data_dir")?.0.as_str()?.to_owned()));
        value.unwrap_or_else(|| DATA_DIR.to_owned())
    });
    members.first().map_err(problem)?;
    let connector = session::connector(Arc::new(inventory.clone()), login.clone());
    let access = Access { members, peers: Arc::new(Peers::new(connector)), holder: session::holder() };
    Ok(Cluster { access, project, login })
}

/// Steps as lines: who, and what.
pub fn report(ui: &Ui) -> impl Fn(&str, &str) + Send + Sync + use<> {
    let ui = ui.clone();
    move |node, what| ui.status(node, what)
}

pub fn problem(error: cluster::Error) -> anyhow::Error {
    let hint = error.hint.clone().unwrap_or_else(|| "run again: what was done stays done".into());
    Problem::failed(error.to_string(), hint)
}

/// Asks for the cluster's name before something is destroyed. `yes`: it was agreed to on the command line.
pub fn confirm_by_name(ui: &Ui, destroys: &str, cluster: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    ui.warning(destroys);
    let question =
        Question { text: format!("To go on, type the name of the cluster ({cluster})"), echo: true };
    match ui.prompter().ask(&question) {
        Some(answer) if answer.trim() == cluster => Ok(()),
        Some(_) => {
            Err(Problem::failed("that is not its name: nothing was changed", "run again to try once more"))
        }
        None => Err(nobody_to_ask()),
    }
}

/// Asks whether to go on. `yes`: it was agreed to on the command line.
pub fn confirm(ui: &Ui, question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    let agreed = ui.confirm(question).ok_or_else(nobody_to_ask)?;
    if !agreed {
        ui.note("nothing was done");
    }
    Ok(agreed)
}

fn nobody_to_ask() -> anyhow::Error {
    Problem::usage("there is no terminal to ask on", "to agree beforehand: --yes")
}
