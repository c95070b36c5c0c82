//! `directory`: a directory, its mode and owner.

use serde::Deserialize;

use super::file::root;
use super::text::{attribute_differences, check_attributes, set_attributes};
use super::{Change, Difference, Reach, Resource, Verdict};
use crate::probe::{Answers, FileType, Question, Unanswered};
use crate::shell::quote;

/// A directory. Missing parents are made (0755, root); what is inside is not touched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    pub path: String,
    /// Permission bits, octal, in quotes. Default: `"0755"`.
    #[serde(default = "default_mode")]
    pub mode: String,
    /// A user's name. Default: `root`.
    #[serde(default = "root")]
    pub owner: String,
    /// A group's name. Default: `root`.
    #[serde(default = "root")]
    pub group: String,
}

fn default_mode() -> String {
    "0755".into()
}

impl Resource for Directory {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::Stat(self.path.clone())]
    }

    fn reach(&self) -> Reach {
        Reach::Itself
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let path = &self.path;
        let attributes = set_attributes(path, &self.mode, &self.owner, &self.group);
        Ok(match seen.stat(path)? {
            None => {
                let made = format!("directory {} {}:{}", self.mode, self.owner, self.group);
                let shell = format!("( umask 022 && mkdir -p -- {} ) || exit 1\n{attributes}", quote(path));
                Verdict::Differs(Change::new(vec![Difference::value("path", None, Some(&made))], shell))
            }
            Some(stat) if stat.file_type == FileType::Directory => {
                let differences = attribute_differences(stat, &self.mode, &self.owner, &self.group);
                match differences.is_empty() {
                    true => Verdict::Converged,
                    false => Verdict::Differs(Change::new(differences, attributes)),
                }
            }
            Some(stat) if stat.file_type == FileType::Link => {
                Verdict::Refused(format!("{path} is a link to {}; name that directory instead", stat.target))
            }
            Some(_) => Verdict::Refused(format!("{path} is a file; move it away or name another path")),
        })
    }

    fn check(&self) -> Result<(), String> {
        check_attributes(&self.path, &self.mode, &self.owner, &self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{TextFile, build, me};

    #[test]
    fn it_is_made_mended_and_then_left_alone() {
        let place = TextFile::missing();
        let (owner, group) = me();
        let fields = |path: &str, mode: &str| {
            format!("path = '{path}'\nmode = '{mode}'\nowner = '{owner}'\ngroup = '{group}'")
        };
        let path = place.path();
        let deep = format!("{path}/a b/c");
        let cases = [
            (
                &deep,
                "0700",
                Difference::value("path", None, Some(&format!("directory 0700 {owner}:{group}"))),
            ),
            (&deep, "1755", Difference::value("mode", Some("0700"), Some("1755"))),
        ];
        for (path, mode, difference) in cases {
            let directory = build("directory", &fields(path, mode));
            let Verdict::Differs(change) = place.diff(&*directory) else { panic!("differs") };
            assert_eq!(change.differences, [difference]);
            place.run(&change.shell).unwrap();
            place.run(&change.shell).expect("twice is harmless");
            assert_eq!(place.diff(&*directory), Verdict::Converged);
        }
        assert_eq!(place.mode(), 0o755, "parents are open");
    }

    #[test]
    fn a_file_or_a_link_in_its_place_is_refused() {
        let place = TextFile::with("precious", 0o644);
        let directory = build("directory", &format!("path = '{}'", place.path()));
        assert!(matches!(place.diff(&*directory), Verdict::Refused(why) if why.contains("is a file")));
        std::fs::remove_file(place.path()).unwrap();
        std::os::unix::fs::symlink("/tmp", place.path()).unwrap();
        assert!(
            matches!(place.diff(&*directory), Verdict::Refused(why) if why.contains("is a link to /tmp"))
        );
    }
}
