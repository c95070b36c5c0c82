//! What is kept of a lab between calls: its folder, its lock, its state file.
//!
//! ```text
//! /var/lib/datahub-lab/                      locked while labs are given their subnets
//!   forwarding                               see `network`
//!   NAME/                                    locked while the lab is changed
//!     state.json                             [`State`]; written before anything it speaks of is made
//!     key, key.pub, known_hosts              the login of the lab
//!     nodes/NODE/
//!       host_key, host_key.pub               made once, also kept by a reset
//!       disk/upper, disk/work, root          the overlay; `disk` is whole or not there
//!       start.sh, console.log
//! ```
//! Locks are flock(2) on the folders themselves, so that they end with their holder and leave no file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::machine::{Kind, Record, Wanted};
use super::{Error, Progress, Report, network};
use crate::inventory::load::is_label;

pub const ROOT: &str = "/var/lib/datahub-lab";
/// The first machine's last part of its address; those below are the network's own.
const FIRST: u8 = 10;

/// A lab as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The number of its subnet, unique on this computer.
    pub number: u8,
    /// By node, in the order they were added.
    pub machines: IndexMap<String, Record>,
}

impl State {
    /// The IPv4 address of a machine.
    pub fn address(&self, record: &Record) -> String {
        network::Subnet(self.number).machine(record.number)
    }

    /// Adds what is wanted and not there. A machine that is there keeps what it is.
    pub(super) fn add(&mut self, wanted: &[Wanted]) -> Result<(), Error> {
        for want in wanted {
            if self.machines.contains_key(&want.node) {
                continue;
            }
            let used: BTreeSet<u8> = self.machines.values().map(|record| record.number).collect();
            let number = (FIRST..=network::LAST_MACHINE)
                .find(|number| !used.contains(number))
                .ok_or(Error::Full { what: "machine in this lab" })?;
            let record = Record {
                node: want.node.clone(),
                kind: Kind::Container,
                number,
                hostname: want.hostname.clone(),
                user: want.user.clone(),
                release: want.release,
                image: None,
                note: want.note.clone(),
            };
            self.machines.insert(want.node.clone(), record);
        }
        Ok(())
    }
}

/// The folder of one lab, whether it exists or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    pub name: String,
    pub path: PathBuf,
}

/// Held for as long as a lab is being changed.
#[derive(Debug)]
pub struct Lock(File);

impl Folder {
    pub fn new(name: &str) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::BadName { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), path: Path::new(ROOT).join(name) })
    }

    /// Makes the folder and locks it; waits for another process that has it.
    pub fn lock(&self, report: Report<'_>) -> Result<Lock, Error> {
        lock(&self.path, &format!("the lab {}", self.name), report)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a machine is kept.
    pub fn node(&self, node: &str) -> PathBuf {
        self.path.join("nodes").join(node)
    }

    /// `None` when there is no such lab.
    pub fn read(&self) -> Result<Option<State>, Error> {
        let file = self.join("state.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &file)(error)),
        };
        let state =
            serde_json::from_str(&text).map_err(|error| Error::BadState { file, why: error.to_string() })?;
        Ok(Some(state))
    }

    pub fn write(&self, state: &State) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(state).unwrap_or_default();
        replace(&self.join("state.json"), &text)
    }

    /// The lab's state with the wanted machines in it, written down. A new lab is given a subnet that no
    /// other lab and no route of this computer has.
    pub fn allocate(&self, wanted: &[Wanted]) -> Result<State, Error> {
        let _lock = lock(Path::new(ROOT), "labs being given their networks", &|_| ())?;
        let mut state = match self.read()? {
            Some(state) => state,
            None => State { number: free_subnet()?.0, machines: IndexMap::new() },
        };
        state.add(wanted)?;
        self.write(&state)?;
        Ok(state)
    }

    /// Removes the folder with all in it; the lock that is held on it ends.
    pub fn remove(&self, lock: Lock) -> Result<(), Error> {
        remove_dir(&self.path)?;
        drop(lock);
        Ok(())
    }
}

/// The names of all labs that have a folder, sorted.
pub fn names() -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", Path::new(ROOT))(error)),
    };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Locks what all labs share.
pub fn lock_all() -> Result<Lock, Error> {
    lock(Path::new(ROOT), "another lab", &|_| ())
}

/// Every lab's state that can be read.
pub fn all() -> Result<Vec<State>, Error> {
    Ok(names()?.iter().filter_map(|name| Folder::new(name).ok()?.read().ok()?).collect())
}

