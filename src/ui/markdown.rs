//! `--format markdown`: a run as a comment for a pull request.
//!
//! Nothing that came from a node or a file is ever bare Markdown: it stands in code spans, in `<code>` or in fences
//! longer than any run of backticks inside, so that it can neither break out, mention people nor draw links.

use super::diff::{Kind, Row};
use super::failure::{self, Failures};
use super::fold::{self, Group};
use super::line::Line;
use super::page::DIFF_LINES;
use super::report::Report;
use super::style::Style;
use super::summary;
use super::table::Table;

/// Bytes of a page. GitHub refuses a comment of more than 65,536 characters.
const LIMIT: usize = 60_000;

/// The page of a run.
pub fn page(report: &Report) -> String {
    let mut foot = String::new();
    notes(&mut foot, report);
    failures(&mut foot, report);
    block(&mut foot, &table(&summary::table(report)));
    let mut page = String::from("## datahub");
    block(&mut page, &bare(&summary::closing(report).plain()));
    for group in fold::groups(report) {
        let details = details(&group);
        if page.len() + details.len() + foot.len() < LIMIT {
            block(&mut page, &details);
        } else {
            let names = code(&group.nodes.join(", "));
            block(&mut page, &format!("{names}: {} (too long for this page)", group.heading()));
        }
    }
    block(&mut page, foot.trim_start_matches('\n'));
    page
}

/// What a command printed on a node.
pub fn output(node: &str, lines: &[Line]) -> String {
    format!("### {}\n\n{}\n", code(node), fence("", lines))
}

/// Adds a block after an empty line.
fn block(page: &mut String, block: &str) {
    page.truncate(page.trim_end_matches('\n').len());
    page.push_str("\n\n");
    page.push_str(block);
}

fn details(group: &Group) -> String {
    let names = html(&group.nodes.join(", "));
    let mut page = format!("<details>\n<summary><code>{names}</code>: {}</summary>", group.heading());
    if let Some(legend) = group.legend() {
        block(&mut page, &format!("{legend}."));
    }
    for rows in group.rows.chunk_by(|a, b| section(a.kind) == section(b.kind)) {
        section_rows(&mut page, section(rows[0].kind), rows);
    }
    block(&mut page, "</details>");
    page
}

/// What rows look like; neighbours of the same kind stand together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Role,
    Resource,
    Place,
    Diff,
    Details,
    Handlers,
}

fn section(kind: Kind) -> Section {
    match kind {
        Kind::Role => Section::Role,
        Kind::Resource => Section::Resource,
        Kind::Place => Section::Place,
        Kind::DiffHead | Kind::Diff => Section::Diff,
        Kind::Detail => Section::Details,
        Kind::Handler => Section::Handlers,
    }
}

fn section_rows(page: &mut String, section: Section, rows: &[Row]) {
    let lines = rows.iter().map(|row| row.line.clone());
    let spans = lines.clone().map(|line| code(&line.plain()));
    match section {
        Section::Role => spans.for_each(|name| block(page, &format!("#### {name}"))),
        Section::Resource => spans.for_each(|label| block(page, &format!("**{label}**"))),
        Section::Place => spans.for_each(|place| page.push_str(&format!(" {place}"))),
        Section::Diff => block(page, &fence("diff", &cut(lines.collect()))),
        Section::Details | Section::Handlers => {
            block(page, &spans.map(|item| format!("- {item}\n")).collect::<String>());
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

fn failures(page: &mut String, report: &Report) {
    let failures = Failures::of(report);
    let kinds = [("Failed", failures.failed), ("Skipped", failures.skipped)];
    for (word, all) in kinds {
        for (nodes, failure) in all {
            let message = failure::message(failure);
            block(page, &format!("### {word}: {}", code(&nodes.join(", "))));
            block(page, &fence("", &message.lines().map(Line::from).collect::<Vec<_>>()));
            if let Some(place) = failure::place(failure) {
                block(page, &code(&place));
            }
            if !failure.output.is_empty() {
                let printed = failure.output.iter().map(|line| Line::new().content(Style::Plain, line));
                block(page, "The node printed last:");
                block(page, &fence("", &printed.collect::<Vec<_>>()));
            }
            if let Some(hint) = &failure.hint {
                block(page, &format!("Hint: {}", code(hint)));
            }
        }
    }
}

fn notes(page: &mut String, report: &Report) {
    if report.notes.is_empty() {
        return;
    }
    let items = report.notes.iter().map(|(note, about)| {
        let (resources, nodes) = (code(&about.resources()), code(&about.nodes(report)));
        format!("- {}: {resources} on {nodes}\n", code(note))
    });
    block(page, "### Notes");
    block(page, &items.collect::<String>());
}

pub fn table(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = row(table.header().iter().map(Line::plain).collect());
    let marks = row(table.numeric().map(|right| if right { "---:" } else { "---" }.to_owned()).collect());
    let rows = table.rows().map(|cells| row(cells.iter().enumerate().map(cell).collect()));
    head + &marks + &rows.collect::<String>()
}

/// The first cell is a name, the others are words and figures.
fn cell((column, text): (usize, &Line)) -> String {
    match column {
        // Even in code a bar would end the cell.
        0 => code(&text.plain()).replace('|', "\\|"),
        _ => bare(&text.plain()),
    }
}

/// A code span: nothing in it is Markdown.
fn code(text: &str) -> String {
    // Made a line, so that newlines become visible.
    let text = Line::from(text).plain();
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
    format!("{ticks}{language}\n{text}{ticks}")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or_default()
}
