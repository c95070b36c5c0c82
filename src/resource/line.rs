//! `line`: one line in a text file that something else owns.

use serde::Deserialize;

use super::edit::{self, State};
use super::text::check_path;
use super::{Reach, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};

/// A line that must, or must not, be in a file. All other lines stay as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The file; not a link.
    pub path: String,
    /// The whole line. Needed unless `state = "absent"` and `prefix` is given.
    #[serde(default)]
    pub line: String,
    /// Lines that start with this are taken for older forms of `line`: the first of them is replaced, the others go.
    /// With `state = "absent"` all of them go.
    #[serde(default)]
    pub prefix: Option<String>,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: State,
    /// Makes the file (0644, root) if it is missing. Default: false.
    #[serde(default)]
    pub create: bool,
}

impl Line {
    fn matches(&self, line: &str) -> bool {
        let whole = line == self.line && !(self.line.is_empty() && self.prefix.is_some());
        whole || self.prefix.as_ref().is_some_and(|prefix| line.starts_with(prefix.as_str()))
    }

    fn edit(&self, text: &str) -> String {
        let mut lines = Vec::new();
        let mut placed = false;
        for line in text.lines_lf() {
            if !self.matches(line) {
                lines.push(line);
            } else if self.state == State::Present && (!placed || self.prefix.is_none()) {
                lines.push(&self.line);
                placed = true;
            }
        }
        if self.state == State::Present && !placed {
            lines.push(&self.line);
        }
        // A file whose last line lacks its newline is not rewritten for that alone.
        if text.lines_lf().eq(lines.iter().copied()) { text.to_owned() } else { edit::join(&lines) }
    }
}

/// Lines by `\n` alone: a `\r` belongs to its line, so that an edit leaves it there.
trait LinesLf {
    fn lines_lf(&self) -> impl Iterator<Item = &str>;
}

impl LinesLf for str {
    fn lines_lf(&self) -> impl Iterator<Item = &str> {
        self.split_terminator('\n')
    }
}

impl Resource for Line {
    fn name(&self) -> String {
        let what = self.prefix.as_deref().unwrap_or(&self.line);
        format!("{}: {what}", self.path)
    }

    fn questions(&self) -> Vec<Question> {
        edit::questions(&self.path)
    }

    fn reach(&self) -> Reach {
        Reach::Below
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        edit::diff(&self.path, self.create, seen, |text| Ok(self.edit(text)))
    }

    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        if self.line.contains('\n') {
            return Err("`line` must be one line; use `block` for several".into());
        }
        if self.line.is_empty() && (self.state == State::Present || self.prefix.is_none()) {
            return Err("`line` must not be empty".into());
        }
        if self.prefix.as_ref().is_some_and(|p| p.is_empty() || p.contains('\n')) {
            return Err("`prefix` must be the start of one line, not empty".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{TextFile, build};

    #[test]
    fn edits_as_data() {
        let present = "line = 'a 1'";
        let keyed = "line = 'a 1'\nprefix = 'a '";
        let cases = [
            (present, "a 1\n", "a 1\n"),
            (present, "x\na 1", "x\na 1"),
            (present, "a 1\na 1\n", "a 1\na 1\n"),
            (present, "x", "x\na 1\n"),
            (present, "x\r\n", "x\r\na 1\n"),
            (keyed, "a 1\nb\n", "a 1\nb\n"),
            (keyed, "a 2\nb\na 3\n", "a 1\nb\n"),
            (keyed, " a 2\nab\n", " a 2\nab\na 1\n"),
            ("line = 'a 1'\nstate = 'absent'", "b\n", "b\n"),
            ("line = 'a 1'\nstate = 'absent'", "a 1\nb\na 1\n", "b\n"),
            ("prefix = 'a '\nstate = 'absent'", "a 1\n\nb\na 2\n", "\nb\n"),
        ];
        for (fields, before, after) in cases {
            let line: Line = toml::from_str(&format!("path = '/x'\n{fields}")).unwrap();
            line.check().unwrap();
            assert_eq!(line.edit(before), after, "{fields} on {before:?}");
            assert_eq!(line.edit(after), after, "{fields} twice on {before:?}");
        }
    }

    #[test]
    fn a_missing_file_is_made_only_when_asked() {
        let file = TextFile::missing();
        let fields = |more: &str| format!("path = '{}'\nline = 'x'\n{more}", file.path());
        assert!(matches!(file.diff(&*build("line", &fields(""))), Verdict::Unknown(_)));
        assert!(matches!(file.diff(&*build("line", &fields("create = true"))), Verdict::Differs(_)));
        assert_eq!(file.diff(&*build("line", &fields("state = 'absent'"))), Verdict::Converged);
    }

    #[test]
    fn the_shell_keeps_the_mode_and_refuses_a_file_that_has_changed() {
        let file = TextFile::with("old\n", 0o640);
        let line = build("line", &format!("path = '{}'\nline = 'new'", file.path()));
        let Verdict::Differs(change) = file.diff(&*line) else { panic!("differs") };
        file.write("someone else\n");
        let error = file.run(&change.shell).unwrap_err();
        assert!(error.contains("changed since it was looked at"), "{error}");
        assert_eq!(file.read(), "someone else\n");

        file.write("old\n");
        file.run(&change.shell).unwrap();
        file.run(&change.shell).expect("twice is harmless");
        assert_eq!((file.read().as_str(), file.mode()), ("old\nnew\n", 0o640));
        assert_eq!(file.diff(&*line), Verdict::Converged);
        assert_eq!(file.neighbours(), ["file"]);
    }
}
