//! Plans of several nodes laid together: what reads the same is shown once, with the nodes it is for, and beside it
//! only what differs.

use std::collections::{BTreeSet, HashMap};

use super::diff::{Kind, Row};
use super::line::Line;
use super::own;
use super::page::DIFF_LINES;
use super::plan::{self, Item, What};
use super::report::{End, Node, Report};
use super::style::Style;
use super::text::count;

/// What is the same for some nodes: their resources and handlers, role by role.
#[derive(Debug, Default)]
pub struct Group {
    pub nodes: Vec<String>,
    pub rows: Vec<Row>,
    /// What stands in the rows for words of the nodes' own.
    own: BTreeSet<&'static str>,
    changes: usize,
    unknown: usize,
    handlers: usize,
    /// An earlier group has more of one of these nodes.
    further: bool,
    /// Those of the nodes that failed or were stopped: there may be more to do.
    unfinished: Vec<String>,
}

impl Group {
    /// `the same 12 changes, 2 handlers, 1 unknown`
    pub fn heading(&self) -> String {
        let change = if self.further { "further change" } else { "change" };
        let parts = [
            (self.changes, count(self.changes, change)),
            (self.handlers, count(self.handlers, "handler")),
            (self.unknown, format!("{} unknown", self.unknown)),
        ];
        let mut parts: Vec<_> =
            parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
        if self.nodes.len() > 1
            && let Some(first) = parts.first_mut()
        {
            first.insert_str(0, "the same ");
        }
        match &self.unfinished[..] {
            [] => {}
            some if some.len() == self.nodes.len() => parts.push("not finished".into()),
            some => parts.push(format!("not finished on {}", some.join(", "))),
        }
        parts.join(", ")
    }

    /// What the marks in the rows stand for, if there are any.
    pub fn legend(&self) -> Option<String> {
        let marks: Vec<&str> = self.own.iter().copied().collect();
        let (last, others) = marks.split_last()?;
        Some(match others {
            [] => format!("{last} stands for the node's own"),
            others => format!("{} and {last} stand for the node's own", others.join(", ")),
        })
    }

    fn add(&mut self, fold: &Fold, names: &[&str]) {
        match fold.what {
            What::Change => self.changes += 1,
            What::Unknown => self.unknown += 1,
            What::Handler => self.handlers += 1,
            What::NotDone => {}
        }
        for stretch in fold.stretches() {
            let of = fold.rows[stretch.at].kind;
            self.rows.extend(stretch.heading(names).map(|line| Row::new(of, line)));
            for row in &fold.rows[stretch.at..stretch.end] {
                if !row.same_raw {
                    self.own.extend(own::marks(&row.marked.plain()));
                }
                self.rows.push(Row::new(row.kind, row.line().clone()));
            }
        }
    }
}

/// All nodes with something in their plan: first what most of them share.
pub fn groups(report: &Report) -> Vec<Group> {
    let names: Vec<&str> = report.nodes.keys().map(String::as_str).collect();
    let mut folds = folds(report);
    // Stable: in a group the plan's order stands.
    folds.sort_by(|a, b| b.nodes.len().cmp(&a.nodes.len()).then_with(|| a.nodes.cmp(&b.nodes)));
    let mut shown = BTreeSet::<usize>::new();
    let groups = folds.chunk_by(|a, b| a.nodes == b.nodes).map(|folds| {
        let nodes = &folds[0].nodes;
        let named = |node: &usize| names[*node].to_owned();
        let open = |node: &&usize| !matches!(report.nodes[**node].end, End::Done);
        let mut group = Group {
            nodes: nodes.iter().map(named).collect(),
            unfinished: nodes.iter().filter(open).map(named).collect(),
            further: nodes.iter().any(|node| shown.contains(node)),
            ..Group::default()
        };
        shown.extend(nodes);
        for of_role in folds.chunk_by(|a, b| a.role == b.role) {
            let role = Line::new().styled(Style::Strong, &of_role[0].role);
            group.rows.push(Row::new(Kind::Role, role));
            of_role.iter().for_each(|fold| group.add(fold, &names));
        }
        group
    });
    groups.collect()
}

/// A resource or handler, and the nodes on which it reads the same, or nearly so: by their place in the inventory.
struct Fold {
    role: String,
    what: What,
    nodes: Vec<usize>,
    rows: Vec<Shared>,
}

/// A row that some of the nodes have, as the first of them has it: as it is, and with marks for the node's own words.
/// At least one of the two is the same on all of them.
#[derive(Clone)]
struct Shared {
    kind: Kind,
    raw: Line,
    marked: Line,
    same_raw: bool,
    same_marked: bool,
    nodes: Vec<usize>,
}

/// Rows one after the other that are for the same nodes.
struct Stretch {
    at: usize,
    end: usize,
    /// What tells which those are, where it is not plain.
    mark: Option<Mark>,
}

enum Mark {
    All,
    Only(Vec<usize>),
    Not(Vec<usize>),
}

impl Stretch {
    /// No line of a diff begins with such a mark, whatever a file holds.
    fn heading(&self, names: &[&str]) -> Option<Line> {
        let list = |nodes: &[usize]| nodes.iter().map(|node| names[*node]).collect::<Vec<_>>().join(", ");
        let text = match self.mark.as_ref()? {
            Mark::All => "‹on all›".to_owned(),
            Mark::Only(nodes) => format!("‹only on {}›", list(nodes)),
            Mark::Not(nodes) => format!("‹not on {}›", list(nodes)),
        };
        Some(Line::new().styled(Style::Hint, text))
    }
}

