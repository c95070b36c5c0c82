//! The life of a K3s cluster that is there: what is done to it as a whole, and not to bring a node to its state.
//!
//! One file an operation: its order, its shell, its tests. Nodes are reached through [`Peers`], the cluster through
//! its API; what happens is told to a [`Report`] callback. What *can* be said as roles (a reboot, an upgrade) is a run
//! of the engine instead; only its checks beforehand are here.

pub mod backup;
pub mod housekeeping;
pub mod leave;
pub mod power;
pub mod status;
pub mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::lock::{self, Answer, Holder};
use crate::engine::peers::Peers;
use crate::inventory::{Inventory, Node};
use crate::kube;
use crate::transport::prompt::printable;
use crate::transport::{self, Hold, Script, Transport};

pub use crate::role::{AGENT, SERVER};

/// Where K3s keeps its data unless a node's variables say otherwise.
pub const DATA_DIR: &str = "/var/lib/rancher/k3s";

/// The inventory whose first server has the cluster's components too: what is the cluster's own is asked and changed
/// through it.
pub fn with_components(inventory: &Inventory) -> Inventory {
    let mut inventory = inventory.clone();
    let components = inventory.cluster.components.clone();
    let is_server = |node: &&mut Node| node.roles.iter().any(|role| role == SERVER);
    if let Some(server) = inventory.nodes.values_mut().find(is_server) {
        let missing = components.into_iter().filter(|component| !server.roles.contains(component));
        server.roles.extend(missing.collect::<Vec<_>>());
    }
    inventory
}

/// Hears what is being done: a node's name, and what.
pub type Report<'a> = &'a (dyn Fn(&str, &str) + Send + Sync);

/// Why an operation ended early.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{message}", .node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default())]
pub struct Error {
    pub node: Option<String>,
    pub message: String,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self { node: None, message: message.into(), hint: None }
    }

    pub fn on(node: &str, message: impl Into<String>) -> Self {
        Self { node: Some(node.to_owned()), message: message.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn transport(node: &str, error: &transport::Error) -> Self {
        Self { node: Some(node.to_owned()), message: error.to_string(), hint: error.hint() }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self { node: None, message: error.to_string(), hint: error.hint() }
    }
}

/// A node of the inventory that is a member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name in the inventory.
    pub node: String,
    /// Its name in the cluster.
    pub name: String,
    pub server: bool,
    pub data_dir: String,
}

impl Member {
    /// The service that is the cluster's part on this node.
    pub fn unit(&self) -> &'static str {
        if self.server { "k3s.service" } else { "k3s-agent.service" }
    }
}

/// The members of the cluster: servers first, both in the inventory's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(pub Vec<Member>);

impl Members {
    /// `data_dir` gives a node's `k3s_data_dir`.
    pub fn of(inventory: &Inventory, data_dir: impl Fn(&Node) -> String) -> Self {
        let has = |node: &Node, role: &str| node.roles.iter().any(|own| own == role);
        let member = |node: &Node, server| Member {
            node: node.name.clone(),
            name: node.hostname.clone(),
            server,
            data_dir: data_dir(node),
        };
        let nodes = inventory.nodes.values();
        let servers = nodes.clone().filter(|node| has(node, SERVER)).map(|node| member(node, true));
        let agents = nodes.filter(|node| has(node, AGENT) && !has(node, SERVER));
        Self(servers.chain(agents.map(|node| member(node, false))).collect())
    }

    pub fn servers(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(|member| member.server)
    }

    pub fn agents(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(|member| !member.server)
    }

    /// The server that made the cluster, and through which its API is asked.
    pub fn first(&self) -> Result<&Member, Error> {
        self.servers().next().ok_or_else(|| {
            Error::new(format!("no node of the inventory has the role {SERVER}: there is no cluster"))
                .hint(format!("give one: roles = [\"{SERVER}\"] under its group or the node"))
        })
    }

    pub fn get(&self, node: &str) -> Option<&Member> {
        self.0.iter().find(|member| member.node == node)
    }
}

