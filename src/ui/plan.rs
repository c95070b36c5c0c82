//! The plan of a dry run: per node one block of rows, and nodes whose blocks are the same folded into one.

use super::diff::{self, Kind, Row};
use super::line::Line;
use super::report::{End, Found, Node, Report, Resource, Role};
use super::style::Style;
use super::text::count;
use crate::engine::event::Summary;

/// Stands for a node's own name where folded blocks differ in nothing else.
pub const OWN_NAME: &str = "‹node›";

/// Nodes with the same plan.
#[derive(Debug)]
pub struct Group {
    pub nodes: Vec<String>,
    pub summary: Summary,
    pub rows: Vec<Row>,
    /// Some row holds [`OWN_NAME`].
    pub own_name: bool,
    /// Whether all of it is known: not on a node that failed or was stopped.
    pub whole: bool,
}

impl Group {
    /// `the same 12 changes, 2 handlers, 1 unknown`
    pub fn heading(&self) -> String {
        let Summary { changed, handlers, unknown, .. } = self.summary;
        let parts = [
            (changed, count(changed, "change")),
            (handlers, count(handlers, "handler")),
            (unknown, format!("{unknown} unknown")),
        ];
        let parts: Vec<_> =
            parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
        let same = if self.nodes.len() > 1 { "the same " } else { "" };
        match (self.whole, parts.is_empty()) {
            (true, _) => format!("{same}{}", parts.join(", ")),
            (false, true) => "not finished".to_owned(),
            (false, false) => format!("{same}{}, not finished", parts.join(", ")),
        }
    }
}

/// All nodes with something in their plan, in order; a group stands where its first node does.
pub fn groups(report: &Report) -> Vec<Group> {
    let mut folds: Vec<Fold> = Vec::new();
    for (name, node) in &report.nodes {
        let rows = rows(node, report.dry_run);
        if rows.is_empty() {
            continue;
        }
        let rows = Rows::new(name, rows);
        if !folds.iter_mut().any(|fold| fold.takes(name, node, &rows)) {
            folds.push(Fold::new(name, node, rows));
        }
    }
    folds.into_iter().map(Fold::finish).collect()
}

/// A block's rows as they are, and with the node's own name replaced.
struct Rows {
    raw: Vec<Row>,
    nameless: Vec<Row>,
}

impl Rows {
    fn new(node: &str, raw: Vec<Row>) -> Self {
        let nameless = |row: &Row| Row::new(row.kind, row.line.map(|text| without_name(text, node)));
        Self { nameless: raw.iter().map(nameless).collect(), raw }
    }
}

/// How a row reads the same on every node of a group.
#[derive(Clone, Copy)]
struct Same {
    raw: bool,
    nameless: bool,
}

struct Fold {
    nodes: Vec<String>,
    summary: Summary,
    whole: bool,
    rows: Rows,
    same: Vec<Same>,
}

impl Fold {
    fn new(name: &str, node: &Node, rows: Rows) -> Self {
        let same = vec![Same { raw: true, nameless: true }; rows.raw.len()];
        Self { nodes: vec![name.to_owned()], summary: node.summary.clone(), whole: whole(node), rows, same }
    }

    /// Takes a node in if every row reads the same on it as on the nodes it has.
    fn takes(&mut self, name: &str, node: &Node, rows: &Rows) -> bool {
        let alike = figures(&self.summary) == figures(&node.summary) && self.whole == whole(node);
        if !alike || self.rows.raw.len() != rows.raw.len() {
            return false;
        }
        let mut same = self.same.clone();
        for (at, same) in same.iter_mut().enumerate() {
            same.raw &= self.rows.raw[at] == rows.raw[at];
            same.nameless &= self.rows.nameless[at] == rows.nameless[at];
            if !same.raw && !same.nameless {
                return false;
            }
        }
        self.same = same;
        self.nodes.push(name.to_owned());
        true
    }

