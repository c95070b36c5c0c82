//! A run for people, after its end: the plan, notes, failures, the table and the closing sentence.

use super::diff::{Kind, Row};
use super::fold::Group;
use super::line::Line;
use super::report::Report;
use super::style::Style;

/// Lines of one diff that are shown.
pub const DIFF_LINES: usize = 200;

/// Between a resource and its place.
const BETWEEN: &str = "   ";

/// The plan, what is the same for several nodes together. Each group ends with an empty line.
pub fn plan(groups: &[Group], columns: Option<usize>) -> Vec<Line> {
    let mut lines = Vec::new();
    for group in groups {
        let names = group.nodes.join(", ");
        lines.push(Line::new().styled(Style::Strong, names).text(": ").text(group.heading()));
        lines.extend(group.legend().map(|legend| Line::new().styled(Style::Dim, legend).indent(2)));
        lines.extend(rows(&group.rows, 2, columns));
        lines.push(Line::new());
    }
    lines
}

/// Rows of a plan, `indent` columns from the left, long diffs cut. A place stands behind its resource if the two fit
/// into `columns`, else below.
pub fn rows(rows: &[Row], indent: usize, columns: Option<usize>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for chunk in rows.chunk_by(|a, b| a.kind == b.kind && a.kind == Kind::Diff) {
        for row in &chunk[..chunk.len().min(DIFF_LINES)] {
            match (row.kind, lines.last_mut()) {
                (Kind::Place, Some(head)) if fits(head, &row.line, columns) => {
                    *head = std::mem::take(head).text(BETWEEN).join(row.line.clone());
                }
                _ => lines.push(row.line.clone().indent(indent + depth(row.kind))),
            }
        }
        if chunk.len() > DIFF_LINES {
            let more = format!("… {} more lines (--format json has all)", chunk.len() - DIFF_LINES);
            lines.push(Line::new().styled(Style::Dim, more).indent(indent + depth(Kind::Diff)));
        }
    }
    lines
}

fn fits(head: &Line, place: &Line, columns: Option<usize>) -> bool {
    columns.is_none_or(|columns| head.width() + BETWEEN.len() + place.width() <= columns)
}

fn depth(kind: Kind) -> usize {
    match kind {
        Kind::Role => 0,
        Kind::Resource | Kind::Handler => 2,
        Kind::Place | Kind::DiffHead | Kind::Diff | Kind::Detail => 4,
    }
}

/// Every note once, with what and whom it is about, and an empty line after the last.
pub fn notes(report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    for (note, about) in &report.notes {
        let subjects = format!("{} on {}", about.resources(), about.nodes(report));
        lines.push(Line::new().styled(Style::Strong, "note").text(": ").text(note));
        lines.push(Line::new().styled(Style::Dim, subjects).indent(2));
    }
    if !lines.is_empty() {
        lines.push(Line::new());
    }
    lines
}
