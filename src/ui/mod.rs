//! The only place that prints.
//!
//! Results go to standard output (the plan, the table, what was asked for); what happens meanwhile and mistakes go to
//! standard error, so `datahub plan >plan.txt` shows progress and keeps the plan. All text is made of
//! [`line::Line`]s, which are clean by construction, and leaves through one [`screen::Screen`].
//!
//! A run: events → [`report`] (what it came to) and [`progress`] (what is done now) → [`feed`] (lines that stay),
//! [`live`] (the picture), and at its end [`plan`], [`fold`] and [`page`], [`failure`], [`summary`], or [`markdown`].

mod diagnostic;
mod diff;
mod exec;
mod failure;
mod feed;
mod fold;
mod follow;
mod json;
mod line;
mod live;
mod markdown;
mod own;
mod page;
mod plan;
mod progress;
mod prompt;
mod report;
mod screen;
mod style;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::io::IsTerminal as _;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::engine::event::Event;
use crate::engine::record::Record;
use crate::transport::prompt::{NoPrompts, Prompter};
use crate::transport::{self, Output};
use line::Line;
use screen::{Channel, Screen, Stream};
use style::Style;

/// How results are written (`--format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one value, or for a run one event a line.
    Json,
    /// For a comment on a pull request.
    Markdown,
}

/// When colour is used (`--color`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR, CLICOLOR or TERM say otherwise.
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    pub format: Format,
    pub color: ColorChoice,
    /// Nothing but errors, and the results asked for.
    pub quiet: bool,
    /// Diffs of what is changed, waits, logins.
    pub verbose: bool,
}

/// Where everything is printed; cheap to clone.
#[derive(Clone)]
pub struct Ui {
    settings: Settings,
    screen: Arc<Screen>,
}

impl Ui {
    /// Looks at the terminals and the environment once.
    pub fn new(settings: Settings) -> Self {
        let color = |terminal| style::wanted(settings.color, |name| std::env::var(name).ok(), terminal);
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let out = Channel {
            size: || console::Term::stdout().size_checked(),
            ..Channel::new(std::io::stdout(), out, color(out))
        };
        let err = Channel {
            size: || console::Term::stderr().size_checked(),
            live: err && !console::is_dumb(),
            ..Channel::new(std::io::stderr(), err, color(err))
        };
        Self { settings, screen: Arc::new(Screen::new(out, err)) }
    }

