//! Secrets: looked up by name, kept out of every output.
//!
//! In order: the environment variable `DATAHUB_SECRET_<NAME>` (capitals, `-` and `.` as `_`), the age file
//! `secrets/<name>.age` beside the inventory, the inventory's `[secrets] command`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::inventory::Inventory;

/// A secret text. It cannot be printed: `Debug` and `Display` give `<secret>`; its memory is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// What stands in place of a secret in any output.
pub const HIDDEN: &str = "<secret>";

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: only for what is sent to a node.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Why a secret could not be read. Holds no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("`{0}` is not a secret's name: use letters, digits, `-`, `_` and inner dots")]
    Name(String),
    #[error("the secret `{name}` is nowhere: set {variable}, or write {}, or set [secrets] command", file.display())]
    Missing { name: String, variable: String, file: PathBuf },
    #[error("cannot read the secret file {}: {why}", file.display())]
    File { file: PathBuf, why: String },
    #[error("cannot read the age identity {}: {why}; make one with age-keygen, or set [secrets] identity", file.display())]
    Identity { file: PathBuf, why: String },
    #[error("the secret command `{program}` failed for `{name}`: {why}")]
    Command { name: String, program: String, why: String },
}

/// The store of secrets. Clones share what has been looked up.
#[derive(Clone)]
pub struct Secrets(Arc<Store>);

struct Store {
    sources: Option<Sources>,
    seen: Mutex<BTreeMap<String, Secret>>,
}

struct Sources {
    environment: fn(&str) -> Option<String>,
    folder: PathBuf,
    identity: Option<PathBuf>,
    command: Vec<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("placeholders", &self.0.sources.is_none()).finish_non_exhaustive()
    }
}

impl Secrets {
    /// The secrets of an inventory; each is looked up once, when first asked for.
    pub fn open(inventory: &Inventory) -> Self {
        Self::with(Some(Sources {
            environment: |name| std::env::var(name).ok(),
            folder: inventory.dir.join("secrets"),
            identity: inventory.secrets.identity.as_deref().map(|path| expand(path, &inventory.dir)),
            command: inventory.secrets.command.clone(),
        }))
    }

    /// Stands in where no secret may be needed: every name has a value that is recognizably none.
    pub fn placeholder() -> Self {
        Self::with(None)
    }

    fn with(sources: Option<Sources>) -> Self {
        Self(Arc::new(Store { sources, seen: Mutex::default() }))
    }

    /// The secret of that name.
    pub fn get(&self, name: &str) -> Result<Secret, SecretError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(inner) {
            return Err(SecretError::Name(name.to_owned()));
        }
        // Held while looking up, so that nodes planned side by side do not ask for a passphrase twice.
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = seen.get(name) {
            return Ok(secret.clone());
        }
        let secret = match &self.0.sources {
            Some(sources) => sources.look_up(name)?,
            None => Secret::new(format!("placeholder-{name}")),
        };
        seen.insert(name.to_owned(), secret.clone());
        Ok(secret)
    }

    /// The text with every secret known so far (of at least 4 characters), and each line of one, hidden.
    pub fn redact(&self, text: &str) -> String {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words: Vec<&str> = seen
            .values()
            .flat_map(|secret| std::iter::once(secret.expose()).chain(secret.expose().lines().map(str::trim)))
            .filter(|word| word.chars().count() >= 4)
            .collect();
        // A secret that holds another one must go first, or its rest would stay.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.iter().fold(text.to_owned(), |text, word| text.replace(word, HIDDEN))
    }
}

