//! `datahub inventory`: the nodes, or one node with its variables and where each comes from.

use serde_json::json;

use super::problem::Problem;
use super::project::Project;
use super::{Exit, Global, Shape, Ui};
use crate::diagnostic::suggest;
use crate::inventory::vars::merged;
use crate::inventory::{Node, Vars};
use crate::role;

/// List the nodes, or show one node's variables and where each comes from
#[derive(clap::Args)]
pub struct Inventory {
    /// A node: show its variables
    node: Option<String>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Shape,
}

impl Inventory {
    pub fn run(self, global: &Global, ui: &Ui) -> anyhow::Result<Exit> {
        let project = Project::load(global, ui)?.with_components();
        match &self.node {
            None => self.list(&project, ui),
            Some(name) => self.show(&project, name, ui)?,
        }
        Ok(Exit::Done)
    }

    fn list(&self, project: &Project, ui: &Ui) {
        let nodes = project.inventory.nodes.values();
        if self.format == Shape::Json {
            return ui.json(&nodes.map(describe).collect::<Vec<_>>());
        }
        let rows: Vec<Vec<String>> = nodes
            .map(|node| {
                vec![
                    node.name.clone(),
                    node.host.clone(),
                    node.arch.clone(),
                    node.os.clone(),
                    node.groups.iter().filter(|group| *group != "all").cloned().collect::<Vec<_>>().join(" "),
                    node.roles.join(" "),
                ]
            })
            .collect();
        ui.table(&["node", "host", "arch", "os", "groups", "roles"], &rows);
    }

    fn show(&self, project: &Project, name: &str, ui: &Ui) -> anyhow::Result<()> {
        let Some(node) = project.inventory.nodes.get(name) else {
            let help = suggest(name, project.inventory.nodes.keys().map(String::as_str));
            return Err(Problem::usage(format!("unknown node `{name}`"), help));
        };
        let declared = role::declarations(&project.roles, node);
        let vars = merged(&project.inventory, node, &declared, &Vars::new())?;
        if self.format == Shape::Json {
            let mut value = describe(node);
            let vars = vars.iter().map(|(name, (value, origin))| {
                let place = origin.place().map(ToString::to_string);
                (name.clone(), json!({ "value": value, "origin": origin.to_string(), "place": place }))
            });
            value["vars"] = vars.collect::<serde_json::Map<_, _>>().into();
            ui.json(&value);
            return Ok(());
        }
        for (what, value) in [
            ("node", node.name.clone()),
            ("host", node.host.clone()),
            ("hostname", node.hostname.clone()),
            ("arch", node.arch.clone()),
            ("os", node.os.clone()),
            ("groups", node.groups.join(" ")),
            ("roles", node.roles.join(" ")),
        ] {
            ui.line(&format!("{what:<9} {value}"));
        }
        ui.line("");
        let rows: Vec<Vec<String>> = vars
            .iter()
            .map(|(name, (value, origin))| {
                let place = origin.place().map(ToString::to_string).unwrap_or_default();
                vec![name.clone(), value.to_string(), origin.to_string(), place]
            })
            .collect();
        ui.table(&["variable", "value", "from", "place"], &rows);
        Ok(())
    }
}

fn describe(node: &Node) -> serde_json::Value {
    json!({
        "name": node.name, "host": node.host, "address": node.address, "hostname": node.hostname,
        "arch": node.arch, "os": node.os, "groups": node.groups, "roles": node.roles,
        "labels": node.labels, "taints": node.taints, "disks": node.disks,
    })
}