    /// Writes into memory instead: standard output and standard error. A terminal has 80 columns.
    #[cfg(test)]
    fn captured(
        settings: Settings,
        out: impl std::io::Write + Send + 'static,
        err: impl std::io::Write + Send + 'static,
        terminal: bool,
    ) -> Self {
        let color = settings.color == ColorChoice::Always;
        let (out, err) = (Channel::new(out, terminal, color), Channel::new(err, terminal, color));
        Self { settings, screen: Arc::new(Screen::new(out, err)) }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A result, of one or more lines, on standard output.
    pub fn line(&self, text: &str) {
        let lines: Vec<Line> = text.split('\n').map(|line| Line::new().content(Style::Plain, line)).collect();
        self.screen.lines(Stream::Out, &lines);
    }

    /// A document, such as a kubeconfig or shell completions: byte for byte into a pipe or a file, clean lines on
    /// a terminal.
    pub fn document(&self, text: &str) {
        match self.screen.is_terminal(Stream::Out) {
            true => self.line(text.strip_suffix('\n').unwrap_or(text)),
            false => self.screen.bytes(Stream::Out, text),
        }
    }

    /// What is being done: `   Building image trixie`. For people only.
    pub fn status(&self, verb: &str, text: &str) {
        if !self.settings.quiet && self.settings.format != Format::Json {
            let verb = Line::new().styled(Style::Good, verb).pad_left(STATUS_WIDTH);
            self.screen.lines(Stream::Err, &[verb.text(" ").text(text)]);
        }
    }

    pub fn note(&self, text: &str) {
        if !self.settings.quiet && self.settings.format != Format::Json {
            self.labelled(Style::Strong, "note", text);
        }
    }

    pub fn warning(&self, text: &str) {
        if !self.settings.quiet {
            self.labelled(Style::Warning, "warning", text);
        }
    }

    /// A mistake that does not matter yet, as a warning with its place, and what to do about it.
    pub fn advice(&self, diagnostic: &Diagnostic) {
        let place = diagnostic.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        self.warning(&format!("{place}{}", diagnostic.message));
        diagnostic.help.iter().for_each(|help| self.hint(help));
    }

    pub fn hint(&self, text: &str) {
        if !self.settings.quiet && self.settings.format != Format::Json {
            self.labelled(Style::Hint, "hint", text);
        }
    }

    /// What went wrong, details beneath it, and what to do next. Printed in every format, quiet or not.
    pub fn error(&self, message: &str, details: &[String], hint: Option<&str>) {
        let mut lines = labelled(Style::Bad, "error", message);
        let details = details.iter().flat_map(|detail| detail.lines());
        lines.extend(details.map(|detail| Line::new().content(Style::Plain, detail).indent(2)));
        lines.extend(
            hint.into_iter().flat_map(|hint| labelled(Style::Hint, "hint", hint)).map(|l| l.indent(2)),
        );
        self.screen.lines(Stream::Err, &lines);
    }

    /// Every mistake with its place in the text, then their number.
    pub fn diagnostics(&self, diagnostics: &Diagnostics) {
        let columns = self.screen.columns(Stream::Err);
        let text = diagnostic::render(diagnostics, columns, self.screen.color(Stream::Err));
        self.screen.bytes(Stream::Err, text);
    }

    /// A table, cut to the terminal's width on a terminal only; as Markdown if that is the format.
    pub fn table(&self, columns: &[&str], rows: &[Vec<String>]) {
        let mut table = table::Table::new(columns.iter().copied());
        for row in rows {
            table.row(row.iter().map(|cell| Line::from(cell.as_str())));
        }
        match self.settings.format {
            Format::Markdown => self.screen.bytes(Stream::Out, markdown::table(&table)),
            _ => self.screen.lines(Stream::Out, &table.lines(self.screen.columns(Stream::Out))),
        }
    }

    /// One JSON value, indented.
    pub fn json(&self, value: &impl Serialize) {
        self.written(json::pretty(value));
    }

    /// Asks a yes-or-no question; `None` when there is nobody to ask.
    pub fn confirm(&self, question: &str) -> Option<bool> {
        prompt::confirm(&self.screen, question)
    }

    /// Asks for passwords on the terminal; declines where there is none.
    pub fn prompter(&self) -> Arc<dyn Prompter> {
        if std::io::stdin().is_terminal() && self.screen.is_terminal(Stream::Err) {
            Arc::new(prompt::Terminal(self.screen.clone()))
        } else {
            Arc::new(NoPrompts)
        }
    }

    /// Says that an interrupt was taken note of.
    pub fn interrupted(&self, second: bool) {
        self.screen.interrupt();
        let text = match second {
            false => "interrupted; finishing the running steps, Ctrl-C again stops now",
            true => "stopping now",
        };
        // Even if quiet: who presses a key wants an answer.
        self.labelled(Style::Warning, "warning", text);
    }

    /// Draws a run to its end and writes every event to its record.
    pub async fn follow(&self, events: UnboundedReceiver<Event>, record: Option<Record>) {
        follow::Follow::new(self, record).run(events).await;
    }

    /// What a command run on a node came to: its output behind the node's name on the stream it was printed on.
    /// As JSON one object a line: `node`, `status`, `stdout`, `stderr`, `error`, `hint`.
    pub fn node_output(&self, node: &str, result: &Result<Output, transport::Error>) {
        let result = exec::Result::new(node, result);
        match self.settings.format {
            Format::Text => {
                self.screen.lines(Stream::Out, &result.out());
                self.screen.lines(Stream::Err, &result.err());
            }
            Format::Json => self.written(json::compact(&result)),
            Format::Markdown => self.screen.bytes(Stream::Out, markdown::output(node, &result.all())),
        }
    }

    /// Whether a result could not be written, for another reason than that its reader has gone away (which is no
    /// mistake: `datahub plan | head`). It was said on standard error; the exit code should say it too.
    pub fn lost_output(&self) -> bool {
        self.screen.lost_output()
    }

    fn written(&self, json: serde_json::Result<String>) {
        match json {
            Ok(text) => self.screen.bytes(Stream::Out, text),
            Err(e) => self.error("the result cannot be written as JSON", &[e.to_string()], None),
        }
    }

    fn labelled(&self, style: Style, label: &str, text: &str) {
        self.screen.lines(Stream::Err, &labelled(style, label, text));
    }
}

/// Columns of a status verb, as in cargo.
const STATUS_WIDTH: usize = 12;

/// `label: text`; further lines of the text stand beneath its first.
fn labelled(style: Style, label: &str, text: &str) -> Vec<Line> {
    let mut lines = text.split('\n');
    let first =
        Line::new().styled(style, label).text(": ").content(Style::Plain, lines.next().unwrap_or_default());
    let rest = lines.map(|line| Line::new().content(Style::Plain, line).indent(text::width(label) + 2));
    std::iter::once(first).chain(rest).collect()
}
