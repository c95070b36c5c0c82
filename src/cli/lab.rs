//! `--lab` and `datahub lab`: throw-away machines in the place of the inventory's.

use std::os::unix::process::CommandExt as _;

use clap::Subcommand;
use serde_json::json;

use super::problem::Problem;
use super::project::Project;
use super::{Exit, Global, Shape, Ui};
use crate::artifact::store::Store;
use crate::inventory::Inventory;
use crate::lab::{self, DEFAULT, Machine, Progress, Stop};
use crate::ui::Format;

/// Flags of every command.
#[derive(clap::Args)]
pub struct Choice {
    /// Use throw-away machines on this computer in place of the nodes; they are started if need be
    #[arg(long, global = true, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT)]
    lab: Option<String>,
}

impl Choice {
    /// With `--lab`: the inventory of the lab's machines. Those that are missing are made; one that was switched
    /// off stays off.
    pub async fn stand_in(&self, inventory: Inventory, cache: Store, ui: &Ui) -> anyhow::Result<Inventory> {
        let Some(name) = self.lab.clone() else { return Ok(inventory) };
        let reporter = ui.clone();
        blocking(move || {
            let machines = match lab::Lab::open(&name) {
                Ok(lab) => lab.machines()?,
                Err(lab::Error::NoLab { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let has = |node: &&String| machines.iter().any(|machine| machine.node == **node);
            let all: Vec<String> = inventory.nodes.keys().cloned().collect();
            let missing: Vec<String> = match machines.iter().any(|machine| machine.running) {
                true => all.iter().filter(|node| !has(node)).cloned().collect(),
                false => all,
            };
            let lab = match missing.is_empty() {
                true => lab::Lab::open(&name)?,
                false => lab::Lab::up(&name, &inventory, &missing, &report(&reporter))?,
            };
            let word = if name == DEFAULT { String::new() } else { format!(" --name {name}") };
            reporter.status(
                "Lab",
                &format!(
                    "{} machines stand in for the nodes; they stay up until: datahub lab down{word}",
                    inventory.nodes.len()
                ),
            );
            let machines = lab.stand_in(&inventory);
            Ok(lab.release(machines, &|artifact| cache.has(artifact), &report(&reporter))?)
        })
        .await
    }
}

/// Throw-away machines on this computer, one for every node of the inventory
///
/// Containers with a systemd, an sshd and an apt of their own, for rehearsals and tests. Needs root on Debian.
/// Any other command uses them with --lab.
#[derive(clap::Args)]
pub struct Lab {
    #[command(subcommand)]
    action: Action,
    /// The lab's name: several can run side by side
    #[arg(long, global = true, value_name = "NAME", default_value = DEFAULT)]
    name: String,
}

#[derive(Subcommand)]
enum Action {
    /// Bring up the machines of all nodes, or of those named
    Up {
        /// Nodes of the inventory; all if none is named
        nodes: Vec<String>,
    },
    /// Stop the machines and remove all of the lab; the cached base images stay
    Down {
        /// Every lab there is
        #[arg(long)]
        all: bool,
    },
    /// List the machines
    List {
        /// How to print
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Shape,
    },
    /// Log in to a machine, or run a command there
    Ssh {
        /// A node of the lab
        node: String,
        /// Log in as this user instead of the inventory's
        #[arg(long)]
        user: Option<String>,
        /// What to run there; without it a login shell
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Print an inventory of the machines: addresses, users, key
    Inventory {
        /// For whom
        #[arg(long, value_name = "FORMAT", default_value = "toml")]
        format: Kind,
    },
    /// Switch machines off; their files stay
    Stop {
        /// Nodes of the lab
        #[arg(required = true)]
        nodes: Vec<String>,
        /// As by pulling the plug
        #[arg(long)]
        power_cut: bool,
    },
    /// Switch machines on again
    Start {
        /// Nodes of the lab
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Replace machines by fresh ones
    Reset {
        /// Nodes of the lab
        #[arg(required = true)]
        nodes: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// For datahub itself
    Toml,
    /// An INI inventory for Ansible
    Ansible,
    /// For `ssh -F`
    SshConfig,
}

impl Lab {
    pub fn format(&self) -> Format {
        match self.action {
            Action::List { format } => format.into(),
            _ => Format::Text,
        }
    }

    pub async fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let Self { action, name } = self;
        let ui = ui.clone();
        let project = match &action {
            Action::Up { .. } | Action::Inventory { .. } => Some(Project::load(global, &ui)?),
            _ => None,
        };
        blocking(move || act(action, &name, project, &ui)).await?;
        Ok(Exit::Done)
    }
}

fn act(action: Action, name: &str, project: Option<Project>, ui: &Ui) -> anyhow::Result<()> {
    let inventory = project.map_or_else(Inventory::empty, |project| project.inventory);
    match action {
        Action::Up { nodes } => {
            let nodes = if nodes.is_empty() { inventory.nodes.keys().cloned().collect() } else { nodes };
            let lab = lab::Lab::up(name, &inventory, &nodes, &report(ui))?;
            list(&lab.machines()?, Shape::Text, ui);
        }
        Action::Down { all } => {
            let names = if all { lab::Lab::list()? } else { vec![name.to_owned()] };
            for name in names {
                lab::Lab::down(&name, &report(ui))?;
                ui.status("Gone", &format!("lab {name}"));
            }
        }
        Action::List { format } => match lab::Lab::open(name) {
            Ok(lab) => list(&lab.machines()?, format, ui),
            Err(lab::Error::NoLab { .. }) if format == Shape::Json => list(&[], format, ui),
            Err(lab::Error::NoLab { .. }) => others(name, ui)?,
            Err(error) => return Err(error.into()),
        },
        Action::Ssh { node, user, command } => {
            let mut ssh = lab::Lab::open(name)?.ssh_command(&node, user.as_deref())?;
            // Replaces this process, so that the terminal and the exit code are those of ssh.
            let error = ssh.args(command).exec();
            return Err(Problem::failed(format!("cannot run ssh: {error}"), "apt install openssh-client"));
        }
        Action::Inventory { format } => {
            let format = match format {
                Kind::Toml => lab::Format::Toml,
                Kind::Ansible => lab::Format::Ansible,
                Kind::SshConfig => lab::Format::SshConfig,
            };
            ui.line(lab::Lab::open(name)?.inventory(&inventory, format)?.trim_end());
        }
        Action::Stop { nodes, power_cut } => {
            let how = if power_cut { Stop::PowerCut } else { Stop::Clean };
            each(name, &nodes, ui, "Off", |lab, node| lab.stop(node, how))?;
        }
        Action::Start { nodes } => each(name, &nodes, ui, "On", lab::Lab::start)?,
        Action::Reset { nodes } => each(name, &nodes, ui, "Fresh", lab::Lab::reset)?,
    }
    Ok(())
}

fn each(
    name: &str,
    nodes: &[String],
    ui: &Ui,
    verb: &str,
    action: impl Fn(&lab::Lab, &str) -> Result<(), lab::Error>,
) -> anyhow::Result<()> {
    let lab = lab::Lab::open(name)?;
    for node in nodes {
        action(&lab, node)?;
        ui.status(verb, node);
    }
    Ok(())
}

fn others(name: &str, ui: &Ui) -> anyhow::Result<()> {
    let names = lab::Lab::list()?;
    if names.is_empty() {
        ui.note("no lab is up; bring one up with: datahub lab up");
    } else {
        ui.note(&format!("there is no lab {name}, but: {} (--name NAME)", names.join(", ")));
    }
    Ok(())
}

fn list(machines: &[Machine], format: Shape, ui: &Ui) {
    if format == Shape::Json {
        let machines = machines.iter().map(|m| {
            json!({
                "node": m.node, "address": m.address, "hostname": m.hostname, "release": m.release, "user": m.user,
                "running": m.running, "note": m.note,
            })
        });
        return ui.json(&machines.collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = machines
        .iter()
        .map(|m| {
            let state = if m.running { "on" } else { "off" };
            vec![
                m.node.clone(),
                state.to_owned(),
                m.address.clone(),
                m.release.to_string(),
                m.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    ui.table(&["node", "state", "address", "release", "note"], &rows);
}

/// Lab progress as status lines.
fn report(ui: &Ui) -> impl Fn(Progress) + Sync + use<> {
    let ui = ui.clone();
    move |progress| {
        let (verb, text) = match &progress {
            Progress::Installing { packages } => {
                ("Installing", format!("{} on this computer", packages.join(", ")))
            }
            Progress::Waiting { on } => ("Waiting", format!("for another process: {on}")),
            Progress::Building { release, log } => (
                "Building",
                format!("the base image of {release}, once, about a minute (log: {})", log.display()),
            ),
            Progress::Built { release } => ("Built", format!("the base image of {release}")),
            Progress::Network { subnet } => ("Network", subnet.clone()),
            Progress::Starting { node, address } => ("Starting", format!("{node} at {address}")),
            Progress::Ready { node, address } => ("Ready", format!("{node} at {address}")),
            Progress::Stopping { lab } => ("Stopping", format!("the lab {lab}")),
            Progress::K3s { .. } => return ui.warning(&progress.to_string()),
            Progress::Note { .. } => return ui.note(&progress.to_string()),
        };
        ui.status(verb, &text);
    }
}

/// The lab works with processes and files, and blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
