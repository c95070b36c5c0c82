//! What a run came to: a row a node, and one closing sentence.

use super::line::Line;
use super::report::{End, Node, Report};
use super::style::Style;
use super::table::Table;
use super::text::{count, duration};
use crate::engine::event::Summary;

/// A row a node. Columns in which every node has 0 are left out.
pub fn table(report: &Report) -> Table {
    let handlers = report.nodes.values().any(|node| node.summary.handlers > 0);
    let unknown = report.nodes.values().any(|node| node.summary.unknown > 0);
    let columns = [
        ("node", true),
        ("result", true),
        ("resources", true),
        (if report.dry_run { "changes" } else { "changed" }, true),
        ("handlers", handlers),
        ("unknown", unknown),
        ("time", true),
    ];
    let mut table = Table::new(columns.iter().filter(|(_, shown)| *shown).map(|(name, _)| *name));
    for (name, node) in &report.nodes {
        let (result, style) = result(node, report.dry_run);
        let Summary { resources, changed, unknown, milliseconds, .. } = node.summary;
        let cells = [
            Line::new().styled(Style::Strong, name),
            Line::new().styled(style, result),
            number(resources, Style::Plain),
            number(changed, Style::Changed),
            ran(node, report.dry_run),
            number(unknown, Style::Warning),
            Line::from(duration(milliseconds)),
        ];
        table.row(cells.into_iter().zip(columns).filter(|(_, (_, shown))| *shown).map(|(cell, _)| cell));
    }
    table
}

fn number(number: usize, style: Style) -> Line {
    Line::new().styled(if number == 0 { Style::Dim } else { style }, number.to_string())
}

/// Handlers that will run, or how many of those that should have run did.
fn ran(node: &Node, dry_run: bool) -> Line {
    let ran = node.roles.iter().flat_map(|role| &role.handlers).filter(|handler| handler.run).count();
    match node.summary.handlers {
        wanted if dry_run || ran == wanted => number(wanted, Style::Changed),
        wanted => Line::new().styled(Style::Warning, format!("{ran} of {wanted}")),
    }
}

fn result(node: &Node, dry_run: bool) -> (&'static str, Style) {
    let Summary { changed, handlers, unknown, .. } = node.summary;
    match &node.end {
        End::Failed(_) => ("failed", Style::Bad),
        End::Skipped(_) => ("skipped", Style::Warning),
        End::Interrupted => ("interrupted", Style::Warning),
        End::Open => ("not finished", Style::Warning),
        End::Done if dry_run && changed + handlers > 0 => ("differs", Style::Changed),
        End::Done if dry_run && unknown > 0 => ("unknown", Style::Warning),
        End::Done if changed + handlers > 0 => ("changed", Style::Changed),
        End::Done => ("converged", Style::Good),
    }
}

/// The last line of a run: `7 nodes: 6 converged with 42 changes, 1 failed (nas)`.
pub fn closing(report: &Report) -> Line {
    let sentence = if report.dry_run { planned(report) } else { done(report) };
    sentence.styled(Style::Dim, format!(" Took {}.", duration(report.milliseconds)))
}

/// Whether every node was brought to its end.
pub fn succeeded(report: &Report) -> bool {
    report.nodes.values().all(|node| matches!(node.end, End::Done))
}

fn planned(report: &Report) -> Line {
    let changes = report.total(|summary| summary.changed);
    let handlers = report.total(|summary| summary.handlers);
    let unknown = report.total(|summary| summary.unknown);
    if changes + handlers + unknown == 0 && succeeded(report) {
        return as_described(report).text(".");
    }
    let touched =
        report.nodes.values().filter(|node| node.summary.changed + node.summary.handlers > 0).count();
    let mut line = Line::new().styled(Style::Strong, "Plan").text(": ").text(count(changes, "change"));
    if touched > 0 {
        line = line.text(" on ").text(count(touched, "node"));
    }
    if handlers > 0 {
        line = line.text(", ").text(count(handlers, "handler"));
    }
    if unknown > 0 {
        line = line.text(", ").text(format!("{unknown} unknown"));
    }
    for part in unfinished(report) {
        line = line.text(", ").join(part);
    }
    line.text(". Nothing was changed.")
}

fn done(report: &Report) -> Line {
    let changes = report.total(|summary| summary.changed);
    let handlers = report.total(|summary| summary.handlers);
    let converged = report.ended(|end| matches!(end, End::Done)).len();
    if changes + handlers == 0 && succeeded(report) {
        return as_described(report).text(" (0 changes).");
    }
    let mut parts = Vec::new();
    if converged > 0 {
        let text = format!("{converged} converged with {}", count(changes, "change"));
        parts.push(Line::new().styled(Style::Good, text));
    } else if changes > 0 {
        parts.push(Line::from(count(changes, "change")));
    }
    parts.extend(unfinished(report));
    let head = Line::from(count(report.nodes.len(), "node"));
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_default();
    let line = parts.fold(head.text(": ").join(first), |line, part| line.text(", ").join(part));
    line.text(".")
}

/// `Nothing to do: 7 nodes are as described`
fn as_described(report: &Report) -> Line {
    let nodes = report.nodes.len();
    let be = if nodes == 1 { "is" } else { "are" };
    Line::new()
        .styled(Style::Good, "Nothing to do")
        .text(format!(": {} {be} as described", count(nodes, "node")))
}

type Kind = fn(&End) -> bool;

/// `1 failed (nas)`, `2 skipped (orpi-1, orpi-2)`, …
fn unfinished(report: &Report) -> Vec<Line> {
    let kinds: [(&str, Style, Kind); 4] = [
        ("failed", Style::Bad, |end| matches!(end, End::Failed(_))),
        ("skipped", Style::Warning, |end| matches!(end, End::Skipped(_))),
        ("interrupted", Style::Warning, |end| matches!(end, End::Interrupted)),
        ("not finished", Style::Warning, |end| matches!(end, End::Open)),
    ];
    let part = |(word, style, kind): (&str, Style, Kind)| {
        let nodes = report.ended(kind);
        let text = format!("{} {word} ({})", nodes.len(), nodes.join(", "));
        (!nodes.is_empty()).then(|| Line::new().styled(style, text))
    };
    kinds.into_iter().filter_map(part).collect()
}
