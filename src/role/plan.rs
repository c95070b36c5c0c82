//! Inventory and roles and facts → what one node should be. Pure: no connection, no clock.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use minijinja::Value;

use super::load::at_text;
use super::{
    AGENT, Action, ActionKind, After, ClusterNode, Handler, NodePlan, Planned, ResourceSpec, Role, RolePlan,
    Roles, SERVER, Text,
};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, suggest};
use crate::inventory::{Inventory, Node, Vars, vars};
use crate::probe::Facts;
use crate::resource::BuildError;
use crate::secret::Secrets;
use crate::template::{Context, Fault, Templates};

/// Plans one node: its roles in order (`after` respected among them), every string rendered, every resource
/// built. All mistakes at once. `only_roles` leaves out the others; `set` are the `--set` variables.
pub fn plan(
    inventory: &Inventory,
    roles: &Roles,
    node: &str,
    facts: &Facts,
    set: &Vars,
    only_roles: Option<&[String]>,
    secrets: &Secrets,
) -> Result<NodePlan, Diagnostics> {
    let Some(node) = inventory.nodes.get(node) else {
        let help = suggest(node, inventory.nodes.keys().map(String::as_str));
        return Err(Diagnostics(vec![Diagnostic::new(format!("unknown node `{node}`")).help(help)]));
    };
    let mut errors = Vec::new();
    for role in only_roles.unwrap_or_default().iter().chain(&node.roles) {
        if !roles.roles.contains_key(role) {
            let mut error = Diagnostic::new(format!("unknown role `{role}`"));
            error.help = Some(suggest(role, roles.roles.keys().map(String::as_str)));
            errors.push(error);
        }
    }
    let declared = super::declarations(roles, node);
    let merged = vars::merged(inventory, node, &declared, set).unwrap_or_else(|mistakes| {
        errors.extend(mistakes.0);
        IndexMap::new()
    });
    if !errors.is_empty() {
        return Err(Diagnostics(errors));
    }

    let templates = Templates::new(secrets, &roles.templates);
    let mut planner = Planner { inventory, node, roles, secrets, templates, errors, places: BTreeMap::new() };
    let context =
        context(inventory, roles, node, facts, merged.iter().map(|(name, (value, _))| (name, value)));
    let wanted = |name: &&Role| only_roles.is_none_or(|only| only.contains(&name.name));
    let planned =
        in_order(roles, node).into_iter().filter(wanted).map(|role| planner.role(role, &context)).collect();
    if planner.errors.is_empty() {
        Ok(NodePlan { node: node.name.clone(), roles: planned })
    } else {
        Err(Diagnostics(planner.errors))
    }
}

/// The node's roles in its order, but each behind those it is `after`. There are no cycles: loading refused them.
fn in_order<'a>(roles: &'a Roles, node: &Node) -> Vec<&'a Role> {
    fn add<'a>(roles: &'a Roles, node: &Node, name: &str, ordered: &mut Vec<&'a Role>) {
        let Some(role) = roles.roles.get(name) else { return };
        if !node.roles.iter().any(|own| own == name) || ordered.iter().any(|done| done.name == name) {
            return;
        }
        for (earlier, _) in &role.after {
            add(roles, node, earlier, ordered);
        }
        ordered.push(role);
    }
    let mut ordered = Vec::new();
    for name in &node.roles {
        add(roles, node, name, &mut ordered);
    }
    ordered
}

fn context<'a>(
    inventory: &Inventory,
    roles: &Roles,
    node: &Node,
    facts: &Facts,
    vars: impl Iterator<Item = (&'a String, &'a toml::Value)>,
) -> Context {
    let of_nodes: BTreeMap<&str, BTreeMap<String, toml::Value>> =
        inventory.nodes.values().map(|node| (node.name.as_str(), vars_of(inventory, roles, node))).collect();
    let describe = |node: &Node| {
        serde_json::json!({
            "name": node.name, "hostname": node.hostname, "host": node.host, "address": node.address,
            "arch": node.arch, "os": node.os,
            "groups": node.groups, "roles": node.roles, "labels": node.labels, "taints": node.taints,
            "disks": node.disks, "vars": of_nodes.get(node.name.as_str()),
        })
    };
    let mut context = Context::default();
    for (name, value) in vars {
        context.set(name, value);
    }
    context.set("facts", facts);
    context.set("node", &describe(node));
    context.set("nodes", &inventory.nodes.values().map(describe).collect::<Vec<_>>());
    let mut by_role: BTreeMap<&str, Vec<_>> =
        roles.roles.keys().map(|role| (role.as_str(), Vec::new())).collect();
    for node in inventory.nodes.values() {
        for role in &node.roles {
            by_role.entry(role).or_default().push(describe(node));
        }
    }
    context.set("by_role", &by_role);
    context.set("cluster", &serde_json::json!({ "name": inventory.cluster.name }));
    if let Some(k3s) = super::pin::describe(inventory, &facts.arch) {
        context.set("k3s", &k3s);
    }
    context
}