    fn finish(self) -> Group {
        let own_name = self.same.iter().any(|same| !same.raw);
        let rows = self.rows.raw.into_iter().zip(self.rows.nameless).zip(self.same);
        let rows = rows.map(|((raw, nameless), same)| if same.raw { raw } else { nameless }).collect();
        Group { nodes: self.nodes, summary: self.summary, rows, own_name, whole: self.whole }
    }
}

fn whole(node: &Node) -> bool {
    matches!(node.end, End::Done)
}

fn figures(summary: &Summary) -> (usize, usize, usize) {
    (summary.changed, summary.handlers, summary.unknown)
}

/// Replaces `name` where it stands as a word of its own: `orpi-1` in `orpi-1.home.arpa`, not in `orpi-10`.
fn without_name(text: &str, name: &str) -> String {
    // The replacement could then not be told from what was there.
    if name.is_empty() || text.contains(OWN_NAME) {
        return text.to_owned();
    }
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let (mut out, mut end) = (String::new(), 0);
    for (at, _) in text.match_indices(name) {
        let after = at + name.len();
        if !word(text[..at].chars().next_back()) && !word(text[after..].chars().next()) {
            out.push_str(&text[end..at]);
            out.push_str(OWN_NAME);
            end = after;
        }
    }
    out + &text[end..]
}

fn rows(node: &Node, dry_run: bool) -> Vec<Row> {
    node.roles.iter().flat_map(|role| role_rows(role, dry_run)).collect()
}

fn role_rows(role: &Role, dry_run: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = role.resources.iter().flat_map(|found| resource(found, dry_run)).collect();
    rows.extend(role.handlers.iter().map(|handler| {
        let (sign, state) = match (handler.run, handler.left_over) {
            (true, _) => ("!", ""),
            (false, true) => ("!", " (left over from an earlier run)"),
            (false, false) if dry_run => ("!", ""),
            (false, false) => ("!", " (still pending)"),
        };
        let line = Line::new().styled(Style::Changed, sign).text(" handler ").text(&handler.what);
        Row::new(Kind::Handler, line.styled(Style::Dim, state))
    }));
    if !rows.is_empty() {
        rows.insert(0, Row::new(Kind::Role, Line::new().styled(Style::Strong, &role.name)));
    }
    rows
}

fn resource(resource: &Resource, dry_run: bool) -> Vec<Row> {
    match &resource.found {
        Found::Unknown { place, reason } => vec![
            Row::new(Kind::Resource, Line::new().styled(Style::Warning, "?").text(" ").text(&resource.label)),
            Row::new(Kind::Place, Line::new().styled(Style::Dim, place)),
            Row::new(Kind::Detail, Line::new().text("cannot be known yet: ").text(reason)),
        ],
        Found::Differs { place, differences, notify, changed } => {
            let (sign, style) = diff::sign(differences);
            let head = Line::new().styled(style, sign).text(" ").text(&resource.label);
            let head = if dry_run || *changed { head } else { head.styled(Style::Bad, " (not done)") };
            let mut rows = vec![
                Row::new(Kind::Resource, head),
                Row::new(Kind::Place, Line::new().styled(Style::Dim, place)),
            ];
            rows.extend(diff::rows(differences));
            if !notify.is_empty() {
                let notifies = Line::new().styled(Style::Dim, format!("notifies: {}", notify.join(", ")));
                rows.push(Row::new(Kind::Detail, notifies));
            }
            rows
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_name_is_replaced_as_a_word_only() {
        let cases = [
            ("127.0.1.1 orpi-1.home.arpa orpi-1", "127.0.1.1 ‹node›.home.arpa ‹node›"),
            ("orpi-10 xorpi-1 orpi-1_a", "orpi-10 xorpi-1 orpi-1_a"),
            ("orpi-1orpi-1", "orpi-1orpi-1"),
            ("‹node› orpi-1", "‹node› orpi-1"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(without_name(text, "orpi-1"), expected);
        }
    }
}
