//! `block`: several lines, between two markers, in a text file that something else owns.

use serde::Deserialize;

use super::edit::{self, State};
use super::text::check_path;
use super::{Reach, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};

/// Lines between `# BEGIN datahub NAME` and `# END datahub NAME`. All other lines stay as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The file; not a link.
    pub path: String,
    /// What tells this block from others in the same file.
    pub name: String,
    /// The lines. Needed unless `state = "absent"`.
    #[serde(default)]
    pub content: String,
    /// What starts a comment in this file's language. Default: `#`.
    #[serde(default = "hash")]
    pub comment: String,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: State,
    /// Makes the file (0644, root) if it is missing. Default: false.
    #[serde(default)]
    pub create: bool,
}

fn hash() -> String {
    "#".into()
}

impl Block {
    fn markers(&self) -> (String, String) {
        let marker = |word| format!("{} {word} datahub {}", self.comment, self.name);
        (marker("BEGIN"), marker("END"))
    }

    fn edit(&self, text: &str) -> Result<String, String> {
        let (begin, end) = self.markers();
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        let at = |marker: &str| {
            let found: Vec<usize> =
                lines.iter().enumerate().filter(|(_, l)| **l == marker).map(|(i, _)| i).collect();
            match found[..] {
                [] => Ok(None),
                [one] => Ok(Some(one)),
                _ => Err(format!("holds the marker `{marker}` more than once; remove all but one by hand")),
            }
        };
        let (before, rest) = match (at(&begin)?, at(&end)?) {
            (None, None) if self.state == State::Absent => return Ok(text.to_owned()),
            (None, None) => (&lines[..], &[][..]),
            (Some(from), Some(to)) if from < to => (&lines[..from], &lines[to + 1..]),
            _ => {
                return Err(format!(
                    "does not hold `{begin}` and then `{end}`, only one of them or the other way round; repair it by hand"
                ));
            }
        };
        let mut after = before.to_vec();
        if self.state == State::Present {
            after.push(&begin);
            after.extend(self.content.split_terminator('\n'));
            after.push(&end);
        }
        after.extend(rest);
        Ok(if after == lines { text.to_owned() } else { edit::join(&after) })
    }
}

impl Resource for Block {
    fn name(&self) -> String {
        format!("{}: {}", self.path, self.name)
    }

    fn questions(&self) -> Vec<Question> {
        edit::questions(&self.path)
    }

    fn reach(&self) -> Reach {
        Reach::Below
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        edit::diff(&self.path, self.create, seen, |text| self.edit(text))
    }

    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        for (field, value) in [("name", &self.name), ("comment", &self.comment)] {
            if value.trim().is_empty() || value.contains('\n') {
                return Err(format!("`{field}` must be one line, not empty"));
            }
        }
        let (begin, end) = self.markers();
        if self.content.split('\n').any(|line| line == begin || line == end) {
            return Err("`content` must not hold the block's own markers".into());
        }
        if self.content.is_empty() && self.state == State::Present {
            return Err("`content` must not be empty; use state = \"absent\" to remove the block".into());
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
        let there = "x\n# BEGIN datahub b\n1\n2\n# END datahub b\ny\n";
        let cases = [
            ("present", there, Some(there)),
            ("present", "", Some("# BEGIN datahub b\n1\n2\n# END datahub b\n")),
            ("present", "x", Some("x\n# BEGIN datahub b\n1\n2\n# END datahub b\n")),
            ("present", "x\n# BEGIN datahub b\n9\n# END datahub b\ny\n", Some(there)),
            ("present", "# BEGIN datahub b\n1\n2\n", None),
            ("present", "# END datahub b\n# BEGIN datahub b\n", None),
            ("present", &format!("{there}{there}"), None),
            ("absent", "x\ny", Some("x\ny")),
            ("absent", there, Some("x\ny\n")),
        ];
        for (state, before, after) in cases {
            let fields = format!("path = '/x'\nname = 'b'\ncontent = \"1\\n2\\n\"\nstate = '{state}'");
            let block: Block = toml::from_str(&fields).unwrap();
            block.check().unwrap();
            assert_eq!(block.edit(before).ok().as_deref(), after, "{state} on {before:?}");
            if let Some(after) = after {
                assert_eq!(block.edit(after).as_deref(), Ok(after), "{state} twice on {before:?}");
            }
        }
    }

    #[test]
    fn the_shell_writes_what_the_diff_shows() {
        let file = TextFile::with("it's\n", 0o600);
        let block = build(
            "block",
            &format!("path = '{}'\nname = 'a b'\ncontent = '$HOME'\ncomment = ';'", file.path()),
        );
        let Verdict::Differs(change) = file.diff(&*block) else { panic!("differs") };
        file.run(&change.shell).unwrap();
        assert_eq!(file.read(), "it's\n; BEGIN datahub a b\n$HOME\n; END datahub a b\n");
        assert_eq!(file.diff(&*block), Verdict::Converged);
    }
}
