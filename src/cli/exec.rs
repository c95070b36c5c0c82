//! `datahub exec`: one command on many nodes, its output per node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::project::Project;
use super::selection::Selection;
use super::session::{self, Login};
use super::{Exit, Global, Shape, Ui};
use crate::shell::quote_all;
use crate::transport::{Error, Output, Script};

/// Run a command as root on many nodes, side by side
///
/// One argument is a text for sh (`-- 'ps axf | grep k3s'`); several are a command and its arguments, passed on
/// as they are. Exits with 1 if the command failed anywhere.
#[derive(clap::Args)]
pub struct Exec {
    #[command(flatten)]
    selection: Selection,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = "Output")]
    timeout: u64,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub format: Shape,
    #[command(flatten)]
    login: Login,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND", help_heading = "Arguments")]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?;
        let nodes = self.selection.nodes(&project.inventory)?;
        let project = project.in_lab(global, ui).await?;
        let text = match self.command.as_slice() {
            [text] => text.clone(),
            words => quote_all(words),
        };
        let script = Script::new(text).timeout(Duration::from_secs(self.timeout));
        let mut exit = Exit::Done;
        let mut answers = on_all(&project, &nodes, &self.login, &script, ui)?;
        while let Some((node, answer)) = answers.recv().await {
            if !answer.as_ref().is_ok_and(|output| output.status == 0) {
                exit = Exit::Failed;
            }
            ui.node_output(&node, &answer);
        }
        Ok(exit)
    }
}

/// Runs a script on nodes side by side; answers come as they are ready.
pub fn on_all(
    project: &Project,
    nodes: &[String],
    login: &Login,
    script: &Script,
    ui: &Ui,
) -> anyhow::Result<mpsc::Receiver<(String, Result<Output, Error>)>> {
    let options = login.options(ui)?;
    let forks = Arc::new(Semaphore::new(login.forks));
    let (sender, receiver) = mpsc::channel(nodes.len().max(1));
    for node in nodes.iter().filter_map(|name| project.inventory.nodes.get(name)) {
        let (node, options, script) = (node.clone(), options.clone(), script.clone());
        let (forks, sender) = (forks.clone(), sender.clone());
        tokio::spawn(async move {
            let _place = forks.acquire().await;
            let answer = async { session::connect(&node, &options).await?.run(&script).await }.await;
            // Nobody is left to read it when the command was interrupted.
            let _ = sender.send((node.name, answer)).await;
        });
    }
    Ok(receiver)
}
