//! `authorized_key`: a key that may log in as a user.
//!
//! The file lies in a folder its user controls, and a link planted there must not make root read or write
//! elsewhere. So nothing in the home is touched with root's rights: both the look and the write run as the user
//! (`setpriv`), and what that user may not do fails. What root would have to mend is refused, with the command for it.

use base64::Engine as _;
use russh::keys::{HashAlg, PublicKey};
use serde::Deserialize;

use super::edit::{self, State};
use super::group::check_account;
use super::text::{Seen, Source, Write, content_difference, octal};
use super::{Change, Difference, Resource, Verdict};
use crate::probe::accounts::{AS_USER, look_up};
use crate::probe::{Answers, AuthorizedKeys, FileType, Question, Stat, Unanswered};
use crate::shell::{quote, whole_or_nothing};

/// A public key in a user's `~/.ssh/authorized_keys`. Folder (0700) and file (0600) belong to the user and are made
/// if missing. Two lines are the same key if type and key are; all other lines stay as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizedKey {
    /// The account it logs in to. Its home is read from the node's passwd.
    pub user: String,
    /// As in the `.pub` file: `ssh-ed25519 AAAA… comment`. Without a comment, one that is there stays.
    pub key: String,
    /// What the key may do, as sshd(8) has it: `restrict,command="backup"`. An empty text takes options away; not
    /// given, those that are there stay.
    #[serde(default)]
    pub options: Option<String>,
    /// Take every other key away, in the write that puts this one in. Default: false.
    #[serde(default)]
    pub exclusive: bool,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: State,
}

/// A line of authorized_keys that holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line<'a> {
    options: &'a str,
    algorithm: &'a str,
    blob: &'a str,
    comment: &'a str,
}

impl<'a> Line<'a> {
    /// `None`: a comment, nothing, or what sshd would pass over. Read as sshd does: if the line does not start with
    /// a key, its first word, in which quotes hold blanks together, is options.
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        Self::key("", line).or_else(|| {
            let (options, rest) = line.split_at(options_length(line));
            Self::key(options, rest.trim_start())
        })
    }

    fn key(options: &'a str, text: &'a str) -> Option<Self> {
        let (algorithm, rest) = text.split_once([' ', '\t'])?;
        let rest = rest.trim_start();
        let (blob, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        // A key names its type inside, too: its length in four bytes, then the name.
        let bytes = base64::engine::general_purpose::STANDARD.decode(blob).ok()?;
        let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        let name = bytes.get(4..)?.get(..u32::from_be_bytes(length) as usize)?;
        (name == algorithm.as_bytes()).then_some(Self { options, algorithm, blob, comment: comment.trim() })
    }

    fn same_key(&self, other: &Line<'_>) -> bool {
        (self.algorithm, self.blob) == (other.algorithm, other.blob)
    }
}

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [self.options, self.algorithm, self.blob, self.comment];
        f.write_str(&words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }
}

/// Where the options end: at the first blank outside quotes. In quotes, `\"` is a plain character.
fn options_length(line: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            ' ' | '\t' if !quoted => return at,
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    line.len()
}

