//! `group`: a local group.

use serde::Deserialize;

use super::edit::State;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Question, Unanswered};
use crate::shell::quote;

/// A local group. Who is in it is said by `user`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Letters, digits, `_`, `-` and `.`, at most 32.
    pub name: String,
    /// Its number. Default: the next free one; that of a group which is there is left as it is.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Take the number from those of the system's own groups. Only for a group that is made. Default: false.
    #[serde(default)]
    pub system: bool,
    /// Change the number of a group that is there, instead of refusing. Files keep the old number. Default: false.
    #[serde(default)]
    pub force: bool,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: State,
}

/// A name that Debian's `useradd` and `groupadd` take and that every program can work with: it starts with a letter
/// or `_`, holds letters, digits, `_`, `-` and `.`, may end with `$`, and has at most 32 characters.
pub(super) fn check_account(what: &str, name: &str) -> Result<(), String> {
    let stem = name.strip_suffix('$').unwrap_or(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let first = stem.chars().next();
    let reason = if !first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
        "it must start with a letter or _"
    } else if !stem.chars().all(plain) {
        "only letters, digits, _ - and . are allowed"
    } else if name.len() > 32 {
        "it is longer than 32 characters"
    } else {
        return Ok(());
    };
    Err(format!("{what} {name:?} cannot be the name of an account or group: {reason}"))
}

impl Group {
    fn made(&self) -> Change {
        let system = if self.system { " --system" } else { "" };
        let gid = self.gid.map_or_else(String::new, |gid| format!(" --gid {gid}"));
        let name = quote(&self.name);
        let what = match self.gid {
            Some(gid) => format!("gid {gid}"),
            None => "present".to_owned(),
        };
        let shell = format!("getent group {name} >/dev/null || groupadd{system}{gid} -- {name} || exit 1\n");
        Change::new(vec![Difference::value("group", None, Some(&what))], shell)
    }
}

impl Resource for Group {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::Group(self.name.clone())]
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let (group, name) = (seen.group(&self.name)?, quote(&self.name));
        Ok(match (group, self.state, self.gid) {
            (None, State::Absent, _) => Verdict::Converged,
            (None, State::Present, _) => Verdict::Differs(self.made()),
            (Some(group), State::Absent, _) => {
                let difference = Difference::value("group", Some(&format!("gid {}", group.gid)), None);
                let shell = format!("! getent group {name} >/dev/null || groupdel -- {name} || exit 1\n");
                Verdict::Differs(Change::new(vec![difference], shell))
            }
            (Some(group), State::Present, Some(gid)) if group.gid != gid => {
                if !self.force {
                    return Ok(Verdict::Refused(format!(
                        "the group {} has gid {}, not {gid}: its files would belong to another group; set gid = {}, \
                         or force = true and mend the files by hand",
                        self.name, group.gid, group.gid
                    )));
                }
                let before = group.gid.to_string();
                let difference = Difference::value("gid", Some(&before), Some(&gid.to_string()));
                let shell = format!("groupmod --gid {gid} -- {name} || exit 1\n");
                Verdict::Differs(Change::new(vec![difference], shell))
            }
            (Some(_), State::Present, _) => Verdict::Converged,
        })
    }

    fn check(&self) -> Result<(), String> {
        check_account("name", &self.name)?;
        check_id("gid", self.gid)?;
        if self.name == "root" && (self.state == State::Absent || self.gid.is_some_and(|gid| gid != 0)) {
            return Err("the group root is the system's and stays as it is".into());
        }
        if self.state == State::Absent && (self.gid.is_some() || self.force) {
            return Err("`gid` and `force` make no sense with state = \"absent\"".into());
        }
        Ok(())
    }
}

/// The highest number means "none" to the kernel.
pub(super) fn check_id(field: &str, id: Option<u32>) -> Result<(), String> {
    match id {
        Some(u32::MAX) => Err(format!("`{field}` must be below {}", u32::MAX)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts, Group as Seen};
    use crate::resource::testing::{build, mistake};

    #[test]
    fn diffs_as_data() {
        let value = Difference::value;
        type Case<'a> = (&'a str, Option<u32>, Result<Vec<Difference>, &'a str>, &'a str);
        let cases: Vec<Case> = vec![
            ("", Some(990), Ok(vec![]), ""),
            ("gid = 990", Some(990), Ok(vec![]), ""),
            ("state = 'absent'", None, Ok(vec![]), ""),
            (
                "",
                None,
                Ok(vec![value("group", None, Some("present"))]),
                "getent group media >/dev/null || groupadd -- media ||",
            ),
            (
                "gid = 990\nsystem = true",
                None,
                Ok(vec![value("group", None, Some("gid 990"))]),
                "groupadd --system --gid 990 -- media ||",
            ),
            (
                "gid = 990\nforce = true",
                Some(1000),
                Ok(vec![value("gid", Some("1000"), Some("990"))]),
                "groupmod --gid 990 -- media",
            ),
            ("gid = 990", Some(1000), Err("set gid = 1000"), ""),
            (
                "state = 'absent'",
                Some(990),
                Ok(vec![value("group", Some("gid 990"), None)]),
                "groupdel -- media",
            ),
        ];
        for (fields, seen, expected, part) in cases {
            let group = build("group", &format!("name = 'media'\n{fields}"));
            let seen = seen.map(|gid| Seen { gid, members: Default::default() });
            let answers =
                Answers::new(Facts::default()).with(Question::Group("media".into()), Answer::Group(seen));
            match (group.diff(&answers).expect("answered"), expected) {
                (Verdict::Converged, Ok(differences)) => assert!(differences.is_empty(), "{fields}"),
                (Verdict::Differs(change), Ok(differences)) => {
                    assert_eq!(change.differences, differences, "{fields}");
                    assert!(change.shell.contains(part), "{fields}: {}", change.shell);
                }
                (Verdict::Refused(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                (other, _) => panic!("{fields}: {other:?}"),
            }
        }
    }

    #[test]
    fn mistakes_are_found_offline() {
        for (fields, wanted) in [
            ("name = ''", "must start with a letter"),
            ("name = '12'", "must start with a letter"),
            ("name = 'a b'", "are allowed"),
            ("name = 'a:b'", "are allowed"),
            ("name = 'abcdefghijklmnopqrstuvwxyzabcdefg'", "longer than 32"),
            ("name = 'root'\nstate = 'absent'", "root"),
            ("name = 'x'\nstate = 'absent'\ngid = 3", "make no sense"),
            ("name = 'x'\ngid = 4294967295", "must be below"),
            ("name = 'x'\nmembers = ['y']", "unknown field"),
        ] {
            let error = mistake("group", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
