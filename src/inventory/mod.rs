//! The inventory: `inventory/datahub.toml`, typed and checked, every mistake with its place.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::artifact::lock::Lock;
use crate::diagnostic::{Place, Source};
use crate::probe::Facts;

pub(crate) mod document;
mod k3s;
pub(crate) mod load;
mod target;
pub mod vars;

pub use document::{Span, Spans};
pub use k3s::{K3s, Transfer};
pub use load::load;

/// What a node's `arch` may be, by Debian's names.
pub const ARCHES: &[&str] = &["amd64", "arm64", "armhf"];

/// Variables: TOML values by name, in the order written.
pub type Vars = IndexMap<String, toml::Value>;

/// The whole inventory, valid.
#[derive(Debug, Clone)]
pub struct Inventory {
    pub source: Arc<Source>,
    /// The folder of datahub.toml.
    pub dir: PathBuf,
    pub cluster: Cluster,
    pub ssh: Ssh,
    pub groups: IndexMap<String, Group>,
    pub nodes: IndexMap<String, Node>,
    /// Where `secret("name")` looks beside the environment.
    pub secrets: SecretSources,
    /// `None` without a `[k3s]`.
    pub k3s: Option<K3s>,
    /// `datahub.lock` beside the inventory; empty where there is none yet.
    pub lock: Lock,
    /// Places of variables (`nodes.orpi-1.vars.timezone`, `groups.sbc.vars.…`, `cluster.vars.…`), of roles and
    /// groups in lists (`nodes.orpi-1.roles[0]`), and of `k3s.version`.
    pub spans: Spans,
}

impl Inventory {
    /// An inventory of no nodes, to build on in tests.
    pub fn empty() -> Self {
        Self {
            source: Source::new("datahub.toml", ""),
            dir: PathBuf::new(),
            cluster: Cluster::default(),
            ssh: Ssh::default(),
            groups: IndexMap::new(),
            nodes: IndexMap::new(),
            secrets: SecretSources::default(),
            k3s: None,
            lock: Lock::default(),
            spans: Spans::default(),
        }
    }

    /// The place of a variable's name, or of a list's element.
    pub fn key_place(&self, path: &str) -> Option<Place> {
        Some(Place::new(&self.source, self.spans.nearest(path)?.key.clone()))
    }

    /// The place of a word in a list of words: `groups.all.roles`, `base`.
    pub fn element_place(&self, list: &str, word: &str) -> Option<Place> {
        let quoted = |quote: char| format!("{quote}{word}{quote}");
        (0..)
            .map_while(|at| self.spans.exact(&format!("{list}[{at}]")))
            .find(|span| {
                let text = &self.source.text[span.value.clone()];
                text == quoted('"') || text == quoted('\'')
            })
            .map(|span| Place::new(&self.source, span.value.clone()))
    }

    /// The place of a value.
    pub fn value_place(&self, path: &str) -> Option<Place> {
        Some(Place::new(&self.source, self.spans.nearest(path)?.value.clone()))
    }
}

/// `[secrets]`: where secrets are kept. `secrets/<name>.age` beside the inventory is always looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSources {
    /// An age identity file; default `~/.config/datahub/identity`.
    pub identity: Option<PathBuf>,
    /// A command that prints a secret; `{name}` in its words stands for the secret's name.
    pub command: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub name: String,
    /// Roles whose resources are the cluster's own objects, in the order in which they are installed.
    pub components: Vec<String>,
    pub vars: Vars,
}

/// How to log in. Every field may also stand under a node, which wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssh {
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity_file: Option<PathBuf>,
    /// `[user@]host[:port]`, comma-separated when there are several hops.
    pub proxy_jump: Option<String>,
    pub host_keys: HostKeys,
    /// A pinned key, `ssh-ed25519 AAAA…`: known_hosts is then not asked.
    pub host_key: Option<String>,
}

/// What to do about a host key that is not known. A changed one is always refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeys {
    #[default]
    Strict,
    AcceptNew,
}

