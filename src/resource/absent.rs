//! `absent`: nothing stands at a path.

use serde::Deserialize;

use super::text::check_path;
use super::{Change, Difference, Resource, Verdict};
use crate::probe::{Answers, FileType, Question, Unanswered};
use crate::shell::quote;

/// A path at which nothing may stand. A link is removed, never what it leads to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// The system's own directories are refused.
    pub path: String,
    /// Remove a directory with all it holds, though never another file system mounted inside. Without it, only an
    /// empty directory is removed. Default: false.
    #[serde(default)]
    pub recursive: bool,
}

/// Directories whose loss is the loss of the machine. The second list names those whose entries are so, too.
const SYSTEM: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/boot/efi",
    "/boot/firmware",
    "/etc/apt",
    "/etc/ssh",
    "/etc/systemd",
    "/etc/pam.d",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/lib/systemd",
];
const PARENTS: &[&str] = &["/usr/", "/var/", "/home/"];
const KERNEL: &[&str] = &["/proc/", "/sys/", "/dev/"];

impl Resource for Absent {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        vec![Question::Stat(self.path.clone())]
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let Some(stat) = seen.stat(&self.path)? else {
            return Ok(Verdict::Converged);
        };
        let path = quote(&self.path);
        let link = format!("link to {}", stat.target);
        let (what, shell) = match (stat.file_type, self.recursive) {
            (FileType::Directory, true) => {
                ("directory with all it holds", format!("rm -rf --one-file-system -- {path} || exit 1\n"))
            }
            (FileType::Directory, false) => (
                "directory",
                format!(
                    "[ ! -d {path} ] || rmdir -- {path} || \
                     {{ echo 'set recursive = true to remove what it holds' >&2; exit 1; }}\n"
                ),
            ),
            (FileType::Link, _) => (&*link, format!("rm -f -- {path} || exit 1\n")),
            (FileType::File, _) => ("file", format!("rm -f -- {path} || exit 1\n")),
            (FileType::Other, _) => ("special file", format!("rm -f -- {path} || exit 1\n")),
        };
        Ok(Verdict::Differs(Change::new(vec![Difference::value("path", Some(what), None)], shell)))
    }

    fn check(&self) -> Result<(), String> {
        check_removable(&self.path)
    }
}

/// Refuses a path that is not written in its plainest form, or whose loss would be the loss of the machine.
pub fn check_removable(path: &str) -> Result<(), String> {
    check_path(path)?;
    let child =
        PARENTS.iter().any(|parent| path.strip_prefix(parent).is_some_and(|rest| !rest.contains('/')));
    if SYSTEM.contains(&path) || child || KERNEL.iter().any(|parent| path.starts_with(parent)) {
        return Err(format!("path {path:?} belongs to the system and is never removed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{TextFile, build, mistake};

    fn remove(place: &TextFile, more: &str) -> Result<(), String> {
        let absent = build("absent", &format!("path = '{}'\n{more}", place.path()));
        match place.diff(&*absent) {
            Verdict::Differs(change) => {
                place.run(&change.shell)?;
                place.run(&change.shell).expect("twice is harmless");
                assert_eq!(place.diff(&*absent), Verdict::Converged);
                Ok(())
            }
            other => panic!("differs, not {other:?}"),
        }
    }

    #[test]
    fn nothing_is_left_alone_and_a_file_is_removed() {
        let place = TextFile::missing();
        let absent = build("absent", &format!("path = '{}'", place.path()));
        assert_eq!(place.diff(&*absent), Verdict::Converged);
        place.write("x");
        remove(&place, "").unwrap();
    }

    #[test]
    fn a_full_directory_needs_recursive_and_a_link_keeps_its_target() {
        let place = TextFile::missing();
        std::fs::create_dir(place.path()).unwrap();
        remove(&place, "").unwrap();

        std::fs::create_dir_all(format!("{}/full", place.path())).unwrap();
        assert!(remove(&place, "").unwrap_err().contains("recursive = true"));
        remove(&place, "recursive = true").unwrap();

        let kept = place.folder().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::os::unix::fs::symlink(&kept, place.path()).unwrap();
        remove(&place, "recursive = true").unwrap();
        assert!(kept.exists());
    }

    #[test]
    fn system_directories_are_refused() {
        for path in ["/", "/etc", "/usr/lib", "/var/lib", "/home/someone", "/proc/1", "/boot/efi"] {
            assert!(
                mistake("absent", &format!("path = '{path}'\nrecursive = true")).contains("never removed")
            );
        }
        for path in ["/etc/motd", "/var/lib/app", "/opt/app", "/swap.img"] {
            build("absent", &format!("path = '{path}'"));
        }
    }
}
