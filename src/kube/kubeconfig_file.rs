//! Writing the operator's kubeconfig: the right file of several, under kubectl's lock, at once and with a
//! backup.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::kubeconfig::{Current, Entry, MergeError, Merged, survey};
use crate::secret::Secret;

/// Why the file was not written. It is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {why}", path.display())]
    Read { path: PathBuf, why: String },
    #[error("{} was not touched: {why}", path.display())]
    Merge { path: PathBuf, why: MergeError },
    #[error("{} is being written by another program", path.display())]
    Locked { path: PathBuf },
    #[error("cannot write {}: {why}", path.display())]
    Write { path: PathBuf, why: String },
    #[error("there is no home folder to keep a kubeconfig in")]
    NoHome,
}

impl FileError {
    /// What the person at the keyboard can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Merge { why: MergeError::Broken(_), path } => {
                format!("mend it, or move it away; kubectl --kubeconfig {} config view", path.display())
            }
            Self::Merge { why: MergeError::NameTaken { name, .. }, .. } => format!(
                "choose another name, or take the old one out: kubectl config delete-context {name} (delete-cluster, delete-user)"
            ),
            Self::Merge { .. } => return None,
            Self::Locked { path } => {
                format!("if no kubectl is running, delete {}", lock_path(path).display())
            }
            Self::Read { .. } | Self::Write { .. } => "see who owns it: ls -l".into(),
            Self::NoHome => "set KUBECONFIG to a file".into(),
        })
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Unchanged {
        path: PathBuf,
    },
    Changed {
        path: PathBuf,
        /// The file as it was; `None` if there was none.
        backup: Option<PathBuf>,
        /// Its comments and its order are lost.
        rewritten: bool,
    },
}

/// The operator's kubeconfigs in kubectl's order: what KUBECONFIG lists, else ~/.kube/config.
pub fn paths(variable: Option<&OsStr>, home: Option<&Path>) -> Result<Vec<PathBuf>, FileError> {
    let listed: Vec<PathBuf> = variable
        .map(|list| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    match (listed.is_empty(), home) {
        (false, _) => Ok(listed),
        (true, Some(home)) => Ok(vec![home.join(".kube/config")]),
        (true, None) => Err(FileError::NoHome),
    }
}

/// Merges a cluster into the one of the kubeconfigs that holds it already, else into the first that exists,
/// else into the last, as kubectl does. It becomes the current context if asked for, or if none of them sets
/// one. A file that cannot be read or understood stops it before anything is written.
pub fn merge_into(paths: &[PathBuf], entry: &Entry, make_current: bool) -> Result<Written, FileError> {
    let mut exists = None;
    let mut holds = None;
    let mut any_current = false;
    for path in paths {
        let Some(text) = read(path)? else { continue };
        let found = survey(text.expose(), entry.name())
            .map_err(|why| FileError::Merge { path: path.clone(), why })?;
        exists = exists.or(Some(path));
        holds = holds.or(found.has_context.then_some(path));
        any_current |= found.has_current;
    }
    let path = holds.or(exists).or(paths.last()).ok_or(FileError::NoHome)?;
    let current = match (make_current, any_current) {
        (true, _) => Current::Always,
        (false, true) => Current::Never,
        (false, false) => Current::IfNone,
    };
    merge_file(path, entry, current)
}

fn merge_file(path: &Path, entry: &Entry, current: Current) -> Result<Written, FileError> {
    // A link stays a link: what it leads to is written.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |e: io::Error| FileError::Write { path: path.clone(), why: e.to_string() };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let _lock = Lock::take(path)?;
    let before = read(path)?;
    let existing = before.as_ref().map_or("", Secret::expose);
    let merged =
        entry.merge(existing, current).map_err(|why| FileError::Merge { path: path.clone(), why })?;
    let Merged::Changed { text, rewritten } = merged else {
        return Ok(Written::Unchanged { path: path.clone() });
    };
    let like = fs::metadata(path).ok();
    let mut backup = None;
    if let Some(before) = &before {
        let kept = beside(path, "datahub-backup");
        write(&kept, before, like.as_ref()).map_err(failed)?;
        backup = Some(kept);
    }
    write(path, &text, like.as_ref()).map_err(failed)?;
    Ok(Written::Changed { path: path.clone(), backup, rewritten })
}

/// `None` if there is none.
fn read(path: &Path) -> Result<Option<Secret>, FileError> {
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(_) => Err(FileError::Read { path: path.to_owned(), why: "it is not text".into() }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::Read { path: path.to_owned(), why: e.to_string() }),
    }
}

