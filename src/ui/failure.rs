//! Failures in full: what happened, where, what the node printed last, what to do next. The same failure on several
//! nodes is told once.

use super::line::Line;
use super::report::{End, Report};
use super::style::Style;
use crate::engine::event::Failure;

const ERROR: &str = "error";

/// Failures with the nodes they happened on: those that failed first, then those that were skipped.
pub struct Failures<'a> {
    pub failed: Vec<(Vec<&'a str>, &'a Failure)>,
    pub skipped: Vec<(Vec<&'a str>, &'a Failure)>,
}

impl<'a> Failures<'a> {
    pub fn of(report: &'a Report) -> Self {
        let (mut failed, mut skipped) = (Vec::new(), Vec::new());
        for (name, node) in &report.nodes {
            match &node.end {
                End::Failed(failure) => add(&mut failed, name, failure),
                End::Skipped(failure) => add(&mut skipped, name, failure),
                End::Open | End::Done | End::Interrupted => {}
            }
        }
        Self { failed, skipped }
    }

    pub fn lines(&self) -> Vec<Line> {
        let failed = self.failed.iter().map(|(nodes, failure)| (ERROR, Style::Bad, nodes, *failure));
        let skipped =
            self.skipped.iter().map(|(nodes, failure)| ("skipped", Style::Warning, nodes, *failure));
        failed
            .chain(skipped)
            .flat_map(|(label, style, nodes, failure)| one(label, style, nodes, failure))
            .collect()
    }
}

fn add<'a>(all: &mut Vec<(Vec<&'a str>, &'a Failure)>, node: &'a str, failure: &'a Failure) {
    match all.iter_mut().find(|(_, known)| *known == failure) {
        Some((nodes, _)) => nodes.push(node),
        None => all.push((vec![node], failure)),
    }
}

/// `package curl: the change failed with status 100`
pub fn message(failure: &Failure) -> String {
    match &failure.resource {
        Some(resource) => format!("{resource}: {}", failure.message),
        None => failure.message.clone(),
    }
}

/// `at roles/base/role.toml:12 (role base)`
pub fn place(failure: &Failure) -> Option<String> {
    match (&failure.place, &failure.role) {
        (Some(place), Some(role)) => Some(format!("at {place} (role {role})")),
        (Some(place), None) => Some(format!("at {place}")),
        (None, Some(role)) => Some(format!("in role {role}")),
        (None, None) => None,
    }
}

fn one(label: &str, style: Style, nodes: &[&str], failure: &Failure) -> Vec<Line> {
    let head = Line::new().styled(style, label).text(": ").styled(Style::Strong, nodes.join(", ")).text(": ");
    let mut message = message(failure);
    let tail = message.split_off(message.find('\n').unwrap_or(message.len()));
    let mut lines = vec![head.text(message)];
    lines.extend(tail.lines().skip(1).map(|line| Line::new().content(Style::Plain, line).indent(2)));
    if label == ERROR {
        lines.extend(place(failure).map(|place| Line::new().text(place).indent(2)));
    }
    if !failure.output.is_empty() {
        lines.push(Line::from("the node printed last:").indent(2));
        let printed = failure.output.iter().map(|line| Line::new().content(Style::Dim, line));
        lines.extend(printed.map(|line| Line::new().styled(Style::Dim, "| ").join(line).indent(4)));
    }
    if let Some(hint) = &failure.hint {
        lines.push(Line::new().styled(Style::Hint, "hint").text(": ").text(hint).indent(2));
    }
    lines.push(Line::new());
    lines
}
