//! `apt_repository`: a package source and the key that signs it.

use serde::Deserialize;

use super::edit::State;
use super::file::File;
use super::package::apt_step;
use super::text::{Seen, Source, Write, attribute_differences};
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, Content, FileType, Question, Unanswered};
use crate::shell::{quote, quote_all};

const KEYRINGS: &str = "/etc/apt/keyrings";

/// A source in /etc/apt/sources.list.d/NAME.sources (deb822) whose key, in /etc/apt/keyrings, signs nothing else.
/// After a change the lists of this source are fetched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AptRepository {
    /// Names the files: letters, digits, `-` and `_`.
    pub name: String,
    /// Where the archive is. Needed unless `state = "absent"`.
    #[serde(default)]
    pub uris: Vec<String>,
    /// `trixie`, …; a path that ends with `/` for a flat archive.
    #[serde(default)]
    pub suites: Vec<String>,
    /// `main`, …; empty for a flat archive.
    #[serde(default)]
    pub components: Vec<String>,
    /// Debian's names; all of the machine's if empty.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Where the node fetches the key. Needs `key_sha256`. Exactly one of `key_url` and `key`.
    #[serde(default)]
    pub key_url: Option<String>,
    /// SHA-256 of the key file, 64 lower-case hexadecimal digits; another key is never used.
    #[serde(default)]
    pub key_sha256: Option<String>,
    /// The format at `key_url`: `asc` (armored text, default) or `gpg` (binary).
    #[serde(default)]
    pub key_format: KeyFormat,
    /// The key itself, armored.
    #[serde(default)]
    pub key: Option<String>,
    /// `present` (default) or `absent`: neither source nor key.
    #[serde(default)]
    pub state: State,
}

/// How a key file is written; apt goes by its suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    #[default]
    Asc,
    Gpg,
}

impl AptRepository {
    fn sources_path(&self) -> String {
        format!("/etc/apt/sources.list.d/{}.sources", self.name)
    }

    fn key_path(&self) -> String {
        let suffix = match self.key_format {
            KeyFormat::Asc => "asc",
            KeyFormat::Gpg => "gpg",
        };
        format!("{KEYRINGS}/{}.{suffix}", self.name)
    }

    fn sources(&self) -> File {
        let mut text = String::from("Types: deb\n");
        for (field, words) in [
            ("URIs", &self.uris),
            ("Suites", &self.suites),
            ("Components", &self.components),
            ("Architectures", &self.architectures),
        ] {
            if !words.is_empty() {
                text.push_str(&format!("{field}: {}\n", words.join(" ")));
            }
        }
        text.push_str(&format!("Signed-By: {}\n", self.key_path()));
        File::text(self.sources_path(), text)
    }

    /// The key as a file, if it is given in the role.
    fn inline_key(&self) -> Option<File> {
        self.key.as_ref().map(|key| File::text(self.key_path(), format!("{}\n", key.trim())))
    }

    fn sha256(&self) -> &str {
        self.key_sha256.as_deref().unwrap_or_default()
    }

    fn key_verdict(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        if let Some(file) = self.inline_key() {
            return file.diff(seen);
        }
        let path = self.key_path();
        let wanted = format!("sha256 {}…", &self.sha256().get(..12).unwrap_or_default());
        let key = |before: Option<&str>| Difference::value("key", before, Some(&wanted));
        let stat = seen.stat(&path)?.as_ref();
        let mut differences = match seen.content(&path, self.sha256())? {
            Content::Same => Vec::new(),
            Content::Absent => vec![key(None)],
            Content::Differs(bytes) => vec![key(Some(&super::text::describe(bytes)))],
            Content::TooLarge(size) => vec![key(Some(&format!("{size} B")))],
            Content::NotAFile => {
                return Ok(Verdict::Refused(format!("{path} is not a regular file; move it away")));
            }
        };
        if let Some(stat) = stat {
            if stat.file_type == FileType::Link {
                return Ok(Verdict::Refused(format!("{path} is a link; remove it")));
            }
            differences.extend(attribute_differences(stat, "0644", "root", "root"));
        }
        Ok(match differences.is_empty() {
            true => Verdict::Converged,
            false => Verdict::Differs(Change::new(differences, self.fetch(&path))),
        })
    }

