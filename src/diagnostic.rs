//! A mistake in a file a person wrote: what is wrong, where in the text, and what to write instead.
//!
//! Collected, not thrown: all mistakes of a file are reported in one go. `ui` renders them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A text file a person wrote, kept so that a mistake can show its own line.
#[derive(PartialEq, Eq)]
pub struct Source {
    /// The path as the user knows it; built-in files are named `builtin:roles/base/role.toml`.
    pub path: PathBuf,
    pub text: String,
}

/// By hand, for the text is long and stands in every place.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source {
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into() })
    }

    /// Line and column of a byte offset, both counted from 1; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset.min(self.text.len()))];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A place in a source: `roles/base/role.toml:12` when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub source: Arc<Source>,
    /// Byte range in the source's text.
    pub span: Range<usize>,
}

impl Place {
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self { source: source.clone(), span }
    }

    pub fn path(&self) -> &Path {
        &self.source.path
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.source.path.display(), self.source.position(self.span.start).0)
    }
}

/// One mistake. `message` is a lower-case sentence without a full stop; `label` stands under the span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub message: String,
    pub place: Option<Place>,
    pub label: Option<String>,
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, label: None, help: None }
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All mistakes found; an error whose text is their number and the first one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.first().map_or("no mistakes", |d| d.message.as_str()))]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// The valid word nearest to a mistyped one, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    valid
        .into_iter()
        .map(|v| (strsim::damerau_levenshtein(&word.to_lowercase(), &v.to_lowercase()), v))
        .filter(|(distance, v)| *distance <= 1 + v.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, v)| v)
}

/// "did you mean `x`?" or the list of valid words.
pub fn suggest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, valid.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if valid.clone().into_iter().next().is_none() => "there is none".into(),
        None => {
            format!("valid: {}", valid.into_iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source::new("x", "ä = 1\nb = 2\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(3), (1, 3));
        assert_eq!(source.position(7), (2, 1));
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        assert_eq!(nearest("orpi1", ["orpi-0", "orpi-1", "nas"]), Some("orpi-1"));
        assert_eq!(nearest("banana", ["orpi-0", "nas"]), None);
    }
}
