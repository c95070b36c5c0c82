//! What a command printed on each node: every line behind its node's name, so that the output can be searched.

use serde::Serialize;

use super::line::Line;
use super::style::Style;
use crate::transport::{Error, Output};

/// One node's result as a line of JSON.
#[derive(Serialize)]
pub struct Result<'a> {
    node: &'a str,
    /// `null` if the command was not run to its end; `error` then says why.
    status: Option<i32>,
    /// Bytes that are no UTF-8 are replaced by U+FFFD.
    stdout: String,
    stderr: String,
    error: Option<String>,
    hint: Option<String>,
}

impl<'a> Result<'a> {
    pub fn new(node: &'a str, result: &std::result::Result<Output, Error>) -> Self {
        match result {
            Ok(output) => Self {
                node,
                status: Some(output.status),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                error: None,
                hint: None,
            },
            Err(error) => Self {
                node,
                status: None,
                stdout: String::new(),
                stderr: String::new(),
                error: Some(error.to_string()),
                hint: error.hint(),
            },
        }
    }

    /// For standard output.
    pub fn out(&self) -> Vec<Line> {
        self.printed(&self.stdout, Style::Plain)
    }

    /// For standard error: what the command printed there, and how it ended if not well.
    pub fn err(&self) -> Vec<Line> {
        let mut lines = self.printed(&self.stderr, Style::Dim);
        match (self.status, &self.error) {
            (Some(0), _) => {}
            (Some(status), _) => {
                lines.push(self.head().styled(Style::Bad, "error").text(format!(": exit status {status}")));
            }
            (None, error) => {
                let error = error.as_deref().unwrap_or_default();
                lines.push(self.head().styled(Style::Bad, "error").text(": ").text(error));
            }
        }
        let hint = self.hint.iter().map(|hint| self.head().styled(Style::Hint, "hint").text(": ").text(hint));
        lines.extend(hint);
        lines
    }

    fn printed(&self, text: &str, style: Style) -> Vec<Line> {
        text.lines().map(|line| self.head().content(style, line)).collect()
    }

    fn head(&self) -> Line {
        Line::new().styled(Style::Strong, self.node).text(": ")
    }

    /// What to show when not by line: both streams, for Markdown.
    pub fn all(&self) -> Vec<Line> {
        let text = [self.stdout.as_str(), self.stderr.as_str()];
        let lines = text.iter().flat_map(|text| text.lines());
        let end = match (self.status, &self.error) {
            (Some(0), _) => None,
            (Some(status), _) => Some(format!("error: exit status {status}")),
            (None, error) => Some(format!("error: {}", error.as_deref().unwrap_or_default())),
        };
        let hint = self.hint.iter().map(|hint| format!("hint: {hint}"));
        let lines = lines.map(|line| Line::new().content(Style::Plain, line));
        lines.chain(end.into_iter().chain(hint).map(Line::from)).collect()
    }
}