    /// Fetches the key on the node and puts it in place if it is the right one.
    fn fetch(&self, path: &str) -> String {
        let url = quote(self.key_url.as_deref().unwrap_or_default());
        let fetch = format!(
            "if command -v curl >/dev/null; then\n\
             curl -fsSL --retry 3 --connect-timeout 20 --max-time 120 -o \"$tmp\" -- {url} </dev/null\n\
             else\n\
             /usr/lib/apt/apt-helper download-file {url} \"$tmp\" </dev/null >/dev/null\n\
             fi"
        );
        let armored = match self.key_format {
            KeyFormat::Asc => {
                "grep -q '^-----BEGIN PGP' {} || { echo 'the key is not armored: set key_format = \"gpg\"'; exit 1; }"
            }
            KeyFormat::Gpg => {
                "! grep -q '^-----BEGIN PGP' {} || { echo 'the key is armored: set key_format = \"asc\"'; exit 1; }"
            }
        };
        let validate = format!(
            "sum=$(sha256sum <{{}} | cut -c1-64)\n\
             [ \"$sum\" = {sum} ] || {{ echo \"the key at \"{url}\" has sha256 $sum, not \"{sum}; exit 1; }}\n\
             {armored}",
            sum = self.sha256(),
        );
        Write {
            path,
            source: Source::Shell(&fetch),
            mode: "0644",
            owner: "root",
            group: "root",
            backup: false,
            validate: Some(&validate),
            seen: Seen::Any,
        }
        .shell()
    }

    fn removed(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let mut there = Vec::new();
        for path in [self.sources_path(), self.key_path()] {
            if seen.stat(&path)?.is_some() {
                there.push(path);
            }
        }
        if there.is_empty() {
            return Ok(Verdict::Converged);
        }
        let differences = there.iter().map(|path| Difference::value(path, Some("there"), None)).collect();
        // The source before its key: a source without its key would be an error of every apt call.
        let shell = format!("rm -f -- {} || exit 1\n", quote_all(&there));
        Ok(Verdict::Differs(Change::new(differences, shell)))
    }
}