impl AuthorizedKey {
    /// `check` has seen to it that this is a key.
    fn wanted(&self) -> Line<'_> {
        Line::parse(&self.key).unwrap_or(Line { options: "", algorithm: "", blob: "", comment: "" })
    }

    /// The line for the key, which takes from an older one what this resource does not say.
    fn updated(&self, old: Option<&Line<'_>>) -> String {
        let wanted = self.wanted();
        let kept = |text: Option<&str>, old: Option<&str>| text.or(old).unwrap_or_default().to_owned();
        let comment = Some(wanted.comment).filter(|comment| !comment.is_empty());
        let options = kept(self.options.as_deref(), old.map(|old| old.options));
        let comment = kept(comment, old.map(|old| old.comment));
        Line { options: &options, comment: &comment, ..wanted }.to_string()
    }

    fn edit(&self, text: &str) -> String {
        let wanted = self.wanted();
        let mut lines: Vec<String> = Vec::new();
        let mut placed = false;
        for line in text.split_terminator('\n') {
            match Line::parse(line) {
                Some(old) if old.same_key(&wanted) => {
                    if self.state == State::Present && !placed {
                        let updated = self.updated(Some(&old));
                        lines.push(if Line::parse(&updated) == Some(old) { line.into() } else { updated });
                        placed = true;
                    }
                }
                // What is no key to us might be one to sshd.
                None if self.exclusive && !(line.trim().is_empty() || line.trim().starts_with('#')) => {}
                Some(_) if self.exclusive => {}
                _ => lines.push(line.to_owned()),
            }
        }
        if self.state == State::Present && !placed {
            lines.push(self.updated(None));
        }
        if text.split_terminator('\n').eq(lines.iter().map(String::as_str)) {
            text.to_owned()
        } else {
            edit::join(&lines)
        }
    }

    /// Why what stands there cannot be worked with as the user.
    fn obstacle(&self, keys: &AuthorizedKeys) -> Option<String> {
        let (user, home) = (&self.user, &keys.home);
        if !keys.home_exists {
            return Some(format!(
                "{home}, the home of {user}, does not exist or is closed to {user}; make it first"
            ));
        }
        let folder = format!("{home}/.ssh");
        let wrong_owner = |path: &str, stat: &Stat| {
            let word = quote(path);
            (stat.owner != *user && stat.owner != keys.uid.to_string()).then(|| {
                format!("{path} belongs to {}, not to {user}; mend it: chown {user}: {word}", stat.owner)
            })
        };
        match &keys.folder {
            Some(stat) if stat.file_type != FileType::Directory => {
                return Some(format!("{folder} is no directory, but a link or a file; move it away"));
            }
            Some(stat) => {
                if let Some(reason) = wrong_owner(&folder, stat) {
                    return Some(reason);
                }
            }
            None => {}
        }
        let file = format!("{folder}/authorized_keys");
        match (&keys.file, &keys.content) {
            (Some(stat), _) if stat.file_type == FileType::Link => {
                Some(format!("{file} is a link; put the file itself there, which sshd reads as well"))
            }
            (Some(stat), None) => {
                wrong_owner(&file, stat).or_else(|| Some(format!("{file} cannot be read by {user}")))
            }
            (None, None) => Some(format!("{folder} cannot be looked into as {user} (setpriv)")),
            _ => None,
        }
    }

    fn attributes(&self, keys: &AuthorizedKeys) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (attribute, stat, mode) in
            [("mode of .ssh", &keys.folder, 0o700), ("mode of authorized_keys", &keys.file, 0o600)]
        {
            if let Some(stat) = stat.as_ref().filter(|stat| stat.mode != mode) {
                differences.push(Difference::value(attribute, Some(&octal(stat.mode)), Some(&octal(mode))));
            }
        }
        let owner = keys.file.as_ref().filter(|s| s.owner != self.user && s.owner != keys.uid.to_string());
        differences.extend(owner.map(|s| Difference::value("owner", Some(&s.owner), Some(&self.user))));
        differences
    }

    /// A step that makes the folder and writes the file, all with the user's rights.
    fn shell(&self, keys: &AuthorizedKeys, before: Option<&str>, after: &str) -> String {
        let folder = format!("{}/.ssh", keys.home);
        let path = format!("{folder}/authorized_keys");
        let id = |id: u32| id.to_string();
        let write = Write {
            path: &path,
            source: Source::Bytes(after.as_bytes()),
            mode: "0600",
            owner: &id(keys.uid),
            group: &id(keys.gid),
            backup: false,
            validate: None,
            seen: before.map_or(Seen::Absent, |text| Seen::Bytes(text.as_bytes())),
        };
        let as_user = format!(
            "umask 077\nd={}\n[ ! -L \"$d\" ] && {{ [ -d \"$d\" ] || mkdir -- \"$d\"; }} && chmod 0700 -- \"$d\" || exit 1\n{}",
            quote(&folder),
            write.shell()
        );
        format!(
            "(\n{}[ $? = 0 ] && [ \"$u\" = {} ] || {{ printf '%s\\n' {} >&2; exit 1; }}\n\
             cd / && {AS_USER} sh -s <<'DATAHUB_AS_USER'\n{}DATAHUB_AS_USER\n) || exit 1\n",
            look_up(&self.user),
            keys.uid,
            quote(&format!("{}: the account changed since it was looked at; run again", self.user)),
            whole_or_nothing(&as_user),
        )
    }

    fn last_key(&self, after: &str) -> bool {
        !after.lines().any(|line| Line::parse(line).is_some())
    }
}

