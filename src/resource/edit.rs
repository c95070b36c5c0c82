//! Editing part of a text file that something else owns: what `line`, `block` and `hosts_entry` share.

use serde::Deserialize;

use super::text::{Seen, Source, Write, content_difference, octal};
use super::{Change, Verdict};
use crate::probe::{Answers, Content, FileType, Question, Stat, Unanswered};

/// Whether something should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Present,
    Absent,
}

/// What an edit has to know.
pub fn questions(path: &str) -> Vec<Question> {
    vec![Question::Stat(path.to_owned()), Question::Content { path: path.to_owned(), unless: String::new() }]
}

/// The text of a file that is to be edited in part; `None` where there is none. The error says, after the path, why
/// it cannot be edited.
pub fn before<'a>(stat: Option<&Stat>, content: &'a Content) -> Result<Option<&'a str>, String> {
    let bytes = match (stat.map(|s| s.file_type), content) {
        (Some(FileType::Link), _) => return Err("is a link; name the file it leads to".into()),
        (Some(FileType::Directory | FileType::Other), _) | (_, Content::NotAFile) => {
            return Err("is not a regular file; move it away or name another path".into());
        }
        (_, Content::TooLarge(size)) => {
            return Err(format!("is too large to edit ({size} B); manage it as a whole with `file`"));
        }
        (_, Content::Differs(bytes)) => bytes,
        // The question's empty `unless` asks for the content always; `Same` can only be an empty answer.
        (_, Content::Absent | Content::Same) => return Ok(None),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err("is not UTF-8 text; manage it as a whole with `file`".into()),
    }
}

/// Compares a file's text with what `edit` makes of it. `edit` is pure, idempotent, and says why it must not be done.
/// The write keeps mode and owner, and refuses if the file is no longer the one that was seen. With `create`, a
/// file that is missing is made (0644, root); without, the verdict is unknown.
pub fn diff(
    path: &str,
    create: bool,
    seen: &Answers,
    edit: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Verdict, Unanswered> {
    let stat = seen.stat(path)?;
    let refused = |reason: &str| Ok(Verdict::Refused(format!("{path} {reason}")));
    let before = match before(stat.as_ref(), seen.content(path, "")?) {
        Ok(before) => before,
        Err(reason) => return refused(&reason),
    };
    let text = before.unwrap_or_default();
    let after = match edit(text) {
        Ok(after) => after,
        Err(reason) => return refused(&reason),
    };
    if after == text {
        return Ok(Verdict::Converged);
    }
    if before.is_none() && !create {
        return Ok(Verdict::Unknown(format!("{path} does not exist yet (set create = true to make it)")));
    }
    let mode = stat.as_ref().map_or_else(|| "0644".to_owned(), |s| octal(s.mode));
    let (owner, group) = stat.as_ref().map_or(("root", "root"), |s| (&s.owner, &s.group));
    let shell = Write {
        path,
        source: Source::Bytes(after.as_bytes()),
        mode: &mode,
        owner,
        group,
        backup: false,
        validate: None,
        seen: before.map_or(Seen::Absent, |text| Seen::Bytes(text.as_bytes())),
    }
    .shell();
    Ok(Verdict::Differs(Change::new(
        vec![content_difference(path, before.map(str::as_bytes), after.as_bytes())],
        shell,
    )))
}

/// Lines joined to a text that ends with a newline, unless it is empty.
pub fn join<S: AsRef<str>>(lines: &[S]) -> String {
    lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect()
}
