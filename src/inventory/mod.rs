//! The inventory: `inventory/datahub.toml`, typed and checked, every mistake with its place.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::diagnostic::Source;

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
}

#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub name: String,
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
