//! Custom resource definitions: their names are accepted at once, their resources served a moment later; one that
//! goes takes its objects along.

use serde_json::Value;

use super::Tools;
use crate::lab::k3s::{levers, object, resources};

pub fn step(tools: &Tools<'_>) {
    for definition in tools.list(resources::DEFINITIONS) {
        match object::is_going(&definition) {
            true => empty(tools, &definition),
            false if !resources::is_established(&definition) => accept(tools, &definition),
            false => {}
        }
    }
}

fn accept(tools: &Tools<'_>, definition: &Value) {
    let lever = levers::DEFINITION_UNESTABLISHED;
    let is_held = levers::rule(tools.settings, lever, object::name(definition)).is_some();
    let what = format!("established {}", object::uid(definition));
    let established = !is_held && tools.has_passed(tools.settings.moment, what);
    tools.modify_status(resources::DEFINITIONS, definition, |definition| {
        resources::accept(definition, established);
    });
}

/// Deletes a definition's objects; the last one lets it go.
fn empty(tools: &Tools<'_>, definition: &Value) {
    let id = object::name(definition);
    let objects = tools.list(id);
    if objects.is_empty() {
        let strike = |definition: &mut Value| object::strike_finalizer(definition, resources::CLEANUP);
        tools.modify(resources::DEFINITIONS, definition, strike);
        return;
    }
    tools.modify_status(resources::DEFINITIONS, definition, |definition| {
        let message = "CustomResource deletion is in progress";
        object::set_condition(definition, "Terminating", "True", "InstanceDeletionInProgress", message);
    });
    for found in objects.iter().filter(|found| !object::is_going(found)) {
        tools.delete(id, found);
    }
}