#[derive(Debug, Clone, Default)]
pub struct Group {
    pub roles: Vec<String>,
    pub vars: Vars,
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: String,
    /// Address or name to connect to; `local` for this machine.
    pub host: String,
    /// Numeric address under which the other nodes know it; `None`: `host` is asked of the name service.
    pub address: Option<IpAddr>,
    pub hostname: String,
    /// `amd64`, `arm64`.
    pub arch: String,
    /// `debian-13`, `ubuntu-24.04`.
    pub os: String,
    /// In order: those of its groups, then its own; each once.
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    pub labels: IndexMap<String, String>,
    pub taints: Vec<String>,
    pub disks: Vec<toml::Value>,
    pub vars: Vars,
    /// `[ssh]` with the node's own fields laid over it.
    pub ssh: Ssh,
    /// Set in the lab: the architecture and release are the stand-in's, not the inventory's; says so.
    pub stand_in: Option<String>,
}

/// What an inventory claims about a node, as facts: for planning without a connection.
pub fn claimed(node: &Node) -> Facts {
    let (os, version) = node.os.split_once('-').unwrap_or((&node.os, ""));
    Facts {
        hostname: node.hostname.clone(),
        arch: node.arch.clone(),
        os: os.to_owned(),
        os_version: version.to_owned(),
        login_user: node.ssh.user.clone().unwrap_or_else(|| "root".into()),
        ..Facts::default()
    }
}

/// Refuses a machine that is not the one the inventory means: the reason, and what to do about it.
///
/// The host name is only refused when it is another node's: a fresh machine may have any.
pub fn check_claims(inventory: &Inventory, node: &Node, facts: &Facts) -> Result<(), String> {
    let other = inventory.nodes.values().find(|n| n.name != node.name && n.hostname == facts.hostname);
    if let Some(other) = other.filter(|_| facts.hostname != node.hostname) {
        return Err(format!(
            "the machine at {} is `{}`, which is the node {} and not {}: correct `host` in the inventory, or rename the machine",
            node.host, facts.hostname, other.name, node.name
        ));
    }
    if node.stand_in.is_some() {
        return Ok(());
    }
    let os = format!("{}-{}", facts.os, facts.os_version);
    for (what, claim, seen) in [("arch", &node.arch, &facts.arch), ("os", &node.os, &os)] {
        if claim != seen {
            return Err(format!(
                "the inventory says {what} = \"{claim}\" for {}, but the machine at {} is {seen}: correct `{what}` or `host` in the inventory",
                node.name, node.host
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_machine_is_refused() {
        let node = |name: &str, hostname: &str| Node {
            name: name.into(),
            host: format!("{hostname}.home.arpa"),
            hostname: hostname.into(),
            arch: "arm64".into(),
            os: "debian-13".into(),
            ..Node::default()
        };
        let nodes = [node("a", "host-a"), node("b", "host-b")].into_iter().map(|n| (n.name.clone(), n));
        let inventory = Inventory { nodes: nodes.collect(), ..Inventory::empty() };
        let good = claimed(&inventory.nodes["a"]);
        type Change = fn(&mut Facts);
        let cases: [(&str, Change, Option<&str>); 5] = [
            ("as claimed", |_| (), None),
            ("fresh", |f| f.hostname = "localhost".into(), None),
            ("another", |f| f.hostname = "host-b".into(), Some("which is the node b and not a")),
            ("arch", |f| f.arch = "amd64".into(), Some("arch = \"arm64\" for a")),
            ("os", |f| f.os_version = "12".into(), Some("is debian-12")),
        ];
        for (case, change, expected) in cases {
            let mut facts = good.clone();
            change(&mut facts);
            let refused = check_claims(&inventory, &inventory.nodes["a"], &facts).err();
            match expected {
                None => assert_eq!(refused, None, "{case}"),
                Some(text) => {
                    assert!(refused.as_deref().is_some_and(|r| r.contains(text)), "{case}: {refused:?}")
                }
            }
            let lab = Node { stand_in: Some("container".into()), ..inventory.nodes["a"].clone() };
            let refused = check_claims(&inventory, &lab, &facts).is_err();
            assert_eq!(refused, case == "another", "{case} in the lab");
        }
    }
}
