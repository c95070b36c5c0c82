//! `file`: a whole file, its content, mode and owner.

use base64::Engine as _;
use serde::{Deserialize, Deserializer};

use super::text::{
    Source, Write, attribute_differences, check_attributes, content_difference, describe, set_attributes,
    sha256_hex,
};
use super::{Change, Difference, Reach, Resource, Verdict};
use crate::probe::{Answers, Content, FileType, Question, Stat, Unanswered};

/// A file, replaced atomically: its readers see the old content or the new one, never a part. Its folder must exist.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    /// The content as text. In a role, `template = "name"` fills it. Exactly one of `content` and `content_base64`.
    #[serde(default)]
    pub content: Option<String>,
    /// The content as bytes, in base64.
    #[serde(default, deserialize_with = "bytes")]
    pub content_base64: Option<Vec<u8>>,
    /// Permission bits, octal, in quotes. Default: `"0644"`.
    #[serde(default = "default_mode")]
    pub mode: String,
    /// A user's name. Default: `root`.
    #[serde(default = "root")]
    pub owner: String,
    /// A group's name. Default: `root`.
    #[serde(default = "root")]
    pub group: String,
    /// Never show the content, only that it differs. Default: false.
    #[serde(default)]
    pub secret: bool,
    /// Keep the content that was replaced last at `PATH.datahub-backup`. Default: false.
    #[serde(default)]
    pub backup: bool,
    /// A command that must succeed before the file is put in place; `{}`, a word of its own, is the new file:
    /// `visudo -cf {}`.
    #[serde(default)]
    pub validate: Option<String>,
    /// Put the file in the place of a link, instead of refusing. What the link led to is not touched. Default: false.
    #[serde(default)]
    pub replace_link: bool,
}

pub(super) fn default_mode() -> String {
    "0644".into()
}

pub(super) fn root() -> String {
    "root".into()
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let compact: String = text.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map(Some)
        .map_err(|e| serde::de::Error::custom(format!("not base64: {e}")))
}

/// By hand, for the content may be a secret.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl File {
    /// A root-owned text file, 0644.
    pub fn text(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            content: Some(content.into()),
            content_base64: None,
            mode: default_mode(),
            owner: root(),
            group: root(),
            secret: false,
            backup: false,
            validate: None,
            replace_link: false,
        }
    }

    /// [`Resource::diff`] for a file in one of the system's `.d` folders, which is made (0755) if it is missing.
    pub(super) fn diff_in_new_folder(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let folder = self.path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let make = format!("mkdir -p -- {} || exit 1\n", crate::shell::quote(folder));
        Ok(self.diff(seen)?.preceded_by(&make))
    }

    fn bytes(&self) -> &[u8] {
        match (&self.content, &self.content_base64) {
            (Some(text), _) => text.as_bytes(),
            (None, Some(bytes)) => bytes,
            // `check` refuses a file without either.
            (None, None) => &[],
        }
    }

    fn checksum(&self) -> String {
        sha256_hex(self.bytes())
    }

    fn written(
        &self,
        mut differences: Vec<Difference>,
        before: Option<&[u8]>,
        stat: Option<&Stat>,
    ) -> Verdict {
        let content = match self.secret {
            true => Difference::Secret { attribute: "content".into() },
            false => content_difference(&self.path, before, self.bytes()),
        };
        differences.insert(0, content);
        self.change(differences, stat)
    }

    fn change(&self, mut differences: Vec<Difference>, stat: Option<&Stat>) -> Verdict {
        match stat {
            Some(stat) => {
                differences.extend(attribute_differences(stat, &self.mode, &self.owner, &self.group))
            }
            // The usual attributes of a new file are not worth a line.
            None => {
                for (attribute, value, usual) in [
                    ("mode", &self.mode, "0644"),
                    ("owner", &self.owner, "root"),
                    ("group", &self.group, "root"),
                ] {
                    if value != usual {
                        differences.push(Difference::value(attribute, None, Some(value)));
                    }
                }
            }
        }
        let write = Write {
            path: &self.path,
            source: if self.secret { Source::Secret(self.bytes()) } else { Source::Bytes(self.bytes()) },
            mode: &self.mode,
            owner: &self.owner,
            group: &self.group,
            backup: self.backup,
            validate: self.validate.as_deref(),
            seen: super::text::Seen::Any,
        };
        let prints = self.validate.is_some();
        Verdict::Differs(Change { prints, ..Change::new(differences, write.shell()) })
    }
}

