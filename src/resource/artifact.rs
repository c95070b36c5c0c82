//! `artifact`: a file of a release, too large for a script: a binary, an image archive.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::{default_mode, root};
use super::text::{attribute_differences, check_attributes, set_attributes};
use super::{Change, Difference, Resource, Transfer, Verdict};
use crate::artifact::node::Place;
use crate::artifact::release::{is_file_name, leap};
use crate::artifact::{self, size};
use crate::checksum::{is_sha256, short};
use crate::probe::{Answers, FileType, Question, Stat, Unanswered, checksum};

/// How long a node may download for.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// A file of the release that the inventory names under `[k3s]`, compared by the checksum `datahub lock` has pinned.
/// It is brought to the node (or downloaded there, with `transfer = "pull"`), checked, and replaced atomically: what
/// runs from the old one goes on. Its folder must exist.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The file's name in the release: `k3s-arm64`, or `{{ k3s.binary }}` for the node's architecture.
    pub file: String,
    pub path: String,
    /// Permission bits, octal, in quotes. Default: `"0644"`; a program needs `"0755"`.
    #[serde(default = "default_mode")]
    pub mode: String,
    /// A user's name. Default: `root`.
    #[serde(default = "root")]
    pub owner: String,
    /// A group's name. Default: `root`.
    #[serde(default = "root")]
    pub group: String,
    /// Keep the file that was replaced last at `PATH.previous`. Default: false.
    #[serde(default)]
    pub keep_previous: bool,
    /// Refuse to go to another minor release or an older one, which is an upgrade's business. Default: false.
    #[serde(default)]
    pub keep_minor: bool,
    /// Filled in from the lock file; not to be written.
    #[serde(default)]
    pub pin: Pin,
}

/// What the lock file knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub artifact: artifact::Artifact,
    /// Where the node downloads it; without, it is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Releases by the checksum that a file of this name has there.
    pub known: BTreeMap<String, String>,
}

impl Artifact {
    fn place(&self) -> Place<'_> {
        Place { path: &self.path, sha256: &self.pin.artifact.sha256 }
    }

    /// Another file, or none, stands there.
    fn replaced(&self, stat: Option<&Stat>, seen: Option<&str>) -> Verdict {
        let Pin { artifact, url, known } = &self.pin;
        let version = |sum: &str| known.get(sum).cloned();
        if self.keep_minor
            && let Some(seen) = seen
            && let Some(refusal) = self.too_far(version(seen))
        {
            return Verdict::Refused(refusal);
        }
        let mut differences = vec![match (seen, seen.and_then(version)) {
            (None, _) => Difference::value("version", None, Some(&artifact.version)),
            (Some(_), Some(before)) => Difference::value("version", Some(&before), Some(&artifact.version)),
            (Some(seen), None) => {
                Difference::value("sha256", Some(&short(seen)), Some(&short(&artifact.sha256)))
            }
        }];
        if let Some(bytes) = artifact.size {
            let before = stat.map(|stat| size(stat.size));
            differences.push(Difference::value("size", before.as_deref(), Some(&size(bytes))));
        }
        if let Some(stat) = stat {
            differences.extend(attribute_differences(stat, &self.mode, &self.owner, &self.group));
        }
        let place = self.place();
        let install = place.install(&self.mode, &self.owner, &self.group, self.keep_previous);
        Verdict::Differs(match url {
            Some(url) => {
                let shell = place.download(url, artifact.size) + &install;
                Change::new(differences, shell).long(DOWNLOAD_LIMIT)
            }
            None => {
                let transfer = Transfer { artifact: artifact.clone(), path: self.path.clone() };
                Change::new(differences, install).transfer(transfer)
            }
        })
    }

    /// Why what is there may not simply be replaced.
    fn too_far(&self, before: Option<String>) -> Option<String> {
        let (path, wanted) = (&self.path, &self.pin.artifact.version);
        let Some(before) = before else {
            return Some(format!(
                "{path} is of no release that the lock file knows, so {wanted} may be too far from it. If it is \
                 only damaged, remove it and run again; to upgrade the cluster: datahub upgrade"
            ));
        };
        let leap = leap(&before, wanted)?;
        Some(format!(
            "{path} is of {before}, and {wanted} is {leap}; to upgrade the cluster, node by node and with a backup \
             first: datahub upgrade"
        ))
    }

    fn attributes(&self, stat: &Stat) -> Verdict {
        let differences = attribute_differences(stat, &self.mode, &self.owner, &self.group);
        if differences.is_empty() {
            return Verdict::Converged;
        }
        let set = set_attributes(&self.path, &self.mode, &self.owner, &self.group);
        Verdict::Differs(Change::new(differences, set + &checksum::remember(&self.path)))
    }
}

