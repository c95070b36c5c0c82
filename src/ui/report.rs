//! What a run has come to so far, gathered from its events: nodes in the inventory's order, roles and resources in
//! the plan's. Everything shown after a run is made from this.

use indexmap::{IndexMap, IndexSet};

use super::own::Own;
use crate::engine::event::{Event, Failure, Summary};
use crate::resource::Difference;

#[derive(Debug, Default)]
pub struct Report {
    pub dry_run: bool,
    pub nodes: IndexMap<String, Node>,
    /// Each note once, in the order they came.
    pub notes: IndexMap<String, Subjects>,
    pub milliseconds: u64,
}

/// What a note is about.
#[derive(Debug, Default)]
pub struct Subjects {
    pub resources: IndexSet<String>,
    pub nodes: IndexSet<String>,
}

impl Subjects {
    pub fn resources(&self) -> String {
        self.resources.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// In the inventory's order.
    pub fn nodes(&self, report: &Report) -> String {
        let named = report.nodes.keys().filter(|node| self.nodes.contains(*node));
        named.map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Debug, Default)]
pub struct Node {
    /// What is its own in texts that are otherwise the same on other nodes.
    pub own: Own,
    pub roles: Vec<Role>,
    pub end: End,
    pub summary: Summary,
}

#[derive(Debug, Default)]
pub enum End {
    /// Still running, or never heard of again.
    #[default]
    Open,
    Done,
    Failed(Failure),
    /// Not finished because something it depends on failed.
    Skipped(Failure),
    Interrupted,
}

#[derive(Debug)]
pub struct Role {
    pub name: String,
    pub resources: Vec<Resource>,
    pub handlers: Vec<Handler>,
}

#[derive(Debug)]
pub struct Resource {
    /// `file /etc/hosts`
    pub label: String,
    pub found: Found,
}

#[derive(Debug)]
pub enum Found {
    Differs {
        place: String,
        differences: Vec<Difference>,
        notify: Vec<String>,
        /// Made so and read back.
        changed: bool,
    },
    Unknown {
        place: String,
        reason: String,
    },
}

#[derive(Debug)]
pub struct Handler {
    /// `restart ssh.service`
    pub what: String,
    pub left_over: bool,
    pub run: bool,
}

impl Found {
    fn make_changed(&mut self) {
        if let Self::Differs { changed, .. } = self {
            *changed = true;
        }
    }
}

impl Report {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::RunStarted { dry_run, nodes, .. } => {
                self.dry_run = *dry_run;
                let node = |name: &String| Node { own: Own::new(name, "", None), ..Node::default() };
                self.nodes = nodes.iter().map(|name| (name.clone(), node(name))).collect();
            }
            Event::RunFinished { milliseconds, .. } => self.milliseconds = *milliseconds,
            Event::Differs { node, role, resource, place, differences, notify } => {
                self.role(node, role).resources.push(Resource {
                    label: resource.clone(),
                    found: Found::Differs {
                        place: place.clone(),
                        differences: differences.clone(),
                        notify: notify.clone(),
                        changed: false,
                    },
                });
            }
            Event::Changed { node, role, resource, .. } => {
                let resources = &mut self.role(node, role).resources;
                for found in resources.iter_mut().filter(|found| found.label == *resource) {
                    found.found.make_changed();
                }
            }
            Event::Unknown { node, role, resource, place, reason } => {
                let found = Found::Unknown { place: place.clone(), reason: reason.clone() };
                self.role(node, role).resources.push(Resource { label: resource.clone(), found });
            }
            Event::Note { node, resource, note, .. } => {
                let subjects = self.notes.entry(note.clone()).or_default();
                subjects.resources.insert(resource.clone());
                subjects.nodes.insert(node.clone());
            }
            Event::HandlerPending { node, role, handler, left_over } => self
                .role(node, role)
                .handlers
                .push(Handler { what: handler.clone(), left_over: *left_over, run: false }),
            Event::HandlerRun { node, role, handler, .. } => {
                let handlers = &mut self.role(node, role).handlers;
                if let Some(pending) = handlers.iter_mut().find(|pending| pending.what == *handler) {
                    pending.run = true;
                }
            }
            Event::Connecting { node, hostname, ip, .. } => {
                self.node(node).own = Own::new(node, hostname, ip.as_deref());
            }
            Event::NodeFinished { node, summary } => self.end(node, End::Done, summary),
            Event::Interrupted { node, summary } => self.end(node, End::Interrupted, summary),
            Event::NodeSkipped { node, role, reason } => {
                let failure = Failure {
                    message: format!("role {role} was skipped: {reason}"),
                    role: Some(role.clone()),
                    resource: None,
                    place: None,
                    output: Vec::new(),
                    hint: None,
                };
                self.node(node).end = End::Skipped(failure);
            }
            Event::NodeFailed { node, failure, summary } => {
                let end = match self.node(node).end {
                    End::Skipped(_) => End::Skipped(failure.clone()),
                    _ => End::Failed(failure.clone()),
                };
                self.end(node, end, summary);
            }
            Event::Connected { .. }
            | Event::Waiting { .. }
            | Event::RoleStarted { .. }
            | Event::Step { .. }
            | Event::RoleFinished { .. }
            | Event::Retrying { .. } => {}
        }
    }

    /// What was found of a resource, if it is not as described.
    pub fn found(&self, node: &str, role: &str, resource: &str) -> Option<&Found> {
        let role = self.nodes.get(node)?.roles.iter().find(|known| known.name == role)?;
        role.resources.iter().find(|found| found.label == resource).map(|found| &found.found)
    }

    /// Nodes whose end is of a kind, by name.
    pub fn ended(&self, kind: impl Fn(&End) -> bool) -> Vec<&str> {
        self.nodes.iter().filter(|(_, node)| kind(&node.end)).map(|(name, _)| name.as_str()).collect()
    }

    /// A figure of all nodes together.
    pub fn total(&self, figure: impl Fn(&Summary) -> usize) -> usize {
        self.nodes.values().map(|node| figure(&node.summary)).sum()
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.entry(name.to_owned()).or_default()
    }

    fn role(&mut self, node: &str, name: &str) -> &mut Role {
        let roles = &mut self.node(node).roles;
        let at = roles.iter().position(|role| role.name == name).unwrap_or_else(|| {
            roles.push(Role { name: name.to_owned(), resources: Vec::new(), handlers: Vec::new() });
            roles.len() - 1
        });
        &mut roles[at]
    }

    fn end(&mut self, node: &str, end: End, summary: &Summary) {
        let node = self.node(node);
        node.end = end;
        node.summary = summary.clone();
    }
}
