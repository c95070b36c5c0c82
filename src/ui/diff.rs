//! What differs, as rows: a unified diff for text, `mode: 0600 → 0644` for values.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

use super::line::Line;
use super::style::Style;
use crate::resource::Difference;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// After this long a diff is no longer the smallest possible.
const LIMIT: Duration = Duration::from_secs(2);

/// A row of a plan: what it is and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Role,
    /// `~ file /etc/hosts`
    Resource,
    /// Where the resource above is written.
    Place,
    /// `--- /etc/hosts` and `+++ /etc/hosts`
    DiffHead,
    /// A line of a unified diff.
    Diff,
    /// Anything else about the resource above.
    Detail,
    /// A handler of the role above.
    Handler,
}

impl Row {
    pub fn new(kind: Kind, line: Line) -> Self {
        Self { kind, line }
    }
}

/// Whether a resource is created, removed or changed by what differs.
pub fn sign(differences: &[Difference]) -> (&'static str, Style) {
    let mut sides = differences.iter().filter_map(|difference| match difference {
        Difference::Value { before, after, .. } | Difference::Text { before, after, .. } => {
            Some((before.is_some(), after.is_some()))
        }
        Difference::Secret { .. } => None,
    });
    match sides.next() {
        Some((false, true)) if sides.all(|side| side == (false, true)) => ("+", Style::Added),
        Some((true, false)) if sides.all(|side| side == (true, false)) => ("-", Style::Removed),
        _ => ("~", Style::Changed),
    }
}

/// The rows of all differences of a resource.
pub fn rows(differences: &[Difference]) -> Vec<Row> {
    let created = sign(differences).0 == "+";
    differences.iter().flat_map(|difference| one(difference, created)).collect()
}

fn one(difference: &Difference, created: bool) -> Vec<Row> {
    match difference {
        Difference::Text { path, before, after } => unified(path, before.as_deref(), after.as_deref()),
        Difference::Value { attribute, before, after } => {
            let name = Line::new().text(attribute).text(": ");
            let (before, after) = (before.as_deref(), after.as_deref().unwrap_or("absent"));
            let line = match before {
                None if created => name.styled(Style::Added, after),
                _ => name
                    .styled(Style::Removed, before.unwrap_or("absent"))
                    .text(" → ")
                    .styled(Style::Added, after),
            };
            vec![Row::new(Kind::Detail, line)]
        }
        Difference::Secret { attribute } => {
            vec![Row::new(Kind::Detail, Line::new().text(attribute).text(": differs (secret)"))]
        }
    }
}

fn unified(path: &str, before: Option<&str>, after: Option<&str>) -> Vec<Row> {
    let lines = |text: Option<&str>| -> Vec<String> {
        text.unwrap_or_default().split_inclusive('\n').map(str::to_owned).collect()
    };
    let label = |text: Option<&str>| if text.is_some() { path } else { "/dev/null" };
    let (old, new) = (lines(before), lines(after));
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
    let diff = TextDiff::configure().timeout(LIMIT).diff_slices(&old, &new);

    let head = |mark: &str, text| Line::new().styled(Style::Strong, mark).styled(Style::Strong, label(text));
    let mut rows =
        vec![Row::new(Kind::DiffHead, head("--- ", before)), Row::new(Kind::DiffHead, head("+++ ", after))];
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        rows.push(Row::new(Kind::Diff, Line::new().styled(Style::Hunk, hunk.header().to_string())));
        for change in hunk.iter_changes() {
            let (mark, style) = match change.tag() {
                ChangeTag::Equal => (" ", Style::Plain),
                ChangeTag::Delete => ("-", Style::Removed),
                ChangeTag::Insert => ("+", Style::Added),
            };
            let text = change.value();
            let shown = text.strip_suffix('\n').unwrap_or(text);
            rows.push(Row::new(Kind::Diff, Line::new().content(style, format!("{mark}{shown}"))));
            if !text.ends_with('\n') {
                let missing = Line::new().styled(Style::Dim, r"\ No newline at end of file");
                rows.push(Row::new(Kind::Diff, missing));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(difference: Difference) -> String {
        rows(&[difference]).iter().map(|row| row.line.plain() + "\n").collect()
    }

    fn text(before: Option<&str>, after: Option<&str>) -> Difference {
        Difference::Text {
            path: "/etc/motd".into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        }
    }

    #[test]
    fn text_is_a_unified_diff() {
        let before: String = (1..=12).map(|n| format!("line {n}\n")).collect();
        let after = before.replace("line 6\n", "\tsix\n").replace("line 12\n", "line 12");
        insta::assert_snapshot!(shown(text(Some(&before), Some(&after))), @r"
        --- /etc/motd
        +++ /etc/motd
        @@ -3,10 +3,10 @@
         line 3
         line 4
         line 5
        -line 6
        +	six
         line 7
         line 8
         line 9
         line 10
         line 11
        -line 12
        +line 12
        \ No newline at end of file
        ");
    }

    #[test]
    fn a_file_that_comes_or_goes_is_a_diff_against_nothing() {
        insta::assert_snapshot!(shown(text(None, Some("hello\n"))), @r"
        --- /dev/null
        +++ /etc/motd
        @@ -0,0 +1 @@
        +hello
        ");
        insta::assert_snapshot!(shown(text(Some("hello\r\n"), None)), @r"
        --- /etc/motd
        +++ /dev/null
        @@ -1 +0,0 @@
        -hello\u{d}
        ");
    }

    #[test]
    fn the_sign_says_what_becomes_of_it() {
        let value = |before, after| Difference::value("mode", before, after);
        let secret = Difference::Secret { attribute: "content".into() };
        let cases = [
            (vec![value(None, Some("a"))], "+"),
            (vec![secret.clone(), value(None, Some("a"))], "+"),
            (vec![value(Some("a"), None)], "-"),
            (vec![value(Some("a"), Some("b"))], "~"),
            (vec![value(None, Some("a")), value(Some("a"), Some("b"))], "~"),
            (vec![text(None, Some(""))], "+"),
            (vec![secret], "~"),
        ];
        for (differences, expected) in cases {
            assert_eq!(sign(&differences).0, expected, "{differences:?}");
        }
    }
}
