//! A line of output: pieces of text with a style each. The only way text gets onto the screen, and clean by
//! construction: every piece passes through [`super::text`] as it is added.

use super::style::Style;
use super::text;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub style: Style,
    pub text: String,
}

impl Line {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text in the plain style.
    pub fn text(self, text: impl AsRef<str>) -> Self {
        self.styled(Style::Plain, text)
    }

    /// Adds text; a newline or tab in it becomes visible.
    pub fn styled(self, style: Style, text: impl AsRef<str>) -> Self {
        self.push(style, text::one_line(text.as_ref()).into_owned())
    }

    /// Adds a line of a file or of a program's output: tabs stay.
    pub fn content(self, style: Style, text: impl AsRef<str>) -> Self {
        self.push(style, text::keep_tabs(text.as_ref()).into_owned())
    }

    pub fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The line behind `columns` spaces.
    pub fn indent(self, columns: usize) -> Self {
        Self::new().text(" ".repeat(columns)).join(self)
    }

    /// Spaces up to `columns`, on the right.
    pub fn pad(self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.width());
        self.push(Style::Plain, " ".repeat(missing))
    }

    /// Spaces up to `columns`, on the left.
    pub fn pad_left(self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.width());
        self.indent(missing)
    }

    pub fn width(&self) -> usize {
        self.0.iter().map(|piece| text::width(&piece.text)).sum()
    }

    /// At most `columns` wide; what was cut off is shown as `…`.
    pub fn truncate(self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let Some(mut left) = columns.checked_sub(1) else { return Self::new() };
        let mut short = Self::new();
        for piece in self.0 {
            let fits = prefix(&piece.text, left);
            let whole = fits.len() == piece.text.len();
            left -= text::width(fits);
            short = short.push(piece.style, fits.to_owned());
            if !whole {
                return short.push(piece.style, "…".to_owned());
            }
        }
        short
    }

    /// Without the spaces at its end.
    pub fn trim_end(mut self) -> Self {
        while let Some(last) = self.0.last_mut() {
            last.text.truncate(last.text.trim_end_matches(' ').len());
            if !last.text.is_empty() {
                break;
            }
            self.0.pop();
        }
        self
    }

    /// Without styles.
    pub fn plain(&self) -> String {
        self.painted(false)
    }

    /// With escapes for colour if `color`.
    pub fn painted(&self, color: bool) -> String {
        let paint = |piece: &Piece| if color { piece.style.paint(&piece.text) } else { piece.text.clone() };
        self.0.iter().map(paint).collect()
    }

    /// The same line, its clean text changed by `change`.
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        let change = |piece: &Piece| Piece { style: piece.style, text: change(&piece.text) };
        Self(self.0.iter().map(change).collect())
    }

    fn push(mut self, style: Style, text: String) -> Self {
        if !text.is_empty() {
            self.0.push(Piece { style, text });
        }
        self
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        Self::new().text(text)
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self::new().text(text)
    }
}

/// The longest beginning of `text` that is at most `columns` wide.
fn prefix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += text::width(c.encode_utf8(&mut [0; 4]));
        if used > columns {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_and_truncation_count_columns_not_characters() {
        let line = Line::new().styled(Style::Strong, "日本語").text(" node");
        assert_eq!(line.width(), 11);
        assert_eq!(line.clone().truncate(11).plain(), "日本語 node");
        assert_eq!(line.clone().truncate(8).plain(), "日本語 …");
        assert_eq!(line.clone().truncate(6).plain(), "日本…");
        assert_eq!(line.clone().truncate(1).plain(), "…");
        assert_eq!(line.clone().truncate(0).plain(), "");
        for columns in 0..12 {
            assert!(line.clone().truncate(columns).width() <= columns);
        }
        assert_eq!(Line::from("日本").pad(6).text("|").plain(), "日本  |");
        assert_eq!(Line::from("日本").pad_left(6).plain(), "  日本");
    }

    #[test]
    fn colour_goes_around_clean_text_only() {
        let line = Line::new().styled(Style::Bad, "a\u{1b}[0m").text("b   ").trim_end();
        assert_eq!(line.painted(true), "\u{1b}[31m\u{1b}[1ma\\u{1b}[0m\u{1b}[0mb");
        assert_eq!(line.plain(), "a\\u{1b}[0mb");
    }
}
