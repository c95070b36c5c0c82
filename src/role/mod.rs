//! Roles: `roles/<name>/role.toml` → an ordered list of resources and handlers for one node.

use std::collections::BTreeMap;

use crate::diagnostic::Place;
use crate::resource::Resource;

/// Everything one node should be, in order. Pure data; made offline from inventory, roles and facts.
#[derive(Debug)]
pub struct NodePlan {
    pub node: String,
    pub roles: Vec<RolePlan>,
}

#[derive(Debug)]
pub struct RolePlan {
    pub name: String,
    /// Roles that must be done on every other node that has them before this one starts.
    pub after: Vec<String>,
    pub resources: Vec<Planned>,
    pub handlers: BTreeMap<String, Handler>,
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
    pub place: Place,
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
