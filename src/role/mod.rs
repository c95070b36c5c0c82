//! Roles: `roles/<name>/role.toml` → an ordered list of resources and handlers for one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::{Place, Source};
use crate::inventory::Spans;
use crate::inventory::vars::Declarations;
use crate::resource::systemd::FailsOn;
use crate::resource::{BuildError, Resource};

mod check;
mod files;
mod load;
mod pin;
mod plan;

pub use check::{check, check_set, declarations};
pub use files::Files;
pub use pin::unpinned;
pub use plan::plan;

/// The roles that make a node a member of the cluster.
pub const SERVER: &str = "k3s-server";
pub const AGENT: &str = "k3s-agent";

/// Names that templates have besides variables; no variable may have one.
pub const RESERVED: &[&str] =
    &["facts", "node", "nodes", "by_role", "cluster", "k3s", "item", "secret", "secrets"];

/// All roles, by name, and the templates they use.
#[derive(Debug, Clone)]
pub struct Roles {
    pub roles: IndexMap<String, Role>,
    /// By `role/path`.
    pub templates: BTreeMap<String, Arc<Source>>,
    types: Types,
}

impl Roles {
    /// A role and then those it includes: the order of their resources.
    pub fn parts<'a>(&'a self, role: &'a Role) -> impl Iterator<Item = &'a Role> {
        let included = role.include.iter().filter_map(|(name, _)| self.roles.get(name));
        std::iter::once(role).chain(included)
    }

    /// The named roles that exist, each with its parts.
    pub fn parts_of<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a Role> {
        names.iter().filter_map(|name| self.roles.get(name)).flat_map(|role| self.parts(role))
    }
}

/// Makes a resource of a type from its table.
pub type Build = fn(&str, toml::Value) -> Result<Box<dyn Resource>, BuildError>;

/// The resource types roles may use: [`crate::resource::KINDS`] unless a test says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Types {
    pub names: &'static [&'static str],
    pub build: Build,
}

impl Default for Types {
    fn default() -> Self {
        Self { names: crate::resource::KINDS, build: crate::resource::build }
    }
}

/// A role as written: valid, its strings not rendered yet.
#[derive(Debug, Clone)]
pub struct Role {
    pub name: String,
    pub description: String,
    /// Roles to wait for, each with the place that says so.
    pub after: Vec<(String, Place)>,
    /// The inventory's first node that has the role has it done before the others begin.
    pub one_first: bool,
    /// Roles whose variables, resources and handlers are this one's too, each with the place that says so.
    pub include: Vec<(String, Place)>,
    pub vars: Declarations,
    pub resources: Vec<ResourceSpec>,
    pub handlers: BTreeMap<String, HandlerSpec>,
    pub source: Arc<Source>,
    /// Places of all fields of all resources.
    pub spans: Spans,
}

/// A text of a role with its place.
#[derive(Debug, Clone)]
pub struct Text {
    pub text: String,
    pub place: Place,
}

/// One `[[resource]]`.
#[derive(Debug, Clone)]
pub struct ResourceSpec {
    pub kind: &'static str,
    pub table: toml::Value,
    /// Of the table in [`Role::spans`]: `resource[3].file`.
    pub path: String,
    pub when: Option<Text>,
    pub for_each: Option<Text>,
    /// Names of handlers of the role or of one it includes, each with the place that says so.
    pub notify: Vec<(String, Place)>,
    pub place: Place,
}

/// One `[[handler]]`.
#[derive(Debug, Clone)]
pub struct HandlerSpec {
    pub action: ActionKind,
    pub when: Option<Text>,
    pub undo: Option<Text>,
    /// The node is out of the cluster's service while it runs: so for every reboot unless the role says otherwise.
    pub out_of_service: bool,
    pub place: Place,
}

/// What a handler does, its text not rendered yet.
#[derive(Debug, Clone)]
pub enum ActionKind {
    Restart(Text),
    Reload(Text),
    DaemonReload,
    Command(Text),
    Reboot,
}

/// Everything one node should be, in order. Pure data; made offline from inventory, roles and facts.
#[derive(Debug)]
pub struct NodePlan {
    pub node: String,
    pub roles: Vec<RolePlan>,
}

#[derive(Debug)]
pub struct RolePlan {
    pub name: String,
    /// What must be done on other nodes before this one starts.
    pub after: Vec<After>,
    pub resources: Vec<Planned>,
    pub handlers: BTreeMap<String, Handler>,
}

/// A role that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    pub role: String,
    /// Where; `None`: on every other node that has it.
    pub node: Option<String>,
}

impl After {
    /// Whether `node` waits for a role of another one.
    pub fn concerns(&self, node: &str, other: &str, role: &str) -> bool {
        other != node && role == self.role && self.node.as_ref().is_none_or(|only| only == other)
    }
}

/// A resource in its place in a role.
#[derive(Debug)]
pub struct Planned {
    /// `file`, `package`, …
    pub kind: &'static str,
    /// Where it is written.
    pub place: Place,
    /// Names of handlers of the same role, all known to exist.
    pub notify: Vec<String>,
    pub resource: Box<dyn Resource>,
}

impl Planned {
    /// `file /etc/hosts`
    pub fn label(&self) -> String {
        format!("{} {}", self.kind, self.resource.name())
    }
}

/// What runs once after the role that notified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    pub action: Action,
    /// POSIX sh that takes back what notified it. With it the handler counts as run only after a new login has
    /// worked; where none works within a minute the node itself runs this and then the action once more.
    pub undo: Option<String>,
    /// What the log of the unit that it restarts says when that will never get up, each with what to do about it.
    pub fails_on: FailsOn,
    /// The node of a cluster that is out of service while it runs.
    pub cluster: Option<ClusterNode>,
    pub place: Place,
}

/// A node of a Kubernetes cluster. Of those that have to go out of service in a run, one does at a time, and each is
/// waited for until it is Ready again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// A node of the inventory that is a server of the cluster.
    pub server: String,
    /// Its name in the cluster.
    pub name: String,
    /// What runs on it moves elsewhere first.
    pub drain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `systemctl restart` of a unit.
    Restart(String),
    /// `systemctl reload-or-restart` of a unit.
    Reload(String),
    DaemonReload,
    /// POSIX sh.
    Command(String),
    /// Reboots and waits for a new boot id.
    Reboot,
}

#[cfg(test)]
mod tests;