/// A node's variables, for what other nodes have to know of it. Mistakes in them are told when it is planned itself.
fn vars_of(inventory: &Inventory, roles: &Roles, node: &Node) -> BTreeMap<String, toml::Value> {
    let declared = super::declarations(roles, node);
    let merged = vars::merged(inventory, node, &declared, &Vars::new()).unwrap_or_default();
    merged.into_iter().map(|(name, (value, _))| (name, value)).collect()
}

/// What a node is to its cluster; `None` if it is no member of one.
fn cluster_node(inventory: &Inventory, node: &Node) -> Option<ClusterNode> {
    let has = |node: &Node, role| node.roles.iter().any(|own| own == role);
    let is_server = has(node, SERVER);
    let server = inventory.nodes.values().find(|other| has(other, SERVER))?;
    (is_server || has(node, AGENT)).then(|| ClusterNode {
        server: server.name.clone(),
        name: node.hostname.clone(),
        drain: !is_server,
    })
}

struct Planner<'a> {
    inventory: &'a Inventory,
    node: &'a Node,
    roles: &'a Roles,
    secrets: &'a Secrets,
    templates: Templates,
    errors: Vec<Diagnostic>,
    /// Of every resource planned so far, by its label.
    places: BTreeMap<String, Place>,
}

/// A table being rendered: where its fields' places are.
struct Body<'a> {
    role: &'a Role,
    spec: &'a ResourceSpec,
    context: &'a Context,
}

impl Body<'_> {
    /// The path in the role's spans of a path within the table.
    fn path(&self, path: &str) -> String {
        match path {
            "" | "." => self.spec.path.clone(),
            _ => format!("{}.{path}", self.spec.path),
        }
    }
}

