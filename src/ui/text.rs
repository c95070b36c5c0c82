//! Text that may be shown: control characters, direction overrides and invisible characters made visible.
//!
//! What a node, a file or a person wrote is hostile. Everything [`super`] prints is made of
//! [`super::line::Line`]s, and a line takes text in only through here.

use std::borrow::Cow;

use console::measure_text_width;

pub use crate::printable::deceives;

/// One line: newlines and tabs become visible too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, deceives)
}

/// One line of a file or of a program's output: tabs stay.
pub fn keep_tabs(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\t' && deceives(c))
}

fn escape(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' if hidden(c) => shown.push_str("\\n"),
            '\t' if hidden(c) => shown.push_str("\\t"),
            _ if hidden(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Columns on a terminal. The text holds no escapes.
pub fn width(text: &str) -> usize {
    measure_text_width(text)
}

/// `3 changes`, `1 change`.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `0 ms`, `850 ms`, `1.2 s`, `47 s`, `2 min 5 s`, `1 h 3 min`.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..10_000 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        10_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(one_line("a\u{1b}[2J\r\u{7}\u{8}b"), r"a\u{1b}[2J\u{d}\u{7}\u{8}b");
        assert_eq!(one_line("\u{9b}31m"), r"\u{9b}31m");
        assert_eq!(one_line("a\u{202e}b\u{200b}c\u{2066}"), r"a\u{202e}b\u{200b}c\u{2066}");
        assert_eq!(one_line("a\tb\nc"), r"a\tb\nc");
        assert_eq!(keep_tabs("a\tb\r"), "a\tb\\u{d}");
        for c in (0..=0x11_ffff).filter_map(char::from_u32) {
            assert!(!one_line(&c.to_string()).chars().any(deceives), "{c:?}");
        }
    }

    #[test]
    fn honest_text_stays_as_it_is() {
        for text in ["", "/etc/hosts", "größer 日本語 → ✓", "e\u{301}", r"\u{1b}"] {
            assert!(matches!(one_line(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn durations_are_short() {
        let shown: Vec<_> =
            [0, 999, 1000, 9_990, 10_000, 59_999, 61_500, 3_780_000].into_iter().map(duration).collect();
        assert_eq!(shown, ["0 ms", "999 ms", "1.0 s", "9.9 s", "10 s", "59 s", "1 min 1 s", "1 h 3 min"]);
    }
}