impl Resource for AuthorizedKey {
    fn name(&self) -> String {
        let fingerprint = match PublicKey::from_openssh(&self.key) {
            Ok(key) => key.fingerprint(HashAlg::Sha256).to_string(),
            Err(_) => String::new(),
        };
        let comment = self.wanted().comment;
        // 12 characters of the fingerprint tell a person's keys apart.
        let short: String = fingerprint.chars().take("SHA256:".len() + 12).collect();
        format!("{}: {}", self.user, [comment, &short].join(" ").trim_start())
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::AuthorizedKeys(self.user.clone())]
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let Some(keys) = seen.authorized_keys(&self.user)? else {
            return Ok(match self.state {
                State::Absent => Verdict::Converged,
                State::Present => Verdict::Unknown(format!(
                    "there is no user {} yet: is it declared before its key, and is its name right?",
                    self.user
                )),
            });
        };
        if self.state == State::Absent && keys.file.is_none() && keys.content.is_some() {
            return Ok(Verdict::Converged);
        }
        if let Some(reason) = self.obstacle(keys) {
            return Ok(Verdict::Refused(reason));
        }
        let path = format!("{}/.ssh/authorized_keys", keys.home);
        let content = keys.content.as_ref().unwrap_or(&crate::probe::Content::Absent);
        let before = match edit::before(keys.file.as_ref(), content) {
            Ok(before) => before,
            Err(reason) => return Ok(Verdict::Refused(format!("{path} {reason}"))),
        };
        let text = before.unwrap_or_default();
        let after = self.edit(text);
        if self.state == State::Absent
            && after != text
            && self.last_key(&after)
            && seen.facts.login_user == self.user
        {
            return Ok(Verdict::Refused(format!(
                "it is the last key of {0}, and this run logs in as {0}: put another one in first",
                self.user
            )));
        }
        let mut differences = match self.state {
            State::Present => self.attributes(keys),
            State::Absent => Vec::new(),
        };
        if after != text {
            let bytes = before.map(str::as_bytes);
            differences.insert(0, content_difference(&path, bytes, after.as_bytes()));
        }
        Ok(match differences.is_empty() {
            true => Verdict::Converged,
            false => Verdict::Differs(Change::new(differences, self.shell(keys, before, &after))),
        })
    }

    fn check(&self) -> Result<(), String> {
        check_account("user", &self.user)?;
        check_key(&self.key)?;
        if let Some(options) = self.options.as_deref().filter(|options| !options.is_empty()) {
            let whole = options_length(options) == options.len() && !options.starts_with('#');
            if !whole || options.chars().any(char::is_control) || options.matches('"').count() % 2 == 1 {
                return Err(format!(
                    "`options` {options:?}: separate them with commas and no blanks, and close every quote, as \
                     restrict,command=\"backup now\""
                ));
            }
        }
        match self.state {
            State::Absent if self.exclusive => {
                Err("`exclusive` keeps only this key, and state = \"absent\" takes it away: drop one of them"
                    .into())
            }
            State::Absent if self.options.is_some() => {
                Err("`options` make no sense with state = \"absent\"".into())
            }
            _ => Ok(()),
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`key` {why}"));
    if key.contains("PRIVATE KEY") {
        return wrong(
            "is a private key: give the public one (the .pub file), and keep the other to yourself",
        );
    }
    if key.chars().any(char::is_control) {
        return wrong("must be one line; declare one authorized_key for each key");
    }
    match Line::parse(key) {
        Some(line) if !line.options.is_empty() => wrong("starts with options: put them into `options`"),
        Some(line) if line.algorithm == "ssh-dss" => wrong("is a DSA key, which sshd no longer accepts"),
        Some(line) if line.algorithm.contains("-cert-") => {
            wrong("is a certificate: give the key of its authority, with options = \"cert-authority\"")
        }
        Some(_) if PublicKey::from_openssh(key).is_ok() => Ok(()),
        _ => wrong(
            "is not a public key: it has a type, the key in base64 and a comment, as in ~/.ssh/id_ed25519.pub",
        ),
    }
}

#[cfg(test)]
#[path = "authorized_key_tests.rs"]
mod tests;
