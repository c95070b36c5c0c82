//! What happened, one line an event, for those who watch: the lines that stay, above the picture or in a log.

use super::diff;
use super::failure;
use super::line::Line;
use super::page;
use super::report::{End, Found, Report};
use super::style::Style;
use super::text::{count, duration, width};
use crate::engine::event::{Event, Summary};

/// Columns of the word that says what happened.
const WORD: usize = 7;

/// Node names longer than this stick out, so that one of them does not push all lines to the right.
const NAME: usize = 20;

/// The lines of an event; the report has taken it already.
pub fn lines(event: &Event, report: &Report, verbose: bool) -> Vec<Line> {
    let took = |milliseconds: &u64| format!("({})", duration(*milliseconds));
    match event {
        Event::Changed { node, role, resource, milliseconds } => {
            let line = head(report, node, Style::Changed, "changed");
            let line = line.styled(Style::Dim, role).text("  ").text(resource);
            let mut lines = vec![line.text("  ").styled(Style::Dim, took(milliseconds))];
            if verbose && let Some(Found::Differs { differences, .. }) = report.found(node, role, resource) {
                lines.extend(page::rows(&diff::rows(differences), 0, None));
            }
            lines
        }
        Event::HandlerRun { node, role, handler, milliseconds } => {
            let line = head(report, node, Style::Changed, "handler");
            let line = line.styled(Style::Dim, role).text("  ").text(handler);
            vec![line.text("  ").styled(Style::Dim, took(milliseconds))]
        }
        Event::Retrying { node, reason } => vec![head(report, node, Style::Warning, "retry").text(reason)],
        Event::NodeFailed { node, failure, .. } => {
            let skipped = matches!(report.nodes.get(node).map(|node| &node.end), Some(End::Skipped(_)));
            let message = failure::message(failure);
            let first = message.lines().next().unwrap_or_default();
            match skipped {
                true => vec![head(report, node, Style::Warning, "skipped").text(first)],
                false => vec![head(report, node, Style::Bad, "failed").text(first)],
            }
        }
        Event::Interrupted { node, summary } => {
            vec![head(report, node, Style::Warning, "stopped").text(came_to(summary))]
        }
        Event::Waiting { node, role, on } if verbose => {
            let line = head(report, node, Style::Dim, "waits").styled(Style::Dim, role);
            vec![line.text(format!("  for role {on} on other nodes"))]
        }
        Event::Connected { node, milliseconds } if verbose => {
            vec![head(report, node, Style::Dim, "login").styled(Style::Dim, took(milliseconds))]
        }
        Event::NodeFinished { node, summary } if verbose => {
            let line = head(report, node, Style::Good, "done").text(came_to(summary));
            vec![line.text("  ").styled(Style::Dim, took(&summary.milliseconds))]
        }
        _ => Vec::new(),
    }
}

/// A line for a log that would otherwise stand still: what a node has been doing, and for how long.
pub fn still(report: &Report, node: &str, role: Option<&str>, doing: &str, milliseconds: u64) -> Line {
    let line = head(report, node, Style::Dim, "still");
    let line = role.into_iter().fold(line, |line, role| line.styled(Style::Dim, role).text("  "));
    line.text(doing).text(" … ").styled(Style::Dim, format!("({})", duration(milliseconds)))
}

/// `orpi-1  changed  `
fn head(report: &Report, node: &str, style: Style, word: &str) -> Line {
    let widest = report.nodes.keys().map(|name| width(name)).filter(|width| *width <= NAME).max();
    let node = Line::new().styled(Style::Strong, node).pad(widest.unwrap_or_default());
    node.text("  ").join(Line::new().styled(style, word).pad(WORD)).text("  ")
}

fn came_to(summary: &Summary) -> String {
    let changes = count(summary.changed, "change");
    match summary.handlers {
        0 => changes,
        handlers => format!("{changes}, {}", count(handlers, "handler")),
    }
}