fn free_subnet() -> Result<network::Subnet, Error> {
    let used: BTreeSet<u8> = all()?.iter().map(|state| state.number).collect();
    let routes = network::routes()?;
    (0..=u8::MAX)
        .map(network::Subnet)
        .find(|subnet| !used.contains(&subnet.0) && !routes.iter().any(|route| subnet.overlaps(route)))
        .ok_or(Error::Full { what: "lab" })
}

/// Makes a folder for root only and locks it. `what` completes "waiting for another process: …".
pub fn lock(folder: &Path, what: &str, report: Report<'_>) -> Result<Lock, Error> {
    loop {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let file = match made.and_then(|()| File::open(folder)) {
            Ok(file) => file,
            // Removed by another process at this moment, or the one above it was.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("make the folder", folder)(error)),
        };
        if file.try_lock().is_err() {
            report(Progress::Waiting { on: what.to_owned() });
            file.lock().map_err(Error::io("lock", folder))?;
        }
        // The folder may have been removed, and made anew, while this process waited.
        let same = |there: &std::fs::Metadata, held: &std::fs::Metadata| {
            (there.dev(), there.ino()) == (held.dev(), held.ino())
        };
        if let (Ok(there), Ok(held)) = (std::fs::metadata(folder), file.metadata())
            && same(&there, &held)
        {
            return Ok(Lock(file));
        }
    }
}

impl Lock {
    /// The lock for a child process to hold too: it then lasts until both have ended.
    pub fn share(&self) -> std::io::Result<File> {
        self.0.try_clone()
    }
}

/// Makes a folder, and those above it, for root only.
pub fn make_dir(folder: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(Error::io("make the folder", folder))
}

/// Removes a folder with all in it; one that is not there is fine.
pub fn remove_dir(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Writes a file for root only, in one step: never half a file.
pub fn replace(file: &Path, text: &str) -> Result<(), Error> {
    let new = file.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&new, file));
    written.map_err(Error::io("write", file))
}

/// A lab's name is part of file names, of a control group's and of an nftables table's.
fn is_name(name: &str) -> bool {
    is_label(name) && name.len() <= 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::machine::Release;

    fn want(node: &str) -> Wanted {
        Wanted {
            node: node.into(),
            hostname: node.into(),
            user: "root".into(),
            release: Release::Trixie,
            note: None,
        }
    }

    #[test]
    fn names_are_safe_in_paths() {
        for (name, good) in [("default", true), ("a-1", true), ("", false), ("..", false), ("a/b", false)] {
            assert_eq!(Folder::new(name).is_ok(), good, "{name}");
        }
        assert!(
            Folder::new("A").is_err()
                && Folder::new("-a").is_err()
                && Folder::new("a".repeat(33).as_str()).is_err()
        );
    }

    #[test]
    fn numbers_are_kept_and_freed_ones_used_again() {
        let mut state = State { number: 3, machines: IndexMap::new() };
        state.add(&[want("a"), want("b"), want("c")]).expect("room");
        state.machines.shift_remove("b");
        state.add(&[want("a"), want("d"), want("e")]).expect("room");
        let numbers: Vec<(&str, u8)> =
            state.machines.values().map(|record| (record.node.as_str(), record.number)).collect();
        assert_eq!(numbers, [("a", 10), ("c", 12), ("d", 11), ("e", 13)]);
        assert_eq!(state.address(&state.machines["d"]), "10.77.3.11");
        let many: Vec<Wanted> = (0..200).map(|at| want(&format!("n{at}"))).collect();
        assert!(matches!(state.add(&many), Err(Error::Full { .. })));
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder { name: "x".into(), path: dir.path().to_owned() };
        assert_eq!(folder.read().expect("nothing"), None);
        let mut state = State { number: 3, machines: IndexMap::new() };
        state.add(&[want("b"), want("a")]).expect("room");
        folder.write(&state).expect("written");
        assert_eq!(folder.read().expect("read"), Some(state));
        let file = std::fs::metadata(folder.join("state.json")).expect("there");
        assert_eq!(file.mode() & 0o777, 0o600);
        std::fs::write(folder.join("state.json"), "{").expect("written");
        assert!(matches!(folder.read(), Err(Error::BadState { .. })));
    }

    #[test]
    fn a_lock_on_a_folder_that_was_replaced_is_not_taken_for_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lab");
        let first = lock(&path, "it", &|_| ()).expect("locked");
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || lock(&path, "it", &|_| ()).expect("locked"))
        };
        remove_dir(&path).expect("removed");
        drop(first);
        let second = waiting.join().expect("no panic");
        let there = std::fs::metadata(&path).expect("made again");
        assert_eq!(second.0.metadata().expect("open").ino(), there.ino());
    }
}
