//! Control groups: every process of a lab is in one tree, `datahub-lab/LAB`, and can be found and ended there.
//!
//! ```text
//! datahub-lab/LAB/net                 the process that holds the network namespace
//! datahub-lab/LAB/node-NODE/watch     the script that starts the machine again when it reboots
//! datahub-lab/LAB/node-NODE/run       systemd-nspawn, which makes `supervisor` and `payload` below
//! ```
//! The tree is made in the unified hierarchy and, where there is one, in systemd's own of version 1: nspawn
//! places a machine by both. Inner groups hold no processes, as version 2 demands. The groups lie beside those
//! of a systemd that rules this computer, which leaves alone what it did not make.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, wait};

const TOP: &str = "datahub-lab";
/// For processes that were killed to be gone. The kernel needs milliseconds; a loaded machine may not.
const DEATH: Duration = Duration::from_secs(15);

/// A group, in every hierarchy that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// In the unified hierarchy: processes are listed and killed here.
    unified: PathBuf,
    /// In systemd's hierarchy of version 1.
    legacy: Option<PathBuf>,
}

impl Group {
    pub fn of_lab(lab: &str) -> Result<Self, Error> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(Error::io("read", Path::new("/proc/self/mountinfo")))?;
        let (unified, legacy) = hierarchies(&mounts).ok_or_else(|| {
            super::Unavailable("control groups of version 2 are not mounted: mount cgroup2 first".into())
        })?;
        Ok(Self::in_hierarchies(unified, legacy).child(TOP).child(lab))
    }

    /// The root group of hierarchies that are mounted there.
    pub fn in_hierarchies(unified: PathBuf, legacy: Option<PathBuf>) -> Self {
        Self { unified, legacy }
    }

    pub fn of_network(lab: &str) -> Result<Self, Error> {
        Ok(Self::of_lab(lab)?.child("net"))
    }

    pub fn of_node(lab: &str, node: &str) -> Result<Self, Error> {
        Ok(Self::of_lab(lab)?.child(&format!("node-{node}")))
    }

    pub fn child(&self, name: &str) -> Self {
        Self {
            unified: self.unified.join(name),
            legacy: self.legacy.as_ref().map(|legacy| legacy.join(name)),
        }
    }

    /// The directories, one a hierarchy.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.unified), self.legacy.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }

    pub fn exists(&self) -> bool {
        self.paths().any(Path::exists)
    }

    /// Makes the group, and hands it the controllers there are.
    pub fn create(&self) -> Result<(), Error> {
        for path in self.paths() {
            // Another lab that goes at this moment may take the empty parents with it.
            let mut made = Ok(());
            wait::until(DEATH, || {
                made = std::fs::create_dir_all(path);
                !made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
            });
            made.map_err(Error::io("make the control group", path))?;
        }
        // Not to its own children: a group that hands controllers down may hold no processes itself.
        let mut above: Vec<&Path> = self
            .unified
            .ancestors()
            .skip(1)
            .take_while(|path| path.join("cgroup.controllers").exists())
            .collect();
        above.reverse();
        for path in above {
            hand_down(path);
        }
        Ok(())
    }

    /// The processes of this very group, without those of groups below. None when there is no such group.
    pub fn processes(&self) -> Vec<u32> {
        let list = std::fs::read_to_string(self.unified.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
    }

    /// Whether any process is in the group or below it.
    pub fn is_populated(&self) -> bool {
        let events = std::fs::read_to_string(self.unified.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Ends every process in the group and below it at once, and waits until they are gone.
    pub fn kill(&self) -> Result<(), Error> {
        self.until(|group| group.kill_now().map(|()| !group.is_populated()))
    }

    /// Ends what runs in the group and removes it with all below it, and parents left empty.
    ///
    /// Both in one go: what a killed process was about to start may enter the group in between.
    /// A group left behind would make the next machine of that name hang at its start.
    pub fn remove(&self) -> Result<(), Error> {
        self.until(|group| group.kill_now().map(|()| group.paths().all(remove_tree)))?;
        // Fails as long as another lab is up, which is right.
        for top in self.paths().filter_map(|path| path.ancestors().find(|p| p.ends_with(TOP))) {
            let _ = std::fs::remove_dir(top);
        }
        Ok(())
    }

    fn kill_now(&self) -> Result<(), Error> {
        if !self.is_populated() {
            return Ok(());
        }
        match std::fs::write(self.unified.join("cgroup.kill"), "1") {
            // The group may have gone by itself.
            Err(error) if self.is_populated() => Err(Error::io("end the processes of", &self.unified)(error)),
            _ => Ok(()),
        }
    }

    fn until(&self, done: impl Fn(&Self) -> Result<bool, Error>) -> Result<(), Error> {
        let mut seen = Ok(false);
        wait::until(DEATH, || {
            seen = done(self);
            !matches!(seen, Ok(false))
        });
        if seen? { Ok(()) } else { Err(self.still_there()) }
    }

    fn still_there(&self) -> Error {
        Error::StillThere {
            what: format!("what runs in {}", self.unified.display()),
            seconds: DEATH.as_secs(),
        }
    }
}

/// Removes a group and those below it, deepest first; whether it is gone.
fn remove_tree(path: &Path) -> bool {
    let children = std::fs::read_dir(path).into_iter().flatten().flatten();
    for child in children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path());
    }
    std::fs::remove_dir(path).map_or_else(|error| error.kind() == ErrorKind::NotFound, |()| true)
}

/// Lets children use each controller that a group has. A controller that is in use elsewhere is left out:
/// a machine runs without it.
fn hand_down(group: &Path) {
    let available = std::fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        let _ = std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The mount points of the unified hierarchy and of systemd's hierarchy of version 1.
fn hierarchies(mountinfo: &str) -> Option<(PathBuf, Option<PathBuf>)> {
    let mut unified = None;
    let mut legacy = None;
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): … root mount-point options … - type source super-options
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut kind = kind.split(' ');
        match (kind.next(), kind.nth(1)) {
            (Some("cgroup2"), _) if unified.is_none() => unified = Some(point),
            (Some("cgroup"), Some(options)) if options.split(',').any(|o| o == "name=systemd") => {
                legacy = Some(point);
            }
            _ => {}
        }
    }
    Some((unified?, legacy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_of_control_groups_are_found() {
        let hybrid = "30 23 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 23 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let path = |path: &str| PathBuf::from(path);
        assert_eq!(
            hierarchies(hybrid),
            Some((path("/sys/fs/cgroup/unified"), Some(path("/sys/fs/cgroup/systemd"))))
        );
        assert_eq!(hierarchies(unified), Some((path("/sys/fs/cgroup"), None)));
        assert_eq!(hierarchies("22 27 0:21 / /proc rw - proc proc rw\n"), None);
    }
}
