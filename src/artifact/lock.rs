//! The lock file `datahub.lock`, beside the inventory: the checksum of every file that may be used, and where that
//! checksum came from. Written by `datahub lock`, read by everything else; belongs into version control.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Artifact;
use super::release::{is_file_name, is_version};
use crate::checksum::is_sha256;
use crate::diagnostic::{Diagnostic, Place, Source};

/// Its name.
pub const FILE: &str = "datahub.lock";

const HEADER: &str = "\
# Checksums of the files of releases: nothing else is downloaded, or brought to a node.
# Written by `datahub lock` from the releases' own lists. Keep it under version control; do not edit it.

";

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes, where the source told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Address or path of the list that has the checksum.
    pub from: String,
}

/// The files of a release by name.
pub type Files = BTreeMap<String, Pin>;

/// The whole lock file, in the order it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Releases of K3s by their tag.
    #[serde(default)]
    k3s: BTreeMap<String, Files>,
    /// See [`Lock::suppose`]; never written.
    #[serde(skip)]
    supposed: Option<String>,
}

/// No file has this checksum.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One thing that an update of the lock file does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Added {
        file: String,
        sha256: String,
    },
    /// The size has become known, or the list is at another address.
    Noted {
        file: String,
    },
    /// The release's list names another checksum than before: somebody replaced a file of a release.
    Replaced {
        file: String,
        before: String,
        after: String,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added { file, sha256 } => write!(f, "+ {file} {sha256}"),
            Self::Noted { file } => write!(f, "~ {file}"),
            Self::Replaced { file, before, after } => write!(f, "! {file} {before} → {after}"),
        }
    }
}

