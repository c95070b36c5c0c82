//! `--format markdown`: a run as a comment for a pull request.
//!
//! Nothing that came from a node or a file is ever bare Markdown: it stands in code spans, in `<code>` or in fences
//! longer than any run of backticks inside, so that it can neither break out, mention people nor draw links.

use super::diff::{Kind, Row};
use super::failure::{self, Failures};
use super::line::Line;
use super::plan::{self, Group, OWN_NAME};
use super::report::Report;
use super::summary;
use super::table::Table;

/// Bytes of a page. GitHub refuses a comment of more than 65,536 characters.
const LIMIT: usize = 60_000;
/// Lines of one diff that are shown.
const DIFF_LINES: usize = 200;

/// The page of a run.
pub fn page(report: &Report) -> String {
    let closing = summary::closing(report).plain();
    let mut page = format!("## datahub: {}\n", bare(&closing));
    let mut foot = notes(report);
    foot.push_str(&failures(report));
    foot.push_str(&table(&summary::table(report)));
    for group in plan::groups(report) {
        let details = details(&group);
        if page.len() + details.len() + foot.len() < LIMIT {
            page.push_str(&details);
        } else {
            let names = group.nodes.join(", ");
            page.push_str(&format!("\n{}: {} (too long for this page)\n", code(&names), group.heading()));
        }
    }
    page.push_str(&foot);
    page
}

/// Lines in a fence, under a heading.
pub fn output(node: &str, lines: &[Line]) -> String {
    format!("\n### {}\n\n{}", code(node), fence("", lines))
}

fn details(group: &Group) -> String {
    let names = group.nodes.join(", ");
    let mut page =
        format!("\n<details>\n<summary><code>{}</code>: {}</summary>\n", html(&names), group.heading());
    if group.own_name {
        page.push_str(&format!("\n{OWN_NAME} stands for the node's own name.\n"));
    }
    for rows in
        group.rows.chunk_by(|a, b| section(a.kind) == section(b.kind) && section(a.kind) != Section::Head)
    {
        page.push_str(&rows_of(rows));
    }
    page.push_str("\n</details>\n");
    page
}

#[derive(PartialEq, Eq)]
enum Section {
    Head,
    Place,
    Diff,
    List,
}

fn section(kind: Kind) -> Section {
    match kind {
        Kind::Role | Kind::Resource => Section::Head,
        Kind::Place => Section::Place,
        Kind::DiffHead | Kind::Diff => Section::Diff,
        Kind::Detail | Kind::Handler => Section::List,
    }
}

/// Rows of one section, after an empty line.
fn rows_of(rows: &[Row]) -> String {
    let lines: Vec<Line> = rows.iter().map(|row| row.line.clone()).collect();
    let Some(first) = rows.first() else { return String::new() };
    match first.kind {
        Kind::Role => format!("\n#### {}\n", code(&lines[0].plain())),
        Kind::Resource => format!("\n**{}**", code(&lines[0].plain())),
        Kind::Place => format!(" {}\n", code(&lines[0].plain())),
        Kind::DiffHead | Kind::Diff => format!("\n{}", fence("diff", &cut(lines))),
        Kind::Detail | Kind::Handler => {
            let items: String = lines.iter().map(|line| format!("- {}\n", code(&line.plain()))).collect();
            format!("\n\n{items}")
        }
    }
}

fn cut(mut lines: Vec<Line>) -> Vec<Line> {
    // The two lines of the head are not counted.
    let more = lines.len().saturating_sub(DIFF_LINES + 2);
    if more > 0 {
        lines.truncate(DIFF_LINES + 2);
        lines.push(Line::from(format!("… {more} more lines")));
    }
    lines
}

fn failures(report: &Report) -> String {
    let failures = Failures::of(report);
    let kinds = [("Failed", failures.failed), ("Skipped", failures.skipped)];
    let mut page = String::new();
    for (word, all) in kinds {
        for (nodes, failure) in all {
            page.push_str(&format!("\n### {word}: {}\n\n", code(&nodes.join(", "))));
            page.push_str(&fence("", &failure::message(failure).lines().map(Line::from).collect::<Vec<_>>()));
            page.extend(failure::place(failure).map(|place| format!("\n{}\n", code(&place))));
            if !failure.output.is_empty() {
                let lines: Vec<Line> = failure.output.iter().map(|line| Line::from(line.as_str())).collect();
                page.push_str(&format!("\nThe node printed last:\n\n{}", fence("", &lines)));
            }
            page.extend(failure.hint.iter().map(|hint| format!("\nHint: {}\n", code(hint))));
        }
    }
    page
}

fn notes(report: &Report) -> String {
    let join =
        |all: &indexmap::IndexSet<String>| all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let notes = report.notes.iter();
    let notes: String = notes
        .map(|(note, about)| {
            format!("- {}: {} on {}\n", code(note), code(&join(&about.resources)), code(&join(&about.nodes)))
        })
        .collect();
    if notes.is_empty() { notes } else { format!("\n### Notes\n\n{notes}") }
}

fn table(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut page = String::from("\n");
    for (at, cells) in table.cells_by_row().enumerate() {
        let head = at == 0;
        page.push_str(&row(cells
            .enumerate()
            .map(
                |(column, cell)| if column == 0 && !head { code(&cell.plain()) } else { bare(&cell.plain()) },
            )
            .collect()));
        if head {
            page.push_str(&row(table
                .numeric()
                .map(|right| if right { "---:" } else { "---" }.into())
                .collect()));
        }
    }
    page
}

/// A code span: nothing in it is Markdown.
fn code(text: &str) -> String {
    // The line form makes newlines visible; a bar would end a table's cell.
    let text = Line::from(text).plain().replace('|', "\\|");
    let ticks = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') || text.trim().is_empty() { " " } else { "" };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// Text outside of code, every character that Markdown gives a meaning escaped.
fn bare(text: &str) -> String {
    let mut out = String::new();
    for c in Line::from(text).plain().chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

fn html(text: &str) -> String {
    let text = Line::from(text).plain();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A fence longer than any run of backticks inside.
fn fence(language: &str, lines: &[Line]) -> String {
    let text: String = lines.iter().map(|line| line.plain() + "\n").collect();
    let ticks = "`".repeat(longest_run(&text).max(2) + 1);
    format!("{ticks}{language}\n{text}{ticks}\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or_default()
}
