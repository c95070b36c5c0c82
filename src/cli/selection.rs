//! Which nodes a command is for. Never implied: no target is an error that lists the nodes.

use super::problem::Problem;
use crate::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::inventory::Inventory;

#[derive(clap::Args)]
#[command(next_help_heading = "Targets")]
pub struct Selection {
    /// A node; may be given several times, or several with commas
    #[arg(short, long, value_name = "NODE", value_delimiter = ',')]
    node: Vec<String>,
    /// All nodes of a group; may be given several times
    #[arg(short, long, value_name = "GROUP", value_delimiter = ',')]
    group: Vec<String>,
    /// All nodes of the inventory
    #[arg(long)]
    all: bool,
}

impl Selection {
    /// The nodes meant, each once, in the inventory's order.
    pub fn nodes(&self, inventory: &Inventory) -> anyhow::Result<Vec<String>> {
        if !self.all && self.node.is_empty() && self.group.is_empty() {
            let nodes: Vec<&str> = inventory.nodes.keys().map(String::as_str).collect();
            return Err(Problem::usage(
                "no target: which nodes?",
                format!("--all, --group GROUP or --node NODE, one or more of: {}", nodes.join(", ")),
            ));
        }
        let mut unknown = Vec::new();
        let nodes: Vec<&str> = inventory.nodes.keys().map(String::as_str).collect();
        let groups: Vec<&str> = inventory.groups.keys().map(String::as_str).collect();
        for (what, words, valid) in [("node", &self.node, &nodes), ("group", &self.group, &groups)] {
            for word in words.iter().filter(|word| !valid.contains(&word.as_str())) {
                let error = Diagnostic::new(format!("unknown {what} `{word}`"));
                unknown.push(error.help(suggest(word, valid.iter().copied())));
            }
        }
        if !unknown.is_empty() {
            return Err(Diagnostics(unknown).into());
        }
        let meant = inventory.nodes.values().filter(|node| {
            self.all || self.node.contains(&node.name) || node.groups.iter().any(|g| self.group.contains(g))
        });
        let meant: Vec<String> = meant.map(|node| node.name.clone()).collect();
        if meant.is_empty() {
            let groups = if self.all { "the inventory".to_owned() } else { self.group.join(", ") };
            return Err(Problem::usage(
                format!("no node is in {groups}"),
                "put a node there in inventory/datahub.toml",
            ));
        }
        Ok(meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Node;

    #[test]
    fn targets_are_named_and_come_in_the_inventorys_order() {
        let node = |name: &str, group: &str| {
            (name.to_owned(), Node { name: name.into(), groups: vec![group.into()], ..Node::default() })
        };
        let groups = ["x", "y", "none"].map(|name| (name.to_owned(), Default::default()));
        let inventory = Inventory {
            nodes: [node("c", "x"), node("a", "y"), node("b", "x")].into_iter().collect(),
            groups: groups.into_iter().collect(),
            ..Inventory::empty()
        };
        let choose = |node: &[&str], group: &[&str], all| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            Selection { node: owned(node), group: owned(group), all }
                .nodes(&inventory)
                .map_err(|e| e.to_string())
        };
        assert_eq!(choose(&["b", "c"], &[], false), Ok(vec!["c".into(), "b".into()]));
        assert_eq!(choose(&["a"], &["y"], false), Ok(vec!["a".into()]));
        assert_eq!(choose(&[], &["x"], false), Ok(vec!["c".into(), "b".into()]));
        assert_eq!(choose(&[], &[], true).map(|n| n.len()), Ok(3));
        for (node, group, wanted) in [
            (&[][..], &[][..], "no target"),
            (&["d"], &[], "unknown node `d`"),
            (&[], &["none"], "no node is in"),
        ] {
            let error = choose(node, group, false).expect_err("refused");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