impl Resource for Artifact {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::Stat(self.path.clone()), Question::Checksum(self.path.clone())]
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let path = &self.path;
        let sum = seen.checksum(path)?.as_deref();
        let Some(stat) = seen.stat(path)? else { return Ok(self.replaced(None, None)) };
        Ok(match (stat.file_type, sum) {
            (FileType::File, Some(sum)) if sum == self.pin.artifact.sha256 => self.attributes(stat),
            (FileType::File, Some(sum)) => self.replaced(Some(stat), Some(sum)),
            (FileType::File, None) => Verdict::Refused(format!(
                "{path} cannot be read: the disk may be failing; look at `dmesg` on the node"
            )),
            (FileType::Link, _) => Verdict::Refused(format!(
                "{path} is a link to {}; name that file instead, or remove the link",
                stat.target
            )),
            (FileType::Directory, _) => {
                Verdict::Refused(format!("{path} is a directory; move it away or name another path"))
            }
            (FileType::Other, _) => {
                Verdict::Refused(format!("{path} is not a regular file; move it away or name another path"))
            }
        })
    }

    fn check(&self) -> Result<(), String> {
        check_attributes(&self.path, &self.mode, &self.owner, &self.group)?;
        if self.path == "/" {
            return Err("path \"/\" is not a file".into());
        }
        if !is_file_name(&self.file) {
            return Err(format!("file {:?} is not the name of a release's file", self.file));
        }
        if self.pin.artifact.file != self.file || !is_sha256(&self.pin.artifact.sha256) {
            return Err("`pin` is filled in from the lock file; leave it out".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::sha256_hex;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{TextFile, build, me, mistake, stat};

    const NEW: &str = "the new program";
    const OLD: &str = "the old program";

    fn fields(path: &str, more: &str) -> String {
        let (new, old) = (sha256_hex(NEW.as_bytes()), sha256_hex(OLD.as_bytes()));
        let (user, group) = me();
        format!(
            "file = 'k3s-arm64'\npath = '{path}'\nowner = '{user}'\ngroup = '{group}'\n{more}\n\
             [pin]\nartifact = {{ file = 'k3s-arm64', version = 'v1.36.3+k3s1', sha256 = '{new}', size = 15 }}\n\
             known = {{ {new} = 'v1.36.3+k3s1', {old} = 'v1.35.4+k3s1' }}"
        )
    }

    fn diff(resource: &dyn Resource, stat: Option<Stat>, sum: Option<String>) -> Verdict {
        let path = resource.name();
        let seen = Answers::new(Facts::default())
            .with(Question::Stat(path.clone()), Answer::Stat(stat))
            .with(Question::Checksum(path), Answer::Checksum(sum));
        resource.diff(&seen).expect("answered")
    }

    #[test]
    fn diffs_as_data() {
        use FileType as T;
        let resource = build("artifact", &fields("/opt/k3s", "mode = '0755'").replace(&me().0, "root"));
        let sum = |text: &str| Some(sha256_hex(text.as_bytes()));
        let file = |mode| Some(Stat { size: 2048, ..stat(T::File, mode) });
        let value = |attribute: &str, before: Option<&str>, after: &str| {
            Difference::value(attribute, before, Some(after))
        };
        let short_new = short(&sha256_hex(NEW.as_bytes()));
        let short_other = short(&sha256_hex(b"other"));
        type Case = (Option<Stat>, Option<String>, Result<Vec<Difference>, &'static str>);
        let cases: Vec<Case> = vec![
            (file(0o755), sum(NEW), Ok(vec![])),
            (file(0o644), sum(NEW), Ok(vec![value("mode", Some("0644"), "0755")])),
            (None, None, Ok(vec![value("version", None, "v1.36.3+k3s1"), value("size", None, "15 B")])),
            (
                file(0o755),
                sum(OLD),
                Ok(vec![
                    value("version", Some("v1.35.4+k3s1"), "v1.36.3+k3s1"),
                    value("size", Some("2.0 KiB"), "15 B"),
                ]),
            ),
            (
                file(0o700),
                sum("other"),
                Ok(vec![
                    value("sha256", Some(&short_other), &short_new),
                    value("size", Some("2.0 KiB"), "15 B"),
                    value("mode", Some("0700"), "0755"),
                ]),
            ),
            (file(0o755), None, Err("cannot be read")),
            (Some(stat(T::Link, 0o777)), None, Err("is a link")),
            (Some(stat(T::Directory, 0o755)), None, Err("is a directory")),
            (Some(stat(T::Other, 0o755)), None, Err("not a regular file")),
        ];
        for (stat, seen, wanted) in cases {
            let case = format!("{stat:?} {seen:?}");
            match (diff(&*resource, stat, seen), wanted) {
                (Verdict::Converged, Ok(wanted)) => assert_eq!(wanted, [], "{case}"),
                (Verdict::Differs(change), Ok(wanted)) => {
                    assert_eq!(change.differences, wanted, "{case}");
                    let brought = wanted.iter().any(|d| format!("{d:?}").contains("size"));
                    assert_eq!(change.transfer.is_some(), brought, "{case}");
                }
                (Verdict::Refused(reason), Err(wanted)) => {
                    assert!(reason.contains(wanted), "{case}: {reason}")
                }
                (verdict, _) => panic!("{case}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn a_leap_to_another_minor_is_refused_where_it_is_an_upgrade() {
        let file = || Some(stat(FileType::File, 0o755));
        for (more, old, refused) in [
            ("keep_minor = true", OLD, Some("another minor release")),
            ("keep_minor = true", "whatever", Some("no release that the lock file knows")),
            ("keep_minor = false", OLD, None),
            ("keep_minor = false", "whatever", None),
        ] {
            let resource = build("artifact", &fields("/opt/k3s", more));
            match (diff(&*resource, file(), Some(sha256_hex(old.as_bytes()))), refused) {
                (Verdict::Differs(_), None) => {}
                (Verdict::Refused(why), Some(wanted)) => assert!(why.contains(wanted), "{why}"),
                (verdict, _) => panic!("{more} {old}: {verdict:?}"),
            }
            assert!(matches!(diff(&*resource, None, None), Verdict::Differs(_)), "nothing there: {more}");
        }
    }

    #[test]
    fn a_pulled_artifact_is_a_step_of_the_node_alone() {
        let pulled = fields("/opt/k3s", "").replace("[pin]", "[pin]\nurl = 'https://a.example/k3s'");
        let Verdict::Differs(change) = diff(&*build("artifact", &pulled), None, None) else {
            panic!("differs")
        };
        assert!(change.transfer.is_none() && change.long && change.shell.contains("https://a.example/k3s"));
    }

    /// The step with its notes in the test's own folder.
    fn step(file: &TextFile, more: &str) -> String {
        let resource = build("artifact", &fields(&file.path(), more));
        let Verdict::Differs(change) = diff(&*resource, None, None) else { panic!("differs") };
        change.shell.replace(checksum::DIR, &format!("{}/notes", file.folder().display()))
    }

    fn bring(file: &TextFile, content: &str) {
        let sum = sha256_hex(NEW.as_bytes());
        std::fs::write(file.folder().join(format!(".file.{sum}.part")), content).expect("written");
    }

    #[test]
    fn the_old_one_stays_for_what_runs_from_it_and_for_going_back() {
        let file = TextFile::with(OLD, 0o755);
        let previous = || std::fs::read_to_string(file.folder().join("file.previous")).expect("previous");
        let mut running = std::fs::File::open(file.path()).expect("opened");
        bring(&file, NEW);
        let step = step(&file, "mode = '0755'\nkeep_previous = true");
        file.run(&step).expect("done");
        assert_eq!((file.read().as_str(), file.mode(), previous().as_str()), (NEW, 0o755, OLD));
        let mut seen = String::new();
        std::io::Read::read_to_string(&mut running, &mut seen).expect("read");
        assert_eq!(seen, OLD);
        // Once more, as after a lost connection.
        file.run(&step).expect("done already");
        assert_eq!((file.read().as_str(), previous().as_str()), (NEW, OLD));
        assert_eq!(file.neighbours(), ["file", "file.previous", "notes"]);
    }

    #[test]
    fn what_was_not_brought_changes_nothing() {
        let file = TextFile::with(OLD, 0o755);
        let error = file.run(&step(&file, "")).expect_err("nothing there");
        assert!(error.contains("was not brought"), "{error}");
        assert_eq!(file.read(), OLD);
        // An unfinished file of another content goes away with the next step; another artifact's stays.
        let stale = file.folder().join(format!(".file.{}.part", "a".repeat(64)));
        let others = file.folder().join(format!(".file.old.{}.part", "a".repeat(64)));
        std::fs::write(&stale, "half").and_then(|()| std::fs::write(&others, "half")).expect("written");
        bring(&file, NEW);
        file.run(&step(&file, "")).expect("done");
        assert_eq!((file.read().as_str(), stale.exists(), others.exists()), (NEW, false, true));
    }

    #[test]
    fn mistakes_are_found_offline() {
        let good = fields("/opt/k3s", "");
        let cases = [
            (good.replace("/opt/k3s", "opt/k3s"), "must be absolute"),
            (good.replacen("k3s-arm64", "../k3s", 1), "not the name of a release's file"),
            (good.replacen("k3s-arm64", "k3s", 1), "is filled in from the lock file"),
            (fields("/opt/k3s", "mode = '9'"), "octal digits"),
            (fields("/opt/k3s", "url = 'x'"), "unknown field"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("artifact", &fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