/// What is the same thing on several nodes: role, whether it is a handler, label, and which of those with this label.
type Key = (String, bool, String, usize);

/// Every item of every node, in the order of the plans, those that read the same in one.
fn folds(report: &Report) -> Vec<Fold> {
    let mut order: Vec<Key> = Vec::new();
    let mut by_key: HashMap<Key, Vec<Fold>> = HashMap::new();
    for (at, node) in report.nodes.values().enumerate() {
        let mut after = 0;
        for (key, item) in keyed(plan::items(node, report.dry_run)) {
            // What is new has its place behind what is before it on this node.
            after = match order.iter().position(|known| *known == key) {
                Some(known) => after.max(known + 1),
                None => {
                    order.insert(after, key.clone());
                    after + 1
                }
            };
            let one = Fold::new(at, node, item);
            let known = by_key.entry(key).or_default();
            let both = known.iter().enumerate().find_map(|(at, known)| Some((at, known.with(&one)?)));
            match both {
                Some((at, both)) => known[at] = both,
                None => known.push(one),
            }
        }
    }
    order.iter().flat_map(|key| by_key.remove(key).unwrap_or_default()).collect()
}

fn keyed(items: Vec<Item>) -> Vec<(Key, Item)> {
    let mut seen: HashMap<(String, bool, String), usize> = HashMap::new();
    let key = |item: Item| {
        let (role, handler, label) = (item.role.clone(), item.what == What::Handler, item.label.clone());
        let times = seen.entry((role.clone(), handler, label.clone())).or_default();
        *times += 1;
        ((role, handler, label, *times), item)
    };
    items.into_iter().map(key).collect()
}

impl Fold {
    fn new(at: usize, node: &Node, item: Item) -> Self {
        let rows = item.rows.into_iter().map(|row| Shared {
            kind: row.kind,
            marked: row.line.map(|text| own::marked(text, &node.own)),
            raw: row.line,
            same_raw: true,
            same_marked: true,
            nodes: vec![at],
        });
        Self { role: item.role, what: item.what, nodes: vec![at], rows: rows.collect() }
    }

    /// Both in one, if that is shorter than one after the other by a third at least.
    fn with(&self, other: &Self) -> Option<Self> {
        // Details under heads that differ are about something else.
        if self.what != other.what || self.rows.first()?.and(other.rows.first()?).is_none() {
            return None;
        }
        let both = |rows| Self {
            role: self.role.clone(),
            what: self.what,
            nodes: [&self.nodes[..], &other.nodes[..]].concat(),
            rows,
        };
        if self.rows.len() == other.rows.len()
            && let Some(rows) = self.rows.iter().zip(&other.rows).map(|(a, b)| a.and(b)).collect()
        {
            return Some(both(rows));
        }
        // A mark must not stand where a long diff is cut.
        if self.rows.len() + other.rows.len() > DIFF_LINES {
            return None;
        }
        let both = both(merged(&self.rows, &other.rows));
        (both.height() * 3 <= (self.height() + other.height()) * 2).then_some(both)
    }

    /// Rows it takes to show it.
    fn height(&self) -> usize {
        self.rows.len() + self.stretches().filter(|stretch| stretch.mark.is_some()).count()
    }

    fn stretches(&self) -> impl Iterator<Item = Stretch> {
        let mut at = 0;
        self.rows.chunk_by(|a, b| a.nodes == b.nodes).map(move |rows| {
            let begin = at;
            at += rows.len();
            Stretch { at: begin, end: at, mark: self.mark(&rows[0].nodes, begin == 0) }
        })
    }

    fn mark(&self, these: &[usize], first: bool) -> Option<Mark> {
        if these.len() == self.nodes.len() {
            return (!first).then_some(Mark::All);
        }
        let others: Vec<usize> = self.nodes.iter().copied().filter(|node| !these.contains(node)).collect();
        Some(if others.len() < these.len() { Mark::Not(others) } else { Mark::Only(these.to_vec()) })
    }
}

impl Shared {
    fn line(&self) -> &Line {
        if self.same_raw { &self.raw } else { &self.marked }
    }

    /// One row for both, if they read the same.
    fn and(&self, other: &Self) -> Option<Self> {
        let same_raw = self.same_raw && other.same_raw && self.raw == other.raw;
        let same_marked = self.same_marked && other.same_marked && self.marked == other.marked;
        let alike = self.kind == other.kind && (same_raw || same_marked);
        let nodes = || [&self.nodes[..], &other.nodes[..]].concat();
        alike.then(|| Self { same_raw, same_marked, nodes: nodes(), ..self.clone() })
    }
}

/// The rows of both in their order, as many as can be made one.
fn merged(a: &[Shared], b: &[Shared]) -> Vec<Shared> {
    // `common[i][j]`: how many rows `a[i..]` and `b[j..]` can share.
    let mut common = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            let either = common[i + 1][j].max(common[i][j + 1]);
            let both = if x.and(y).is_some() { common[i + 1][j + 1] + 1 } else { 0 };
            common[i][j] = either.max(both);
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut rows = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        match x.and(y).filter(|_| common[i][j] == common[i + 1][j + 1] + 1) {
            Some(both) => {
                rows.push(both);
                (i, j) = (i + 1, j + 1);
            }
            // In a list of all the others, the earlier nodes lack the later one's predecessors.
            None if common[i][j + 1] >= common[i + 1][j] => {
                rows.push(y.clone());
                j += 1;
            }
            None => {
                rows.push(x.clone());
                i += 1;
            }
        }
    }
    rows.extend_from_slice(&a[i..]);
    rows.extend_from_slice(&b[j..]);
    rows
}