impl Planner<'_> {
    fn role(&mut self, role: &Role, context: &Context) -> RolePlan {
        let roles = self.roles;
        let mut resources = Vec::new();
        for part in roles.parts(role) {
            resources.extend(part.resources.iter().flat_map(|spec| self.resource(part, spec, context)));
        }
        let mut handlers = BTreeMap::new();
        for (name, spec) in roles.parts(role).flat_map(|part| &part.handlers) {
            if !spec.when.as_ref().is_none_or(|when| self.condition(when, context)) {
                // It stays in the plan: what an earlier run left pending is still to be run.
                resources.iter_mut().for_each(|resource| resource.notify.retain(|notified| notified != name));
            }
            let cluster = if spec.out_of_service { cluster_node(self.inventory, self.node) } else { None };
            let mut text = |text: &Text| self.text(text, context);
            let undo = spec.undo.as_ref().and_then(&mut text);
            let action = match &spec.action {
                ActionKind::Restart(unit) => text(unit).map(Action::Restart),
                ActionKind::Reload(unit) => text(unit).map(Action::Reload),
                ActionKind::Command(script) => text(script).map(Action::Command),
                ActionKind::DaemonReload => Some(Action::DaemonReload),
                ActionKind::Reboot => Some(Action::Reboot),
            };
            if let Some(action) = action {
                let fails_on = match &action {
                    Action::Restart(unit) => resources.iter().find_map(|r| r.resource.fails_on(unit)),
                    _ => None,
                };
                let (fails_on, place) = (fails_on.cloned().unwrap_or_default(), spec.place.clone());
                let handler = Handler { name: name.clone(), action, undo, fails_on, cluster, place };
                handlers.insert(name.clone(), handler);
            }
        }
        let mut after: Vec<After> =
            role.after.iter().map(|(role, _)| After { role: role.clone(), node: None }).collect();
        if role.one_first {
            let has = |node: &&Node| node.roles.contains(&role.name);
            let node = self.inventory.nodes.values().find(has).map(|node| node.name.clone());
            after.push(After { role: role.name.clone(), node });
        }
        RolePlan { name: role.name.clone(), after, resources, handlers }
    }

    fn resource(&mut self, role: &Role, spec: &ResourceSpec, context: &Context) -> Vec<Planned> {
        let Some(list) = &spec.for_each else {
            return self.one(role, spec, context).into_iter().collect();
        };
        match self.templates.list(&list.text, context) {
            Ok(items) => items
                .into_iter()
                .filter_map(|item: Value| self.one(role, spec, &context.with_item(item)))
                .collect(),
            Err(fault) => {
                self.fault(&fault, &list.place, &list.text);
                Vec::new()
            }
        }
    }

    /// A condition with a mistake in it does not hold.
    fn condition(&mut self, when: &Text, context: &Context) -> bool {
        self.templates.condition(&when.text, context).unwrap_or_else(|fault| {
            self.fault(&fault, &when.place, &when.text);
            false
        })
    }

    fn one(&mut self, role: &Role, spec: &ResourceSpec, context: &Context) -> Option<Planned> {
        if !spec.when.as_ref().is_none_or(|when| self.condition(when, context)) {
            return None;
        }
        self.templates.take_used_secret();
        let mistakes = self.errors.len();
        let body = Body { role, spec, context };
        let table = self.render(&body, &spec.table, "");
        let table = self.template(&body, table?)?;
        let table = self.pin(&body, table)?;
        if self.errors.len() > mistakes {
            return None;
        }
        match (self.roles.types.build)(spec.kind, table) {
            Ok(resource) => {
                let planned = Planned {
                    kind: spec.kind,
                    place: spec.place.clone(),
                    notify: spec.notify.iter().map(|(handler, _)| handler.clone()).collect(),
                    resource,
                };
                self.unique(planned)
            }
            Err(error) => {
                self.build_error(&body, &error);
                None
            }
        }
    }

    /// Puts the rendered file in the place of `template`, and says so when a secret is in the table.
    fn template(&mut self, body: &Body<'_>, table: toml::Value) -> Option<toml::Value> {
        let toml::Value::Table(mut table) = table else { return Some(table) };
        if let Some(toml::Value::String(name)) = table.remove("template") {
            let name = format!("{}/{name}", body.role.name);
            let path = body.path("template");
            let span = body.role.spans.nearest(&path).map_or(0..0, |span| span.value.clone());
            let place = Place::new(&body.role.source, span);
            if !self.roles.templates.contains_key(&name) {
                let message = format!("the template `{name}` does not exist");
                self.errors.push(Diagnostic::new(message).at(place).label("no such file"));
                return None;
            }
            match self.templates.file(&name, body.context) {
                Ok(content) => table.insert("content".to_owned(), content.into()),
                Err(fault) => {
                    self.fault(&fault, &place, &name);
                    return None;
                }
            };
        }
        if self.templates.take_used_secret() {
            table.insert("secret".to_owned(), true.into());
        }
        Some(toml::Value::Table(table))
    }

    /// Puts what the lock file knows of a release's file into an artifact.
    fn pin(&mut self, body: &Body<'_>, mut table: toml::Value) -> Option<toml::Value> {
        if body.spec.kind != "artifact" {
            return Some(table);
        }
        let fields = table.as_table_mut()?;
        // Without a name, or with one that is no text, building it says what is wrong.
        if let Some(file) = fields.get("file").and_then(|file| file.as_str()) {
            match super::pin::pin(self.inventory, file) {
                Ok(pin) => fields.insert("pin".to_owned(), toml::Value::try_from(pin).ok()?),
                Err(mut error) => {
                    let span = body.role.spans.nearest(&body.path("file")).map(|span| span.value.clone());
                    let here = || Place::new(&body.role.source, span.unwrap_or_default());
                    error.place = Some(error.place.unwrap_or_else(here));
                    if !self.errors.contains(&error) {
                        self.errors.push(error);
                    }
                    return None;
                }
            };
        }
        Some(table)
    }

    /// Renders every string in a value; `None` is left out of the table or list it would stand in.
    fn render(&mut self, body: &Body<'_>, value: &toml::Value, path: &str) -> Option<toml::Value> {
        match value {
            toml::Value::String(text) => match self.templates.field(text, body.context) {
                Ok(value) => value,
                Err(fault) => {
                    let span = body.role.spans.nearest(&body.path(path)).map_or(0..0, |s| s.value.clone());
                    self.fault(&fault, &Place::new(&body.role.source, span), text);
                    None
                }
            },
            toml::Value::Array(list) => {
                let elements = list.iter().enumerate();
                let rendered =
                    elements.filter_map(|(at, value)| self.render(body, value, &format!("{path}[{at}]")));
                Some(toml::Value::Array(rendered.collect()))
            }
            toml::Value::Table(table) => {
                let mut rendered = toml::Table::new();
                for (key, value) in table {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    if let Some(value) = self.render(body, value, &path) {
                        rendered.insert(key.clone(), value);
                    }
                }
                Some(toml::Value::Table(rendered))
            }
            other => Some(other.clone()),
        }
    }

    fn text(&mut self, text: &Text, context: &Context) -> Option<String> {
        self.templates.take_used_secret();
        let rendered = self.templates.field(&text.text, context);
        if self.templates.take_used_secret() {
            let error =
                Diagnostic::new("a handler may not hold a secret").at(text.place.clone()).label("here");
            self.errors
                .push(error.help("put the secret into a file of mode 0600 and let the command read that"));
            return None;
        }
        match rendered {
            Ok(Some(toml::Value::String(text))) => Some(text),
            Ok(other) => {
                let what = other.map_or("none", |value| value.type_str());
                let error = Diagnostic::new(format!("a handler needs a string, not {what}"));
                self.errors.push(error.at(text.place.clone()).label("here"));
                None
            }
            Err(fault) => {
                self.fault(&fault, &text.place, &text.text);
                None
            }
        }
    }

    fn unique(&mut self, planned: Planned) -> Option<Planned> {
        let label = planned.label();
        if self.secrets.redact(&label) != label {
            let error = Diagnostic::new(format!("the name of a {} may not hold a secret", planned.kind))
                .at(planned.place.clone())
                .label("its name is shown");
            self.errors.push(error.help("names stand in plans and logs: use secret() in the content only"));
            return None;
        }
        if let Some(first) = self.places.get(&label) {
            let message = format!("{label} is planned twice: at {first} and at {}", planned.place);
            let error = Diagnostic::new(message).at(planned.place.clone()).label("the second time");
            self.errors.push(error.help("merge the two, or tell them apart with `when`"));
            return None;
        }
        self.places.insert(label, planned.place.clone());
        Some(planned)
    }

    fn fault(&mut self, fault: &Fault, place: &Place, text: &str) {
        let error = at_text(fault, &self.roles.templates, &place.source, place.span.clone(), text);
        // A template used by several resources has its mistake once.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn build_error(&mut self, body: &Body<'_>, error: &BuildError) {
        let spans = &body.role.spans;
        let unknown = error.message.starts_with("unknown field");
        let path = body.path(&error.path);
        let span = spans
            .nearest(&path)
            .map(|span| if unknown || path == body.spec.path { &span.key } else { &span.value });
        let span = span.cloned().unwrap_or_else(|| body.spec.place.span.clone());
        let place = Place::new(&body.role.source, span);
        let kind = body.spec.kind;

        // A wrong value is quoted in the message, and may be a secret.
        let message = self.secrets.redact(&error.message);
        let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let diagnostic = match words.split_first() {
            Some((&"secret", _)) if unknown => Diagnostic::new(format!("a {kind} may not hold a secret"))
                .label("it would be shown")
                .help("use secret() in a type that has a `secret` field, such as file"),
            Some((word, valid)) if unknown => Diagnostic::new(format!("unknown key `{word}` in {kind}"))
                .label("not a key here")
                .help(suggest(word, valid.iter().copied())),
            _ => {
                // The rest repeats the path, which the place shows.
                let first = message.lines().next().unwrap_or_default();
                Diagnostic::new(format!("{kind}: {first}")).label("here")
            }
        };
        let diagnostic = diagnostic.at(place);
        if !self.errors.contains(&diagnostic) {
            self.errors.push(diagnostic);
        }
    }
}