/// The cluster and the ways to it.
pub struct Access {
    pub members: Members,
    pub peers: Arc<Peers>,
    /// Who this is.
    pub holder: Holder,
}

impl Access {
    /// The API, through the first server.
    pub async fn api(&self) -> Result<kube::Cluster, Error> {
        self.api_of(self.members.first()?).await
    }

    /// The API, through a server that is not this member, if there is another one.
    pub async fn api_beside(&self, member: &Member) -> Result<kube::Cluster, Error> {
        let other = self.members.servers().find(|server| server.node != member.node);
        self.api_of(other.map_or_else(|| self.members.first(), Ok)?).await
    }

    async fn api_of(&self, server: &Member) -> Result<kube::Cluster, Error> {
        let api = self.peers.cluster(&server.node).await;
        api.map_err(|error| Error { node: Some(server.node.clone()), ..error.into() })
    }

    pub async fn transport(&self, node: &str) -> Result<Arc<dyn Transport>, Error> {
        self.peers.transport(node).await.map_err(|error| Error::transport(node, &error))
    }

    /// Takes a node's lock: it is ours until the guard is dropped. A run that changes the node now keeps it.
    async fn lock(&self, node: &str) -> Result<Hold, Error> {
        let transport = self.transport(node).await?;
        let asked = lock::ask(&*transport, &self.holder).await;
        match asked.map_err(|error| Error::transport(node, &error))? {
            (Answer::Ours, hold) => Ok(hold),
            (Answer::Busy(who), _) => Err(Error::on(node, lock::busy(&who)).hint(lock::BUSY_HINT)),
            (Answer::LeftOver(step), _) => {
                Err(Error::on(node, format!("a step of an earlier run is still at work: {step}"))
                    .hint("wait for it to end, then run again"))
            }
        }
    }

    /// The locks of several nodes, or of none.
    async fn lock_all(&self, members: impl Iterator<Item = &Member>) -> Result<Vec<Hold>, Error> {
        let mut locks = Vec::new();
        for member in members {
            locks.push(self.lock(&member.node).await?);
        }
        Ok(locks)
    }

    /// Runs shell as root on a node. What it prints is text; anything but success is an error that quotes the end of
    /// what it said.
    async fn sh(&self, node: &str, what: &str, shell: &str, limit: Duration) -> Result<String, Error> {
        let transport = self.transport(node).await?;
        let output = transport.run(&Script::new(shell).timeout(limit)).await;
        let output = output.map_err(|error| {
            let error = Error::transport(node, &error);
            Error { message: format!("cannot {what}: {}", error.message), ..error }
        })?;
        if output.status != 0 {
            let said = printable(String::from_utf8_lossy(&output.stderr).trim());
            let last = said.lines().last().unwrap_or_default();
            return Err(Error::on(
                node,
                format!("cannot {what}: it ended with status {}: {last}", output.status),
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_with_a_role_of_the_cluster() {
        let node = |name: &str, roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            (
                name.to_owned(),
                Node { name: name.into(), hostname: format!("h-{name}"), roles, ..Node::default() },
            )
        };
        let inventory = Inventory {
            nodes: [
                node("a", &["base", "k3s-agent"]),
                node("plain", &["base"]),
                node("s", &["k3s-server"]),
                node("both", &["k3s-agent", "k3s-server"]),
            ]
            .into_iter()
            .collect(),
            ..Inventory::empty()
        };
        let members = Members::of(&inventory, |_| DATA_DIR.into());
        let names: Vec<(&str, bool)> = members.0.iter().map(|m| (m.name.as_str(), m.server)).collect();
        assert_eq!(names, [("h-s", true), ("h-both", true), ("h-a", false)]);
        assert_eq!(members.first().map(|first| first.node.clone()).map_err(|e| e.message), Ok("s".into()));
        assert!(Members::default().first().unwrap_err().to_string().contains("no node of the inventory"));
    }
}