impl Resource for AptRepository {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        if self.state == State::Absent {
            return vec![Question::Stat(self.sources_path()), Question::Stat(self.key_path())];
        }
        let mut questions = self.sources().questions();
        match self.inline_key() {
            Some(file) => questions.extend(file.questions()),
            None => questions.extend([
                Question::Stat(self.key_path()),
                Question::Content { path: self.key_path(), unless: self.sha256().to_owned() },
            ]),
        }
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        if self.state == State::Absent {
            return self.removed(seen);
        }
        let mut differences = Vec::new();
        let mut shell = String::new();
        for verdict in [self.key_verdict(seen)?, self.sources().diff(seen)?] {
            match verdict {
                Verdict::Converged => {}
                Verdict::Differs(change) => {
                    differences.extend(change.differences);
                    shell.push_str(&change.shell);
                }
                other => return Ok(other),
            }
        }
        if differences.is_empty() {
            return Ok(Verdict::Converged);
        }
        let sources = quote(&self.sources_path());
        // One that cannot be fetched would fail every other fetch, and the next run would take it for done.
        Ok(Verdict::Differs(apt_step(
            differences,
            &format!(
                "[ -d {KEYRINGS} ] || ( umask 022 && mkdir -p {KEYRINGS} ) || exit 1\n\
                 {shell}\
                 apt update -o Dir::Etc::sourcelist={sources} -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 \
                 -o APT::Update::Error-Mode=any || {{ rm -f -- {sources}; exit 1; }}\n"
            ),
        )))
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!("name {:?} must be letters, digits, `-` and `_`", self.name));
        }
        if self.state == State::Absent {
            return Ok(());
        }
        if self.uris.is_empty() || self.suites.is_empty() {
            return Err("`uris` and `suites` must each hold at least one word".into());
        }
        for word in [&self.uris, &self.suites, &self.components, &self.architectures].into_iter().flatten() {
            if word.is_empty() || word.contains(char::is_whitespace) {
                return Err(format!("{word:?} must be one word"));
            }
        }
        let digest =
            |sum: &String| sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (&self.key_url, &self.key, &self.key_sha256) {
            (Some(url), None, Some(sum)) => {
                if !url.starts_with("https://") && !url.starts_with("http://") {
                    return Err(format!("`key_url` {url:?} must start with https:// or http://"));
                }
                match digest(sum) {
                    true => Ok(()),
                    false => Err("`key_sha256` must be 64 lower-case hexadecimal digits".into()),
                }
            }
            (Some(_), None, None) => {
                Err("`key_url` needs `key_sha256`: a key is never trusted unseen".into())
            }
            (None, Some(_), Some(_)) => Err("`key_sha256` belongs to `key_url`, not to `key`".into()),
            (None, Some(_), None) if self.key_format == KeyFormat::Gpg => {
                Err("`key` is always armored; `key_format` belongs to `key_url`".into())
            }
            (None, Some(key), None) if !key.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") => {
                Err("`key` is not an armored public key".into())
            }
            (None, Some(_), None) => Ok(()),
            _ => Err("give exactly one of `key_url` (with `key_sha256`) and `key`".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Facts};
    use crate::resource::testing::{build, mistake, run, stat};

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn fields() -> String {
        format!(
            "name = 'tools'\nuris = ['https://apt.home.arpa']\nsuites = ['trixie']\ncomponents = ['main']\n\
             key_url = 'https://apt.home.arpa/key.asc'\nkey_sha256 = '{SUM}'"
        )
    }

    fn seen(key: Content, key_mode: u32, sources: Content) -> Answers {
        let mut answers = Answers::new(Facts::default());
        for question in build("apt_repository", &fields()).questions() {
            let answer = match &question {
                Question::Stat(path) => {
                    let (content, mode) =
                        if path.ends_with(".asc") { (&key, key_mode) } else { (&sources, 0o644) };
                    Answer::Stat((*content != Content::Absent).then(|| stat(FileType::File, mode)))
                }
                Question::Content { path, .. } if path.ends_with(".asc") => Answer::Content(key.clone()),
                _ => Answer::Content(sources.clone()),
            };
            answers.insert(question, answer);
        }
        answers
    }

    #[test]
    fn diffs_as_data() {
        let key = |before| Difference::value("key", before, Some("sha256 e3b0c44298fc…"));
        let sources = Difference::Text {
            path: "/etc/apt/sources.list.d/tools.sources".into(),
            before: None,
            after: Some(
                "Types: deb\nURIs: https://apt.home.arpa\nSuites: trixie\nComponents: main\n\
                 Signed-By: /etc/apt/keyrings/tools.asc\n"
                    .into(),
            ),
        };
        let cases = [
            (Content::Same, 0o644, Content::Same, vec![]),
            (Content::Absent, 0, Content::Absent, vec![key(None), sources]),
            (
                Content::Differs(b"x".to_vec()),
                0o644,
                Content::Same,
                vec![key(Some("1 B, sha256 2d711642b726…"))],
            ),
            (
                Content::Same,
                0o600,
                Content::Same,
                vec![Difference::value("mode", Some("0600"), Some("0644"))],
            ),
        ];
        let repository = build("apt_repository", &fields());
        for (key, mode, sources, differences) in cases {
            let label = format!("{key:?} {mode:o} {sources:?}");
            match repository.diff(&seen(key, mode, sources)).unwrap() {
                Verdict::Converged => assert!(differences.is_empty(), "{label}"),
                Verdict::Differs(change) => {
                    assert_eq!(change.differences, differences, "{label}");
                    assert!(change.shell.contains("apt update -o Dir::Etc::sourcelist="), "{label}");
                }
                other => panic!("{label}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_wrong_key_is_never_put_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tools.asc");
        let path = path.to_str().unwrap();
        let armored = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n";
        let right = super::super::text::sha256_hex(armored.as_bytes());
        for (sum, wanted) in [(SUM, Some("has sha256")), (&right, None)] {
            let repository: AptRepository = toml::from_str(&fields().replace(SUM, sum)).unwrap();
            let stand_in = format!(
                "curl() {{ printf '%s\\n' {} >\"$tmp\"; }}\nchown() {{ :; }}\n",
                quote(armored.trim())
            );
            let result = run(&(stand_in + &repository.fetch(path)));
            match wanted {
                Some(wanted) => {
                    let error = result.unwrap_err();
                    assert!(error.contains(wanted), "{error}");
                    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
                }
                None => {
                    result.unwrap();
                    assert_eq!(std::fs::read_to_string(path).unwrap(), armored);
                }
            }
        }
    }

    #[test]
    fn mistakes_are_found_offline() {
        let cases = [
            (fields().replace("key_sha256", "#"), "never trusted unseen"),
            (fields().replace(SUM, "abc"), "64 lower-case"),
            (fields().replace("'tools'", "'../x'"), "must be letters"),
            (fields().replace("'trixie'", "'a b'"), "one word"),
            (fields().replace("key_url", "#"), "exactly one of"),
            (fields().replace("https://apt.home.arpa/key", "file:///key"), "must start with"),
            (fields() + "\nkey = 'x'", "exactly one of"),
        ];
        for (fields, wanted) in cases {
            let error = mistake("apt_repository", &fields);
            assert!(error.contains(wanted), "{fields}: {error}");
        }
    }
}
