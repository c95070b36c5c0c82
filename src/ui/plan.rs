//! The plan of a dry run: what is shown of each resource and handler of a node. Nodes are laid together by [`super::fold`].

use super::diff::{self, Kind, Row};
use super::line::Line;
use super::report::{Found, Handler, Node, Resource};
use super::style::Style;

/// A resource or a handler of a node's plan.
pub struct Item {
    pub role: String,
    /// Tells it from the others of its role.
    pub label: String,
    pub what: What,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    Change,
    /// It differs, and the run came to no good end with it.
    NotDone,
    Unknown,
    Handler,
}

/// All of a node's plan, in its order.
pub fn items(node: &Node, dry_run: bool) -> Vec<Item> {
    let mut items = Vec::new();
    for role in &node.roles {
        let mut add = |label: &str, (what, rows)| {
            items.push(Item { role: role.name.clone(), label: label.to_owned(), what, rows });
        };
        for found in &role.resources {
            add(&found.label, resource(found, dry_run));
        }
        for pending in &role.handlers {
            add(&pending.what, (What::Handler, vec![handler(pending, dry_run)]));
        }
    }
    items
}

fn handler(handler: &Handler, dry_run: bool) -> Row {
    let state = match (handler.run, handler.left_over) {
        (true, _) => "",
        (false, true) => " (left over from an earlier run)",
        (false, false) if dry_run => "",
        (false, false) => " (still pending)",
    };
    let line = Line::new().styled(Style::Changed, "!").text(" handler ").text(&handler.what);
    Row::new(Kind::Handler, line.styled(Style::Dim, state))
}

fn resource(resource: &Resource, dry_run: bool) -> (What, Vec<Row>) {
    match &resource.found {
        Found::Unknown { place, reason } => (
            What::Unknown,
            vec![
                Row::new(
                    Kind::Resource,
                    Line::new().styled(Style::Warning, "?").text(" ").text(&resource.label),
                ),
                Row::new(Kind::Place, Line::new().styled(Style::Dim, place)),
                Row::new(Kind::Detail, Line::new().text("cannot be known yet: ").text(reason)),
            ],
        ),
        Found::Differs { place, differences, notify, changed } => {
            let (sign, style) = diff::sign(differences);
            let done = dry_run || *changed;
            let head = Line::new().styled(style, sign).text(" ").text(&resource.label);
            let head = if done { head } else { head.styled(Style::Bad, " (not done)") };
            let mut rows = vec![
                Row::new(Kind::Resource, head),
                Row::new(Kind::Place, Line::new().styled(Style::Dim, place)),
            ];
            rows.extend(diff::rows(differences));
            if !notify.is_empty() {
                let notifies = Line::new().styled(Style::Dim, format!("notifies: {}", notify.join(", ")));
                rows.push(Row::new(Kind::Detail, notifies));
            }
            (if done { What::Change } else { What::NotDone }, rows)
        }
    }
}