/// `config` → `config.SUFFIX`
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Puts a file for its owner alone in place at once: whoever reads sees the old or the new one.
fn write(path: &Path, text: &Secret, like: Option<&Metadata>) -> io::Result<()> {
    let draft = beside(path, &format!("datahub-{}", std::process::id()));
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        // Under sudo the file stays its owner's.
        if let Some(like) = like
            && (like.uid(), like.gid()) != (file.metadata()?.uid(), file.metadata()?.gid())
        {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.write_all(text.expose().as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    put().inspect_err(|_| {
        // What failed has been told; the draft is of no more use.
        let _ = fs::remove_file(&draft);
    })
}

fn lock_path(path: &Path) -> PathBuf {
    beside(path, "lock")
}

/// kubectl's own lock: a file that must not exist.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, FileError> {
        let lock = lock_path(path);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).map(drop::<File>) {
            Ok(()) => Ok(Self(lock)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(FileError::Locked { path: path.to_owned() })
            }
            Err(e) => Err(FileError::Write { path: path.to_owned(), why: e.to_string() }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing more can be done about a lock that cannot be removed; the next one who waits for it is
        // told.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const K3S: &str = "clusters: [{name: d, cluster: {certificate-authority-data: Q0E=}}]
contexts: [{name: d, context: {cluster: d, user: d}}]
users: [{name: d, user: {client-key-data: S0VZ}}]
current-context: d
";

    fn entry() -> Entry {
        Entry::new(&Secret::new(K3S), "https://nas.home.arpa:6443", "home").expect("an entry")
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("read")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    /// What is in a folder; no draft and no lock may stay behind.
    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("read")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_changed_with_a_backup_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(".kube/config");
        let paths = [path.clone()];
        let made = merge_into(&paths, &entry(), false).expect("written");
        assert_eq!(made, Written::Changed { path: path.clone(), backup: None, rewritten: false });
        assert_eq!((mode(&path), text(&path).contains("current-context: home")), (0o600, true));

        let before = text(&path);
        assert_eq!(merge_into(&paths, &entry(), true), Ok(Written::Unchanged { path: path.clone() }));
        assert_eq!(names(&dir.path().join(".kube")), ["config"]);

        let other = Entry::new(&Secret::new(K3S), "https://nas.home.arpa:6443", "lab").expect("an entry");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let changed = merge_into(&paths, &other, false).expect("written");
        let backup = path.with_file_name("config.datahub-backup");
        assert_eq!(
            changed,
            Written::Changed { path: path.clone(), backup: Some(backup.clone()), rewritten: false }
        );
        assert_eq!((text(&backup), mode(&backup), mode(&path)), (before, 0o600, 0o600));
        assert!(text(&path).contains("current-context: home") && text(&path).contains("name: lab"));
        assert_eq!(names(&dir.path().join(".kube")), ["config", "config.datahub-backup"]);
    }

    #[test]
    fn broken_locked_and_linked_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config");
        let paths = [path.clone()];
        fs::write(&path, "users: [").expect("written");
        assert!(matches!(merge_into(&paths, &entry(), false), Err(FileError::Merge { .. })));
        assert_eq!((text(&path).as_str(), names(dir.path()).len()), ("users: [", 1));
        fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(matches!(merge_into(&paths, &entry(), false), Err(FileError::Read { .. })));

        fs::write(&path, "kind: Config\n").expect("written");
        let lock = dir.path().join("config.lock");
        fs::write(&lock, "").expect("written");
        let locked = merge_into(&paths, &entry(), false).expect_err("locked");
        assert!(locked.hint().is_some_and(|hint| hint.contains("config.lock")));
        assert!(lock.exists());
        fs::remove_file(&lock).expect("removed");

        let link = dir.path().join("link");
        symlink(&path, &link).expect("linked");
        merge_into(std::slice::from_ref(&link), &entry(), false).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert!(text(&path).contains("name: home"));
    }

    #[test]
    fn of_several_files_the_one_that_has_it_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        let paths = [a.clone(), b.clone(), c.clone()];
        let path_of = |written: Written| match written {
            Written::Changed { path, .. } | Written::Unchanged { path } => path,
        };
        // None exists: the last.
        assert_eq!(path_of(merge_into(&paths, &entry(), false).expect("written")), c);
        assert!(text(&c).contains("current-context"));
        // The one that has it already.
        fs::write(&b, "kind: Config\ncurrent-context: work\n").expect("written");
        assert_eq!(path_of(merge_into(&paths, &entry(), false).expect("written")), c);
        // The first that exists; another one sets the current context.
        fs::write(&c, "kind: Config\n").expect("written");
        fs::rename(&b, &a).expect("renamed");
        fs::write(&b, "kind: Config\n").expect("written");
        let first = [b.clone(), a.clone(), c.clone()];
        assert_eq!(path_of(merge_into(&first, &entry(), false).expect("written")), b);
        assert!(!text(&b).contains("current-context"));
        // A broken one among them stops it, as it stops kubectl.
        fs::write(&c, "users: [").expect("written");
        assert!(
            matches!(merge_into(&first, &entry(), true), Err(FileError::Merge { path, .. }) if path == c)
        );
    }

    #[test]
    fn the_files_are_kubectls() {
        let list = |list: &str, home: Option<&str>| paths(Some(OsStr::new(list)), home.map(Path::new));
        assert_eq!(list("/a::/b:", None), Ok(vec!["/a".into(), "/b".into()]));
        assert_eq!(list("", Some("/home/kim")), Ok(vec!["/home/kim/.kube/config".into()]));
        assert_eq!(paths(None, None), Err(FileError::NoHome));
    }
}
