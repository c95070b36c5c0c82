//! `link`: a symbolic link.

use serde::Deserialize;

use super::text::check_path;
use super::{Change, Difference, Reach, Resource, Verdict};
use crate::probe::{Answers, FileType, Question, Unanswered};
use crate::shell::quote;

/// A symbolic link, replaced atomically. Its folder must exist; what it leads to need not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub path: String,
    /// What the link holds: an absolute path, or one relative to the link's folder.
    pub target: String,
    /// Replace a file that stands at `path`, instead of refusing. A directory is never replaced. Default: false.
    #[serde(default)]
    pub force: bool,
}

impl Link {
    fn shell(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let prefix = quote(&format!("{folder}/.{name}.datahub."));
        let guard = match self.force {
            true => String::new(),
            false => "[ -L \"$path\" ] || [ ! -e \"$path\" ] || \
                      { printf '%s\\n' \"$path: is not a link\" >&2; exit 1; }\n"
                .to_owned(),
        };
        format!(
            "(\n\
             path={path} new=\n\
             {guard}\
             rm -f -- {prefix}??????\n\
             trap 'rm -f -- \"$new\"' EXIT\n\
             trap 'exit 1' HUP INT TERM\n\
             new=$(mktemp -u -- {prefix}XXXXXX) && ln -s -- {target} \"$new\" && mv -fT -- \"$new\" \"$path\"\n\
             ) || exit 1\n",
            path = quote(&self.path),
            target = quote(&self.target),
        )
    }
}

impl Resource for Link {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::Stat(self.path.clone())]
    }

    fn reach(&self) -> Reach {
        Reach::Below
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let path = &self.path;
        let difference = match seen.stat(path)? {
            None => Difference::value("target", None, Some(&self.target)),
            Some(stat) if stat.file_type == FileType::Link => {
                if stat.target == self.target {
                    return Ok(Verdict::Converged);
                }
                Difference::value("target", Some(&stat.target), Some(&self.target))
            }
            Some(stat) if stat.file_type == FileType::File && self.force => {
                Difference::value("type", Some("file"), Some(&format!("link to {}", self.target)))
            }
            Some(stat) if stat.file_type == FileType::File => {
                return Ok(Verdict::Refused(format!(
                    "{path} is a file ({} B); move it away, or set force = true to lose it",
                    stat.size
                )));
            }
            Some(_) => {
                return Ok(Verdict::Refused(format!("{path} is neither a link nor a file; move it away")));
            }
        };
        Ok(Verdict::Differs(Change::new(vec![difference], self.shell())))
    }

    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        if self.path == "/" || self.path == self.target {
            return Err(format!("path {:?} cannot be a link to {:?}", self.path, self.target));
        }
        if self.target.is_empty() || self.target.contains(['\n', '\0']) {
            return Err("`target` must be one line, not empty".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{TextFile, build};

    #[test]
    fn it_is_made_turned_and_then_left_alone() {
        let place = TextFile::missing();
        let mut before = None;
        // A link to a directory is replaced, not entered.
        for target in ["/tmp", "it's not there"] {
            let link = build("link", &format!("path = '{}'\ntarget = \"{target}\"", place.path()));
            let Verdict::Differs(change) = place.diff(&*link) else { panic!("differs") };
            assert_eq!(change.differences, [Difference::value("target", before, Some(target))]);
            place.run(&change.shell).unwrap();
            place.run(&change.shell).expect("twice is harmless");
            assert_eq!(place.diff(&*link), Verdict::Converged);
            assert_eq!(place.neighbours(), ["file"]);
            before = Some(target);
        }
    }

    #[test]
    fn a_file_is_replaced_only_by_force() {
        let place = TextFile::missing();
        let fields = format!("path = '{}'\ntarget = '/tmp'", place.path());
        let (link, forced) = (build("link", &fields), build("link", &format!("{fields}\nforce = true")));
        let Verdict::Differs(change) = place.diff(&*link) else { panic!("differs") };
        place.write("appeared since");
        assert!(place.run(&change.shell).unwrap_err().contains("is not a link"));
        assert!(matches!(place.diff(&*link), Verdict::Refused(_)));
        let Verdict::Differs(change) = place.diff(&*forced) else { panic!("differs") };
        place.run(&change.shell).unwrap();
        assert_eq!(place.diff(&*link), Verdict::Converged);

        std::fs::remove_file(place.path()).unwrap();
        std::fs::create_dir(place.path()).unwrap();
        assert!(matches!(place.diff(&*forced), Verdict::Refused(_)));
    }
}
