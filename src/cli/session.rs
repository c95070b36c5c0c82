//! Logging in to nodes: the flags for it, connections, addresses, and what Ctrl-C means.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Ui;
use super::problem::Problem;
use crate::engine::Interrupt;
use crate::engine::lock::Holder;
use crate::engine::peers::Connector;
use crate::inventory::{Inventory, Node};
use crate::transport::local::Local;
use crate::transport::prompt::{Question, Secret};
use crate::transport::ssh::{self, Ssh, config};
use crate::transport::{Error, Transport};

/// The host of a node that is this machine.
const LOCAL: &str = "local";
/// A name that takes longer to look up counts as unknown.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Login {
    /// Ask for the sudo password now, once for all nodes
    #[arg(short = 'K', long)]
    ask_become_pass: bool,
    /// Give up on a node that has not answered after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: u64,
    /// Nodes worked on at the same time
    #[arg(long, value_name = "N", env = "DATAHUB_FORKS", hide_env_values = true, default_value_t = 16, value_parser = forks)]
    pub forks: usize,
}

fn forks(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| "a number from 1 to 1000".to_owned())
}

impl Login {
    /// Asks for what has to be asked beforehand.
    pub fn options(&self, ui: &Ui) -> anyhow::Result<ssh::Options> {
        let prompter = ui.prompter();
        let sudo_password: Option<Secret> = if self.ask_become_pass {
            let question = Question { text: "sudo password for all nodes".into(), echo: false };
            let hint = "without one, give the login user a NOPASSWD rule in /etc/sudoers.d";
            let asked = prompter.ask(&question);
            Some(asked.ok_or_else(|| Problem::usage("--ask-become-pass needs a terminal to ask on", hint))?)
        } else {
            None
        };
        let connect_timeout = Duration::from_secs(self.connect_timeout);
        Ok(ssh::Options { prompter, connect_timeout, sudo_password, ..ssh::Options::default() })
    }
}

/// Opens the connection to a node.
pub async fn connect(node: &Node, options: &ssh::Options) -> Result<Arc<dyn Transport>, Error> {
    if node.host == LOCAL {
        return Ok(Arc::new(Local::new(options.prompter.clone(), options.sudo_password.clone())));
    }
    Ok(Arc::new(Ssh::connect(&node.into(), options).await?))
}

/// The way to any node of an inventory, by its name.
pub fn connector(inventory: Arc<Inventory>, options: ssh::Options) -> Connector {
    Arc::new(move |name| match inventory.nodes.get(name) {
        Some(node) => {
            let (node, options) = (node.clone(), options.clone());
            Box::pin(async move { connect(&node, &options).await })
        }
        None => {
            let error = format!("`{name}` is no node of the inventory");
            Box::pin(async move { Err(Error::Other(error)) })
        }
    })
}

/// Where a node is reached, for people.
pub fn address(node: &Node) -> String {
    match node.ssh.port {
        Some(port) if node.host != LOCAL => format!("{}:{port}", node.host),
        _ => node.host.clone(),
    }
}

/// Gives every node without a numeric address the one its name has, as seen from here. A name that nobody knows
/// stays without: what needs it is then left out of plans.
pub async fn look_up_addresses(inventory: &mut Inventory, options: &ssh::Options) {
    let unknown = inventory.nodes.values_mut().filter(|node| node.address.is_none() && node.host != LOCAL);
    let mut lookups = tokio::task::JoinSet::new();
    for node in unknown {
        let host = config::route(&(&*node).into(), options)
            .ok()
            .and_then(|hops| hops.last().map(|hop| hop.host.clone()))
            .unwrap_or_else(|| node.host.clone());
        let name = node.name.clone();
        lookups.spawn(async move { (name, look_up(&host).await) });
    }
    while let Some(found) = lookups.join_next().await {
        if let Ok((name, address)) = found
            && let Some(node) = inventory.nodes.get_mut(&name)
        {
            node.address = address;
        }
    }
}

/// IPv4 first: that is what /etc/hosts of a home network holds.
async fn look_up(host: &str) -> Option<IpAddr> {
    let found = timeout(LOOK_UP_LIMIT, tokio::net::lookup_host((host, 22))).await.ok()?.ok()?;
    let mut addresses: Vec<IpAddr> = found.map(|a| a.ip()).filter(|a| !a.is_loopback()).collect();
    addresses.sort_by_key(|address| (address.is_ipv6(), *address));
    addresses.first().copied()
}

/// This run, for the record, the nodes' locks and their journals. Its name sorts by time and is unique on this machine.
pub fn holder() -> Holder {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".into());
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let run = format!("{}-{:x}", super::stamp(), std::process::id());
    Holder { owner: format!("{user}@{machine}"), run }
}

/// Watches for Ctrl-C and SIGTERM: the first lets running steps finish, the second stops at once.
pub fn interrupts(ui: &Ui) -> watch::Receiver<Interrupt> {
    let (sender, receiver) = watch::channel(Interrupt::None);
    let ui = ui.clone();
    tokio::spawn(async move {
        for (level, second) in [(Interrupt::AfterStep, false), (Interrupt::Now, true)] {
            if signal().await.is_none() {
                return;
            }
            ui.interrupted(second);
            sender.send_replace(level);
        }
        // A third one finds nothing left to stop; the sender stays so that nobody sees it gone.
        std::future::pending::<()>().await;
    });
    receiver
}

async fn signal() -> Option<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).ok()?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.ok(),
        received = terminate.recv() => received,
    }
}
