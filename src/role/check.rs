//! What inventory and roles must agree on: names of roles, names and types of variables.

use std::collections::BTreeSet;

use super::Roles;
use crate::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::inventory::vars::{Declarations, layers};
use crate::inventory::{Inventory, Node, Vars};

/// The variables of a node's roles. Of two roles that declare the same one, the first's declaration counts.
pub fn declarations(roles: &Roles, node: &Node) -> Declarations {
    let mut declared = Declarations::new();
    for role in roles.parts_of(&node.roles) {
        for (name, declaration) in &role.vars {
            declared.entry(name.clone()).or_insert_with(|| declaration.clone());
        }
    }
    declared
}

/// Checks an inventory against the roles: unknown roles, variables that no role of any node declares, values
/// of a wrong type. Each mistake once, however many nodes it concerns.
pub fn check(inventory: &Inventory, roles: &Roles) -> Result<(), Diagnostics> {
    let mut errors = Vec::new();
    let groups = inventory.groups.iter().map(|(name, group)| (format!("groups.{name}"), &group.roles));
    for (prefix, written) in groups {
        unknown_roles(inventory, roles, &format!("{prefix}.roles"), written, &mut errors);
    }
    let components = &inventory.cluster.components;
    unknown_roles(inventory, roles, "cluster.components", components, &mut errors);
    for node in inventory.nodes.values() {
        let of_groups = |role: &String| {
            node.groups
                .iter()
                .any(|group| inventory.groups.get(group).is_some_and(|g| g.roles.contains(role)))
        };
        let elsewhere = |role: &String| of_groups(role) || components.contains(role);
        let own: Vec<String> = node.roles.iter().filter(|role| !elsewhere(role)).cloned().collect();
        unknown_roles(inventory, roles, &format!("nodes.{}.roles", node.name), &own, &mut errors);
    }

    // A misspelt role takes its variables with it: complaining of those too would only hide the one mistake.
    let roles_known = errors.is_empty();
    let mut all = BTreeSet::new();
    for node in inventory.nodes.values() {
        all.extend(declarations(roles, node).into_keys());
    }
    two_types(inventory, roles, &mut errors);
    let mut seen = BTreeSet::new();
    for node in inventory.nodes.values() {
        let declared = declarations(roles, node);
        for layer in layers(inventory, node) {
            for (name, value) in layer.vars {
                let path = layer.path(name);
                if !all.contains(name) {
                    if roles_known && seen.insert(path.clone()) {
                        let mut error = Diagnostic::new(format!("unknown variable `{name}`"))
                            .label("no role of any node declares it")
                            .help(suggest(name, all.iter().map(String::as_str)));
                        error.place = inventory.key_place(&path);
                        errors.push(error);
                    }
                } else if let Some(Err(mut error)) = declared.get(name).map(|d| d.check(name, value))
                    && seen.insert(path.clone())
                {
                    error.place = inventory.value_place(&path);
                    errors.push(error);
                }
            }
        }
    }
    errors.sort_by_key(|error| error.place.as_ref().map(|place| (place.path().to_owned(), place.span.start)));
    if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
}

/// Checks `--set` variables: each must be one that a role of one of the nodes declares.
pub fn check_set(
    inventory: &Inventory,
    roles: &Roles,
    nodes: &[String],
    set: &Vars,
) -> Result<(), Diagnostics> {
    let nodes = nodes.iter().filter_map(|name| inventory.nodes.get(name));
    let declared: BTreeSet<String> = nodes.flat_map(|node| declarations(roles, node).into_keys()).collect();
    let unknown = set.keys().filter(|name| !declared.contains(*name));
    let errors: Vec<Diagnostic> = unknown
        .map(|name| {
            Diagnostic::new(format!("--set {name}: no role of these nodes declares the variable `{name}`"))
                .help(suggest(name, declared.iter().map(String::as_str)))
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
}

/// Two roles of one node may share a variable, but not disagree on its type.
fn two_types(inventory: &Inventory, roles: &Roles, errors: &mut Vec<Diagnostic>) {
    for node in inventory.nodes.values() {
        let declared = declarations(roles, node);
        for role in roles.parts_of(&node.roles) {
            for (name, second) in &role.vars {
                let Some(first) = declared.get(name).filter(|first| first.kind != second.kind) else {
                    continue;
                };
                let error = Diagnostic::new(format!(
                    "`{name}` is {} here and {} at {}",
                    second.kind.phrase(),
                    first.kind.phrase(),
                    first.place
                ))
                .at(second.place.clone())
                .label(format!("node {} has both roles", node.name))
                .help("give both the same type, or one of them another name");
                if !errors.iter().any(|known| known.place == error.place) {
                    errors.push(error);
                }
            }
        }
    }
}

fn unknown_roles(
    inventory: &Inventory,
    roles: &Roles,
    list: &str,
    written: &[String],
    errors: &mut Vec<Diagnostic>,
) {
    for role in written.iter().filter(|role| !roles.roles.contains_key(*role)) {
        let mut error = Diagnostic::new(format!("unknown role `{role}`"))
            .label("no such role")
            .help(suggest(role, roles.roles.keys().map(String::as_str)));
        error.place = inventory.element_place(list, role);
        errors.push(error);
    }
}
