//! Is this the machine it claims to be? Host keys against known_hosts or a pinned key, as OpenSSH does it.
//!
//! The matching is our own: hashed names, wildcards, negation, ports, `@revoked`, and a stale line before
//! the right one must all come out as `ssh` would have it.

use std::borrow::Cow;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{KeyInit as _, Mac as _};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::Policy;
use crate::transport::Error;

/// What known_hosts says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Known,
    /// Nothing is recorded for this host.
    Unknown,
    /// Something else is recorded: the fingerprints of it.
    Changed(String),
    Revoked,
}

/// The keys expected of one host.
#[derive(Debug, Clone)]
pub struct HostKey {
    host: String,
    port: u16,
    policy: Policy,
    pinned: Option<PublicKey>,
    /// New keys go to the first.
    files: Vec<PathBuf>,
    text: String,
}

impl HostKey {
    /// Reads the known_hosts files; one that does not exist is empty.
    pub fn new(
        host: &str,
        port: u16,
        policy: Policy,
        pinned: Option<&str>,
        files: &[PathBuf],
    ) -> Result<Self, Error> {
        let pinned = pinned
            .map(|key| {
                PublicKey::from_openssh(key.trim()).map_err(|e| {
                    Error::Other(format!(
                        "the host_key of {host} in the inventory is not a public key ({e}); take the line that `ssh-keyscan {host}` prints, without the host name"
                    ))
                })
            })
            .transpose()?;
        let mut text = String::new();
        for file in files {
            match std::fs::read(file) {
                Ok(bytes) => {
                    text.push_str(&String::from_utf8_lossy(&bytes));
                    text.push('\n');
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::Other(format!("cannot read {}: {e}", file.display()))),
            }
        }
        Ok(Self { host: host.to_lowercase(), port, policy, pinned, files: files.to_vec(), text })
    }

    /// `ours` with the algorithms of the recorded keys first: a server has several keys, and shows the one
    /// that is asked for.
    pub fn preferred(&self, ours: &[Algorithm]) -> Cow<'static, [Algorithm]> {
        let recorded: Vec<Algorithm> = match &self.pinned {
            Some(key) => vec![key.algorithm()],
            None => [self.name(), self.host.clone()]
                .iter()
                .flat_map(|name| entries(&self.text, name))
                .filter(|entry| entry.marker().is_none())
                .map(|entry| entry.public_key().algorithm())
                .collect(),
        };
        // An ssh-rsa key signs with any of the rsa-sha2 algorithms.
        let is_recorded = |a: &&Algorithm| {
            recorded
                .iter()
                .any(|r| r == *a || matches!((r, a), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })))
        };
        let (first, rest): (Vec<&Algorithm>, Vec<&Algorithm>) = ours.iter().partition(is_recorded);
        first.into_iter().chain(rest).cloned().collect()
    }

    /// Decides on the key a server has shown, and writes down a new one where the policy says so.
    pub fn check(&self, key: &PublicKey) -> Result<(), Error> {
        let changed = |expected: String| Error::HostKeyChanged {
            host: self.name(),
            expected,
            actual: fingerprint(key),
            pinned: self.pinned.is_some(),
        };
        if let Some(pinned) = &self.pinned {
            return if pinned.key_data() == key.key_data() {
                Ok(())
            } else {
                Err(changed(fingerprint(pinned)))
            };
        }
        match verdict(&self.text, &self.host, self.port, key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked => Err(Error::HostKeyRevoked { host: self.name() }),
            Verdict::Changed(expected) => Err(changed(expected)),
            Verdict::Unknown if self.policy == Policy::AcceptNew => self.record(key),
            Verdict::Unknown => {
                Err(Error::HostKeyUnknown { host: self.name(), fingerprint: fingerprint(key) })
            }
        }
    }

    fn name(&self) -> String {
        name(&self.host, self.port)
    }

    fn record(&self, key: &PublicKey) -> Result<(), Error> {
        let Some(file) = self.files.first() else {
            return Err(Error::Other("no known_hosts file to write the new host key to".into()));
        };
        append(file, &self.name(), key)
            .map_err(|e| Error::Other(format!("cannot write the new host key to {}: {e}", file.display())))
    }
}

/// `ssh-ed25519 SHA256:…`
pub fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

/// The name a host goes by in known_hosts.
fn name(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

/// Judges a key by the text of known_hosts files. `host` is in lower case.
pub fn verdict(text: &str, host: &str, port: u16, key: &PublicKey) -> Verdict {
    let found = judge(text, &name(host, port), key);
    // As OpenSSH: a key recorded without its port is good for another port too, but only to say yes.
    if found == Verdict::Unknown && port != 22 {
        match judge(text, host, key) {
            yes_or_revoked @ (Verdict::Known | Verdict::Revoked) => return yes_or_revoked,
            Verdict::Unknown | Verdict::Changed(_) => {}
        }
    }
    found
}

fn judge(text: &str, name: &str, key: &PublicKey) -> Verdict {
    let mut others = Vec::new();
    let mut known = false;
    for entry in entries(text, name) {
        let same = entry.public_key().key_data() == key.key_data();
        match entry.marker() {
            Some(Marker::Revoked) if same => return Verdict::Revoked,
            Some(_) => {}
            None if same => known = true,
            None => others.push(fingerprint(entry.public_key())),
        }
    }
    match (known, others.is_empty()) {
        (true, _) => Verdict::Known,
        (false, true) => Verdict::Unknown,
        (false, false) => Verdict::Changed(others.join(" or ")),
    }
}

/// The lines for a name. One that cannot be read is passed over, as OpenSSH does.
fn entries(text: &str, name: &str) -> Vec<Entry> {
    text.lines().filter_map(parse).filter(|entry| matches(entry.host_patterns(), name)).collect()
}

fn parse(line: &str) -> Option<Entry> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    // The parser wants single spaces, and takes a comment for part of the key.
    let fields = if line.starts_with('@') { 4 } else { 3 };
    line.split_whitespace().take(fields).collect::<Vec<_>>().join(" ").parse().ok()
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let Ok(mut mac) = hmac::Hmac::<sha1::Sha1>::new_from_slice(salt) else { return false };
            mac.update(name.as_bytes());
            mac.verify_slice(hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                let pattern = pattern.to_lowercase();
                match pattern.strip_prefix('!') {
                    Some(negated) if glob(negated.as_bytes(), name.as_bytes()) => return false,
                    Some(_) => {}
                    None => found |= glob(pattern.as_bytes(), name.as_bytes()),
                }
            }
            found
        }
    }
}

/// `*` and `?`; brackets stand for themselves. Linear in practice: only the last star is gone back to.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn append(file: &Path, name: &str, key: &PublicKey) -> std::io::Result<()> {
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let unfinished = std::fs::read(file).is_ok_and(|bytes| bytes.last().is_some_and(|last| *last != b'\n'));
    let key = PublicKey::new(key.key_data().clone(), "");
    let key = key.to_openssh().map_err(std::io::Error::other)?;
    // One write to a file opened for appending: nodes that are met side by side do not mix their lines.
    let line = format!("{}{name} {}\n", if unfinished { "\n" } else { "" }, key.trim_end());
    let mut file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    file.write_all(line.as_bytes())
}

#[cfg(test)]
#[path = "host_key_tests.rs"]
mod tests;