impl Sources {
    fn look_up(&self, name: &str) -> Result<Secret, SecretError> {
        let variable = format!("DATAHUB_SECRET_{}", name.to_uppercase().replace(['-', '.'], "_"));
        if let Some(text) = (self.environment)(&variable) {
            return Ok(Secret::new(text));
        }
        let file = self.folder.join(format!("{name}.age"));
        match std::fs::read(&file) {
            Ok(sealed) => self.unseal(&file, &sealed),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SecretError::File { file, why: error.to_string() })
            }
            Err(_) if self.command.is_empty() => {
                Err(SecretError::Missing { name: name.to_owned(), variable, file })
            }
            Err(_) => self.ask_command(name),
        }
    }

    fn unseal(&self, file: &Path, sealed: &[u8]) -> Result<Secret, SecretError> {
        let bad = |why: &str| SecretError::File { file: file.to_owned(), why: why.to_owned() };
        if sealed.starts_with(b"-----BEGIN AGE") {
            return Err(bad("it is armored: write it without age's --armor"));
        }
        let mut why = "the identity file holds no AGE-SECRET-KEY".to_owned();
        for identity in self.identities()? {
            match age::decrypt(&identity, sealed) {
                Ok(bytes) => {
                    let bytes = Zeroizing::new(bytes);
                    let text = std::str::from_utf8(&bytes).map_err(|_| bad("its content is not UTF-8"))?;
                    return Ok(Secret::new(without_end(text)));
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(bad(&why))
    }

    fn identities(&self) -> Result<Vec<age::x25519::Identity>, SecretError> {
        let file = match &self.identity {
            Some(file) => file.clone(),
            None => expand(Path::new("~/.config/datahub/identity"), Path::new("")),
        };
        let bad = |why: String| SecretError::Identity { file: file.clone(), why };
        let text = Zeroizing::new(std::fs::read_to_string(&file).map_err(|error| bad(error.to_string()))?);
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.parse().map_err(|error: &str| bad(error.to_owned())))
            .collect()
    }

    fn ask_command(&self, name: &str) -> Result<Secret, SecretError> {
        let words: Vec<String> = self.command.iter().map(|word| word.replace("{name}", name)).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(SecretError::Name(name.to_owned()));
        };
        let bad = |why: String| SecretError::Command { name: name.to_owned(), program: program.clone(), why };
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| bad(error.to_string()))?;
        let stdout = Zeroizing::new(output.stdout);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default().trim();
            return Err(bad(format!("{} {said}", output.status).trim_end().to_owned()));
        }
        let text = std::str::from_utf8(&stdout).map_err(|_| bad("its output is not UTF-8".to_owned()))?;
        Ok(Secret::new(without_end(text)))
    }
}

/// Without the one line end that editors and `echo` add.
fn without_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// `~/…` in the home folder; other relative paths beside the inventory.
pub(crate) fn expand(path: &Path, beside: &Path) -> PathBuf {
    match (path.strip_prefix("~"), etcetera::home_dir()) {
        (Ok(rest), Ok(home)) => home.join(rest),
        _ => beside.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path, command: &[&str]) -> Secrets {
        Secrets::with(Some(Sources {
            environment: |name| (name == "DATAHUB_SECRET_FROM_ENV").then(|| "env value".to_owned()),
            folder: folder.to_owned(),
            identity: Some(folder.join("identity")),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        }))
    }

    #[test]
    fn each_source_gives_its_secret() {
        use age::secrecy::ExposeSecret as _;
        let folder = tempfile::tempdir().expect("a folder");
        let identity = age::x25519::Identity::generate();
        let text = format!("# created: today\n{}\n", identity.to_string().expose_secret());
        std::fs::write(folder.path().join("identity"), text).expect("written");
        let sealed = age::encrypt(&identity.to_public(), b"file value\n").expect("sealed");
        std::fs::write(folder.path().join("from-file.age"), sealed).expect("written");
        std::fs::write(folder.path().join("rubbish.age"), "rubbish").expect("written");

        let secrets = store(folder.path(), &["printf", "%s value", "{name}"]);
        for (name, expected) in
            [("from-env", "env value"), ("from-file", "file value"), ("token", "token value")]
        {
            assert_eq!(secrets.get(name).expect(name).expose(), expected);
        }
        assert!(matches!(secrets.get("rubbish"), Err(SecretError::File { .. })));
        assert!(matches!(store(folder.path(), &[]).get("none"), Err(SecretError::Missing { .. })));
        assert!(matches!(store(folder.path(), &["false"]).get("none"), Err(SecretError::Command { .. })));
        for name in ["", "../x", ".x", "a/b", "a b"] {
            assert_eq!(secrets.get(name), Err(SecretError::Name(name.to_owned())));
        }
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Secret::new("hunter22");
        assert_eq!(format!("{secret} {secret:?}"), "<secret> <secret>");
        let secrets = store(Path::new("none"), &["printf", "first line\nsecond\nabc\nfirst"]);
        secrets.get("x").expect("found");
        assert_eq!(secrets.redact("a first line, second abc first."), "a <secret>, <secret> abc <secret>.");
        assert!(Secrets::placeholder().get("x").is_ok());
    }
}