impl Resource for File {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![
            Question::Stat(self.path.clone()),
            Question::Content { path: self.path.clone(), unless: self.checksum() },
        ]
    }

    fn reach(&self) -> Reach {
        Reach::Below
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let path = &self.path;
        let content = seen.content(path, &self.checksum())?;
        let Some(stat) = seen.stat(path)? else {
            return Ok(self.written(Vec::new(), None, None));
        };
        Ok(match (stat.file_type, content) {
            (FileType::Directory, _) => {
                Verdict::Refused(format!("{path} is a directory; move it away or name another path"))
            }
            (FileType::Link, _) if self.replace_link => {
                let link = Difference::value("type", Some(&format!("link to {}", stat.target)), Some("file"));
                self.written(vec![link], None, None)
            }
            (FileType::Link, _) => Verdict::Refused(format!(
                "{path} is a link to {}; name that file instead, or set replace_link = true",
                stat.target
            )),
            (FileType::Other, _) | (_, Content::NotAFile) => {
                Verdict::Refused(format!("{path} is not a regular file; move it away or name another path"))
            }
            (FileType::File, Content::Same) => {
                let differences = attribute_differences(stat, &self.mode, &self.owner, &self.group);
                if differences.is_empty() {
                    Verdict::Converged
                } else {
                    let shell = set_attributes(path, &self.mode, &self.owner, &self.group);
                    Verdict::Differs(Change::new(differences, shell))
                }
            }
            (FileType::File, Content::Differs(bytes)) => self.written(Vec::new(), Some(bytes), Some(stat)),
            (FileType::File, Content::TooLarge(size)) => {
                let difference = match self.secret {
                    true => Difference::Secret { attribute: "content".into() },
                    false => Difference::value(
                        "content",
                        Some(&format!("{size} B")),
                        Some(&describe(self.bytes())),
                    ),
                };
                self.change(vec![difference], Some(stat))
            }
            (FileType::File, Content::Absent) => self.written(Vec::new(), None, None),
        })
    }

    fn check(&self) -> Result<(), String> {
        check_attributes(&self.path, &self.mode, &self.owner, &self.group)?;
        if self.path == "/" {
            return Err("path \"/\" is not a file".into());
        }
        if self.content.is_some() == self.content_base64.is_some() {
            return Err("give exactly one of `content` (or `template`) and `content_base64`".into());
        }
        match &self.validate {
            Some(command) if !command.split_whitespace().any(|word| word == "{}") => {
                Err("`validate` must hold {} as a word of its own, in the place of the new file".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{TextFile, build, me, mistake, stat};
    use FileType as T;

    #[test]
    fn diffs_as_data() {
        let text = |before: Option<&str>| Difference::Text {
            path: "/etc/x".into(),
            before: before.map(str::to_owned),
            after: Some("new\n".into()),
        };
        let mode = Difference::value("mode", Some("0600"), Some("0644"));
        let old = || Content::Differs(b"old\n".to_vec());
        let binary = Difference::value(
            "content",
            Some("2 B, sha256 ea5dbf9596d1…"),
            Some("4 B, sha256 7aa7a5359173…"),
        );
        type Case = (Option<Stat>, Content, Result<Vec<Difference>, &'static str>);
        let cases: Vec<Case> = vec![
            (Some(stat(T::File, 0o644)), Content::Same, Ok(vec![])),
            (Some(stat(T::File, 0o600)), Content::Same, Ok(vec![mode.clone()])),
            (Some(stat(T::File, 0o644)), old(), Ok(vec![text(Some("old\n"))])),
            (Some(stat(T::File, 0o600)), old(), Ok(vec![text(Some("old\n")), mode])),
            (None, Content::Absent, Ok(vec![text(None)])),
            (Some(stat(T::File, 0o644)), Content::Differs(vec![0xff, 0]), Ok(vec![binary])),
            (Some(stat(T::Directory, 0o755)), Content::NotAFile, Err("is a directory")),
            (Some(stat(T::Link, 0o777)), Content::Same, Err("is a link")),
            (Some(stat(T::Other, 0o644)), Content::NotAFile, Err("not a regular file")),
        ];
        let file = File::text("/etc/x", "new\n");
        for (stat, content, wanted) in cases {
            let label = format!("{stat:?} {content:?}");
            let seen = Answers::new(Facts::default())
                .with(Question::Stat("/etc/x".into()), Answer::Stat(stat))
                .with(file.questions().remove(1), Answer::Content(content));
            match (file.diff(&seen).unwrap(), wanted) {
                (Verdict::Converged, Ok(wanted)) => assert!(wanted.is_empty(), "{label}"),
                (Verdict::Differs(change), Ok(wanted)) => assert_eq!(change.differences, wanted, "{label}"),
                (Verdict::Refused(why), Err(wanted)) => assert!(why.contains(wanted), "{label}: {why}"),
                (verdict, _) => panic!("{label}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn a_secret_is_neither_shown_nor_debugged() {
        let mut file = File::text("/etc/token", "hunter2");
        file.secret = true;
        let seen = Answers::new(Facts::default())
            .with(Question::Stat("/etc/token".into()), Answer::Stat(Some(stat(T::File, 0o644))))
            .with(file.questions().remove(1), Answer::Content(Content::Differs(b"hunter1".to_vec())));
        let Verdict::Differs(change) = file.diff(&seen).unwrap() else { panic!("differs") };
        assert_eq!(change.differences, [Difference::Secret { attribute: "content".into() }]);
        assert!(!format!("{:?} {file:?}", change.differences).contains("hunter"));
        assert!(!change.shell.contains("hunter"));
    }

    fn fields(file: &TextFile, more: &str) -> String {
        let (owner, group) = me();
        format!("path = '{}'\nowner = '{owner}'\ngroup = '{group}'\n{more}", file.path())
    }

    fn apply(file: &TextFile, resource: &dyn Resource) -> Result<(), String> {
        match file.diff(resource) {
            Verdict::Differs(change) => file.run(&change.shell),
            other => panic!("differs, not {other:?}"),
        }
    }

    #[test]
    fn the_shell_writes_content_mode_and_one_backup() {
        let file = TextFile::missing();
        for (content, mode) in [("one\n", 0o600), ("two\n", 0o640), ("$(three) 'ä'", 0o640)] {
            let more = format!("content = \"\"\"{content}\"\"\"\nmode = '{mode:04o}'\nbackup = true");
            let resource = build("file", &fields(&file, &more));
            apply(&file, &*resource).unwrap();
            assert_eq!((file.read().as_str(), file.mode()), (content, mode));
            assert_eq!(file.diff(&*resource), Verdict::Converged);
        }
        assert_eq!(file.neighbours(), ["file", "file.datahub-backup"]);
        assert_eq!(std::fs::read_to_string(file.folder().join("file.datahub-backup")).unwrap(), "two\n");
    }

    #[test]
    fn running_the_step_twice_keeps_the_backup() {
        let file = TextFile::with("old", 0o644);
        let Verdict::Differs(change) =
            file.diff(&*build("file", &fields(&file, "content = 'new'\nbackup = true")))
        else {
            panic!("differs")
        };
        file.run(&change.shell).unwrap();
        file.run(&change.shell).unwrap();
        assert_eq!(std::fs::read_to_string(file.folder().join("file.datahub-backup")).unwrap(), "old");
    }

    #[test]
    fn a_mode_alone_leaves_the_content_alone() {
        let file = TextFile::with("same", 0o600);
        let resource = build("file", &fields(&file, "content = 'same'"));
        let Verdict::Differs(change) = file.diff(&*resource) else { panic!("differs") };
        assert!(!change.shell.contains("mktemp"));
        file.run(&change.shell).unwrap();
        assert_eq!((file.read().as_str(), file.mode()), ("same", 0o644));
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let file = TextFile::with("old", 0o644);
        let more = "content = 'bad'\nvalidate = 'grep -q good {}'";
        let error = apply(&file, &*build("file", &fields(&file, more))).unwrap_err();
        assert!(error.contains("refused by: grep -q good"), "{error}");
        assert_eq!((file.read().as_str(), file.neighbours()), ("old", vec!["file".to_owned()]));
        apply(&file, &*build("file", &fields(&file, "content = 'good'\nvalidate = 'grep -q good {}'")))
            .unwrap();
        assert_eq!(file.read(), "good");
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_a_missing_folder_named() {
        let file = TextFile::missing();
        std::fs::write(file.folder().join(".file.datahub.Ab12Cd"), "half").unwrap();
        apply(&file, &*build("file", &fields(&file, "content_base64 = '/wA='"))).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [0xff, 0]);
        assert_eq!(file.neighbours(), ["file"]);

        let gone = fields(&file, "content = 'x'").replace("/file'", "/no folder/file'");
        let error = apply(&file, &*build("file", &gone)).unwrap_err();
        assert!(error.contains("no folder/file: its folder does not exist"), "{error}");
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            ("path = 'etc/x'\ncontent = ''", "must be absolute"),
            ("path = '/etc/../x'\ncontent = ''", "must not hold"),
            ("path = '/x'", "exactly one of"),
            ("path = '/x'\ncontent = ''\ncontent_base64 = ''", "exactly one of"),
            ("path = '/x'\ncontent_base64 = '!'", "content_base64: not base64"),
            ("path = '/x'\ncontent = ''\nmode = '9'", "octal digits"),
            ("path = '/x'\ncontent = ''\nowner = '0'", "owner \"0\""),
            ("path = '/x'\ncontent = ''\nvalidate = 'true'", "`validate` must hold {}"),
            ("path = '/x'\ncontents = ''", "unknown field"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("file", fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
