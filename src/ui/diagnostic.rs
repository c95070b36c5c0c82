//! Mistakes in files a person wrote, each with its place in the text: file, line and column, the line itself, what
//! is wrong with it and what to write instead. Drawn by miette.

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceSpan};

use super::text::{self, count};
use crate::diagnostic::{Diagnostic, Diagnostics, Place};

/// Columns where there is no terminal to measure.
const COLUMNS: usize = 80;

/// All mistakes and their number; clean, and with escapes for colour only if `color`.
pub fn render(diagnostics: &Diagnostics, columns: Option<usize>, color: bool) -> String {
    let mut theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    theme.characters.error = "error:".into();
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(columns.unwrap_or(COLUMNS).clamp(20, 120))
        .with_context_lines(1)
        .with_links(false)
        .without_cause_chain();
    let mut text = String::new();
    for diagnostic in &diagnostics.0 {
        let report = Report::new(diagnostic);
        let mut drawn = String::new();
        if handler.render_report(&mut drawn, &report).is_err() {
            drawn = format!("error: {}\n", report.message);
        }
        // miette indents the message, unlike every other error.
        text.push_str(&drawn.replacen("  error:", "error:", 1));
        text.push('\n');
    }
    text.push_str(&count(diagnostics.0.len(), "mistake"));
    text.push('\n');
    text
}

/// A diagnostic as miette wants it, its texts clean.
#[derive(Debug)]
struct Report {
    message: String,
    help: Option<String>,
    source: Option<NamedSource<String>>,
    label: Option<LabeledSpan>,
}

impl Report {
    fn new(diagnostic: &Diagnostic) -> Self {
        let label = diagnostic.label.as_deref().map(|label| text::one_line(label).into_owned());
        let place = diagnostic.place.as_ref();
        Self {
            message: clean(&diagnostic.message),
            help: diagnostic.help.as_deref().map(clean),
            source: place.map(|place| {
                let path = place.path().display().to_string();
                NamedSource::new(text::one_line(&path), clean(&place.source.text))
            }),
            label: place.map(|place| LabeledSpan::new_with_span(label, span(place))),
        }
    }
}

/// Where the place is once its source is clean: every escape before it moves it.
fn span(place: &Place) -> SourceSpan {
    let text = &place.source.text;
    let offset = |at: usize| clean(&text[..text.floor_char_boundary(at.min(text.len()))]).len();
    let start = offset(place.span.start);
    (start, offset(place.span.end).saturating_sub(start)).into()
}

/// Clean text of several lines.
fn clean(text: &str) -> String {
    text.split('\n').map(text::keep_tabs).collect::<Vec<_>>().join("\n")
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl miette::Diagnostic for Report {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label.clone().map(|label| Box::new(std::iter::once(label)) as _)
    }
}