impl Lock {
    /// Where it lies.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Reads the lock file of a folder; one that does not exist pins nothing.
    pub fn load(dir: &Path) -> Result<Self, Diagnostic> {
        let path = Self::path(dir);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&Source::new(path, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Diagnostic::new(format!("cannot read {}: {error}", path.display()))),
        }
    }

    pub fn parse(source: &std::sync::Arc<Source>) -> Result<Self, Diagnostic> {
        let help = "take it back from version control, or delete it and run: datahub lock";
        let lock: Self = toml::from_str(&source.text).map_err(|error| {
            let first = error.message().lines().next().unwrap_or("not valid TOML").to_owned();
            let place = Place::new(source, error.span().unwrap_or(0..0));
            Diagnostic::new(format!("the lock file cannot be read: {first}"))
                .at(place)
                .label("here")
                .help(help)
        })?;
        let pins = lock.k3s.iter().flat_map(|(version, files)| files.iter().map(move |file| (version, file)));
        for (version, (file, pin)) in pins {
            if !is_version(version) || !is_file_name(file) || !is_sha256(&pin.sha256) {
                let at = source.text.find(&pin.sha256).filter(|_| !pin.sha256.is_empty()).unwrap_or(0);
                let place = Place::new(source, at..at + pin.sha256.len());
                let message = format!("the lock file's entry for {file} of {version} is not one");
                return Err(Diagnostic::new(message)
                    .at(place)
                    .label("a checksum has 64 hex digits")
                    .help(help));
            }
        }
        Ok(lock)
    }

    /// Lets every file of a release pass for pinned, with a checksum that no file has: to check offline what would be
    /// done with them. A run made with it brings nothing anywhere.
    pub fn suppose(&mut self, version: &str) {
        self.supposed = Some(version.to_owned());
    }

    /// Whether anything of a release is pinned.
    pub fn pins(&self, version: &str) -> bool {
        self.supposed.as_deref() == Some(version) || !self.files(version).is_empty()
    }

    /// A pinned file.
    pub fn artifact(&self, version: &str, file: &str) -> Option<Artifact> {
        if self.supposed.as_deref() == Some(version) {
            let (file, version, sha256) = (file.to_owned(), version.to_owned(), NO_CHECKSUM.to_owned());
            return Some(Artifact { file, version, sha256, size: None });
        }
        let pin = self.k3s.get(version)?.get(file)?;
        Some(Artifact {
            file: file.to_owned(),
            version: version.to_owned(),
            sha256: pin.sha256.clone(),
            size: pin.size,
        })
    }

    /// The names pinned for a release.
    pub fn files(&self, version: &str) -> BTreeSet<&str> {
        self.k3s.get(version).into_iter().flatten().map(|(file, _)| file.as_str()).collect()
    }

    /// Which releases a file of this name is known from, by checksum.
    pub fn versions(&self, file: &str) -> BTreeMap<String, String> {
        let known = self.k3s.iter().filter_map(|(version, files)| Some((files.get(file)?, version)));
        known.map(|(pin, version)| (pin.sha256.clone(), version.clone())).collect()
    }

    /// Lays what a release's lists say over what is pinned; other releases and other files stay. What is known
    /// already of an unchanged file, and not told this time, is kept.
    pub fn update(&mut self, version: &str, files: Files) -> Vec<Change> {
        let pinned = self.k3s.entry(version.to_owned()).or_default();
        let mut changes = Vec::new();
        for (file, mut pin) in files {
            let known = pinned.get(&file);
            match known {
                None => changes.push(Change::Added { file: file.clone(), sha256: pin.sha256.clone() }),
                Some(known) if known.sha256 != pin.sha256 => changes.push(Change::Replaced {
                    file: file.clone(),
                    before: known.sha256.clone(),
                    after: pin.sha256.clone(),
                }),
                Some(known) => {
                    pin.size = pin.size.or(known.size);
                    if *known != pin {
                        changes.push(Change::Noted { file: file.clone() });
                    }
                }
            }
            pinned.insert(file, pin);
        }
        changes
    }

    /// The text of the file: a table a release, a line a file.
    pub fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        let quoted = |word: &str| toml::Value::from(word).to_string();
        for (version, files) in &self.k3s {
            text += &format!("[k3s.{}]\n", quoted(version));
            for (file, pin) in files {
                let size = pin.size.map(|size| format!("size = {size}, ")).unwrap_or_default();
                text += &format!(
                    "{} = {{ sha256 = {}, {size}from = {} }}\n",
                    quoted(file),
                    quoted(&pin.sha256),
                    quoted(&pin.from)
                );
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    /// Writes it: its readers see the old file or the new one.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        let path = Self::path(dir);
        let unfinished = dir.join(format!(".{FILE}.{}", std::process::id()));
        let written = std::fs::File::create(&unfinished).and_then(|mut file| {
            file.write_all(self.render().as_bytes())?;
            file.sync_all()
        });
        let done = written.and_then(|()| std::fs::rename(&unfinished, &path));
        if done.is_err() {
            // The error that is told is the first one.
            let _ = std::fs::remove_file(&unfinished);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(digit: &str, size: Option<u64>) -> Pin {
        Pin { sha256: digit.repeat(64), size, from: "https://a.example/list.txt".into() }
    }

    fn files(files: &[(&str, Pin)]) -> Files {
        files.iter().map(|(name, pin)| ((*name).to_owned(), pin.clone())).collect()
    }

    fn parse(text: &str) -> Result<Lock, Diagnostic> {
        Lock::parse(&Source::new(FILE, text))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut lock = Lock::default();
        lock.update("v1.36.3+k3s1", files(&[("k3s-arm64", pin("b", None)), ("k3s", pin("a", Some(70)))]));
        lock.update("v1.35.4+k3s1", files(&[("k3s", pin("c", Some(68)))]));
        let line = |name, digit: &str, size| {
            let sum = digit.repeat(64);
            format!("\"{name}\" = {{ sha256 = \"{sum}\", {size}from = \"https://a.example/list.txt\" }}\n")
        };
        let wanted = format!(
            "{HEADER}[k3s.\"v1.35.4+k3s1\"]\n{}\n[k3s.\"v1.36.3+k3s1\"]\n{}{}",
            line("k3s", "c", "size = 68, "),
            line("k3s", "a", "size = 70, "),
            line("k3s-arm64", "b", ""),
        );
        assert_eq!(lock.render(), wanted);
        assert_eq!(parse(&wanted), Ok(lock));
        assert_eq!(parse(&Lock::default().render()), Ok(Lock::default()));
    }

    #[test]
    fn updates_as_data() {
        let added = |file: &str, digit: &str| Change::Added { file: file.into(), sha256: digit.repeat(64) };
        let replaced = Change::Replaced { file: "k3s".into(), before: "a".repeat(64), after: "b".repeat(64) };
        let cases: [(Files, Vec<Change>, Files); 5] = [
            (files(&[("k3s", pin("a", Some(7)))]), vec![], files(&[("k3s", pin("a", Some(7)))])),
            (files(&[("k3s", pin("a", None))]), vec![], files(&[("k3s", pin("a", Some(7)))])),
            (
                files(&[("k3s", pin("a", Some(8)))]),
                vec![Change::Noted { file: "k3s".into() }],
                files(&[("k3s", pin("a", Some(8)))]),
            ),
            (files(&[("k3s", pin("b", None))]), vec![replaced], files(&[("k3s", pin("b", None))])),
            (
                files(&[("new", pin("c", None))]),
                vec![added("new", "c")],
                files(&[("k3s", pin("a", Some(7))), ("new", pin("c", None))]),
            ),
        ];
        for (update, changes, after) in cases {
            let mut lock = Lock::default();
            lock.update("v1.0.0", files(&[("k3s", pin("a", Some(7)))]));
            let other = lock.update("v0.9.0", files(&[("k3s", pin("d", None))]));
            assert_eq!(other, [added("k3s", "d")]);
            assert_eq!(lock.update("v1.0.0", update), changes);
            assert_eq!(lock.k3s["v1.0.0"], after);
            assert_eq!(lock.versions("k3s")[&"d".repeat(64)], "v0.9.0", "other releases stay");
        }
    }

    #[test]
    fn a_broken_lock_file_is_told_with_its_place() {
        let good = format!("sha256 = \"{}\", from = \"x\"", "a".repeat(64));
        let cases = [
            ("[k3s.\"v1.0.0\"]\nk3s = { sha256 = \"abc\", from = \"x\" }".to_owned(), "is not one", 2),
            (format!("[k3s.\"v1.0.0\"]\n\"../k3s\" = {{ {good} }}"), "is not one", 2),
            (format!("[k3s.latest]\nk3s = {{ {good} }}"), "is not one", 2),
            ("[k3s.\"v1.0.0\"]\nk3s = { from = \"x\" }".into(), "missing field `sha256`", 2),
            ("<<<<<<< HEAD\n[k3s]\n".into(), "cannot be read", 1),
            ("[helm]\n".into(), "unknown field `helm`", 1),
        ];
        for (text, wanted, line) in cases {
            let error = parse(&text).expect_err(&text);
            assert!(error.message.contains(wanted), "{text}: {error:?}");
            let place = error.place.expect("a place");
            assert_eq!(place.source.position(place.span.start).0, line, "{text}");
        }
    }
}
