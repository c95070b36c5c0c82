//! `random_file`: a secret that is made up once, on the node, and then kept.

use serde::Deserialize;

use super::file::root;
use super::text::{attribute_differences, check_attributes, set_attributes};
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, FileType, Question, Unanswered};
use crate::shell::quote;

/// A file of random hexadecimal digits. Made if it is missing, never replaced, never shown. Its folder must exist.
/// Where a service already has its secret, that one is taken over.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomFile {
    pub path: String,
    /// How much randomness, in bytes: half the number of digits. Default: 32.
    #[serde(default = "default_bytes")]
    pub bytes: u32,
    /// A file that holds the secret to be used instead, if it is there: what follows the last `:` of its first line, as
    /// in K3s's tokens.
    #[serde(default)]
    pub adopt: Option<String>,
    /// Permission bits, octal, in quotes. Default: `"0600"`.
    #[serde(default = "default_mode")]
    pub mode: String,
    /// A user's name. Default: `root`.
    #[serde(default = "root")]
    pub owner: String,
    /// A group's name. Default: `root`.
    #[serde(default = "root")]
    pub group: String,
}

fn default_bytes() -> u32 {
    32
}

fn default_mode() -> String {
    "0600".into()
}

impl RandomFile {
    fn fill(&self, adopting: bool) -> String {
        match &self.adopt {
            Some(from) if adopting => format!(
                "IFS= read -r secret <{from} && printf '%s\\n' \"${{secret##*:}}\" >\"$tmp\" || exit 1\n\
                 [ \"$(wc -c <\"$tmp\")\" -gt 1 ] || {{ echo {from}' holds no secret' >&2; exit 1; }}\n",
                from = quote(from)
            ),
            _ => format!(
                "od -An -v -tx1 -N{bytes} /dev/urandom | tr -d ' \\n' >\"$tmp\" && echo >>\"$tmp\" || exit 1\n\
                 [ \"$(wc -c <\"$tmp\")\" -eq {length} ] || {{ echo 'no randomness to be had' >&2; exit 1; }}\n",
                bytes = self.bytes,
                length = self.bytes * 2 + 1,
            ),
        }
    }

    /// Linked into place, which fails where a file has come to stand meanwhile: a secret is never replaced.
    fn create(&self, adopting: bool) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        format!(
            "(\numask 077\ntmp=$(mktemp -- {prefix}XXXXXX) || exit 1\ntrap 'rm -f -- \"$tmp\"' EXIT\n\
             {fill}sync -- \"$tmp\" && {{ ln -T -- \"$tmp\" {path} 2>/dev/null || [ -f {path} ]; }}\n) || exit 1\n",
            prefix = quote(&format!("{folder}/.{name}.datahub.")),
            fill = self.fill(adopting),
            path = quote(&self.path),
        )
    }
}

impl Resource for RandomFile {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        [&self.path].into_iter().chain(&self.adopt).cloned().map(Question::Stat).collect()
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let attributes = set_attributes(&self.path, &self.mode, &self.owner, &self.group);
        Ok(match seen.stat(&self.path)? {
            None => {
                let adopting = match &self.adopt {
                    Some(from) => seen.stat(from)?.as_ref().map(|_| from),
                    None => None,
                };
                let content = match adopting {
                    Some(from) => format!("the secret in {from}"),
                    None => format!("{} random bytes", self.bytes),
                };
                let made = Difference::value("content", None, Some(&content));
                Verdict::Differs(Change::new(vec![made], self.create(adopting.is_some()) + &attributes))
            }
            Some(stat) if stat.file_type != FileType::File => {
                Verdict::Refused(format!("{} is not a regular file; move it away", self.path))
            }
            Some(stat) if stat.size == 0 => {
                Verdict::Refused(format!("{} is empty; remove it, and a new secret is made", self.path))
            }
            Some(stat) => match attribute_differences(stat, &self.mode, &self.owner, &self.group) {
                differences if differences.is_empty() => Verdict::Converged,
                differences => Verdict::Differs(Change::new(differences, attributes)),
            },
        })
    }

    fn check(&self) -> Result<(), String> {
        if !(16..=1024).contains(&self.bytes) {
            return Err("`bytes` must be between 16 and 1024".into());
        }
        check_attributes(&self.path, &self.mode, &self.owner, &self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{TextFile, build, me};

    #[test]
    fn it_is_made_once_and_kept() {
        let file = TextFile::missing();
        let (owner, group) = me();
        let fields = format!("path = '{}'\nowner = '{owner}'\ngroup = '{group}'", file.path());
        let resource = build("random_file", &fields);
        let Verdict::Differs(change) = file.diff(&*resource) else { panic!("differs") };
        file.run(&change.shell).unwrap();
        let made = file.read();
        assert_eq!((made.len(), file.mode()), (65, 0o600));
        assert!(made.trim_end().bytes().all(|b| b.is_ascii_hexdigit()), "{made:?}");
        assert_eq!(file.diff(&*resource), Verdict::Converged);
        file.run(&change.shell).expect("twice is harmless");
        assert_eq!(file.read(), made);
        assert_eq!(file.neighbours(), ["file"]);
        file.write("");
        assert!(matches!(file.diff(&*resource), Verdict::Refused(_)));
    }

    #[test]
    fn what_a_service_has_already_is_taken_over() {
        let file = TextFile::missing();
        let (owner, group) = me();
        let token = format!("{}.server", file.path());
        let fields =
            format!("path = '{}'\nowner = '{owner}'\ngroup = '{group}'\nadopt = '{token}'", file.path());
        let resource = build("random_file", &fields);
        std::fs::write(&token, "K10abc::server:s3cret\n").unwrap();
        let Verdict::Differs(change) = file.diff(&*resource) else { panic!("differs") };
        file.run(&change.shell).unwrap();
        assert_eq!((file.read().as_str(), file.mode()), ("s3cret\n", 0o600));
    }
}
