//! `mount`: a file system in /etc/fstab, its mount point, and whether it is mounted.

use std::time::Duration;

use serde::Deserialize;

use super::fstab::{self, Entry};
use super::mount_options as options;
use super::text::check_path;
use super::{Change, Difference, Resource, Verdict, edit};
use crate::probe::{Answers, Content, FileType, Mount as Seen, Question, Unanswered};
use crate::shell::quote;

/// A file system: its line in /etc/fstab, its mount point, and whether it is mounted. All other lines of the table
/// stay as they are.
///
/// No data is ever lost here: a file system is made only on a device without any signature, nothing is re-formatted
/// or shrunk, nothing is mounted over files, and what is in use is not unmounted by force. A device that is not
/// there is unknown, with `nofail` too: that option is for the boot, which must not wait for the device, while a
/// run that left it unmounted and called that done would hide a dead disk. Use `state = "present"` for a disk that
/// comes and goes. What is mounted read-only against the table (the kernel does that after errors) is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The mount point. It is made (0755, root) before mounting, and left there afterwards.
    pub path: String,
    /// What is mounted: `UUID=…`, `LABEL=…`, `/dev/disk/by-id/…`, `tmpfs`, `host:/export` (NFS), or a directory with
    /// the option `bind`. Names as /dev/sda may change from boot to boot. Needed unless the state is `unmounted` or
    /// `absent`.
    #[serde(default)]
    pub device: Option<String>,
    /// Default: `ext4`. `none` for a bind mount.
    #[serde(default = "ext4")]
    pub fstype: String,
    /// Default: `defaults,nofail`. When options change, what is mounted is remounted with the new ones; those that
    /// only go away take effect at the next mount, except the generic ones (`ro`, `noatime`, `nosuid`, `nodev`,
    /// `noexec`, `nodiratime`, `sync`), which are compared with what is live.
    #[serde(default = "defaults")]
    pub options: String,
    /// The table's fifth field, for dump(8). Default: 0.
    #[serde(default)]
    pub dump: u32,
    /// The table's sixth field: the order of checks at boot, 0 for none, 2 for all but the root. Default: 0.
    #[serde(default)]
    pub pass: u32,
    /// `mounted` (default): in the table and mounted. `present`: in the table only. `unmounted`: not mounted, the
    /// table left alone. `absent`: neither mounted nor in the table.
    #[serde(default)]
    pub state: State,
    /// Make the file system if the device has no signature of any kind. Only for a device named by its path, and
    /// for ext4, xfs and btrfs. A device that holds anything else than `fstype` is refused. Default: false.
    #[serde(default)]
    pub format: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Mounted,
    Present,
    Unmounted,
    Absent,
}

fn ext4() -> String {
    "ext4".into()
}

fn defaults() -> String {
    "defaults,nofail".into()
}

/// File systems that can be made, and the package with their mkfs.
const FORMATS: &[(&str, &str)] = &[("btrfs", "btrfs-progs"), ("ext4", "e2fsprogs"), ("xfs", "xfsprogs")];

const NETWORK: &[&str] = &["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs"];

/// Directories without which the machine stops.
const SYSTEM: &[&str] = &["/", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var"];

/// mkfs of a large, slow disk.
const FORMAT_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// mount.nfs itself gives up after two minutes.
const MOUNT_PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Network,
    Bind,
    /// tmpfs, overlay: nothing to look up.
    Other,
}

impl Mount {
    fn device(&self) -> &str {
        self.device.as_deref().unwrap_or_default()
    }

    fn kind(&self) -> Kind {
        let device = self.device();
        let tag = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="].iter().any(|tag| device.starts_with(tag));
        if options::has(&self.options, "bind") || options::has(&self.options, "rbind") {
            Kind::Bind
        } else if NETWORK.contains(&self.fstype.as_str()) {
            Kind::Network
        } else if tag || device.starts_with("/dev/") {
            Kind::Block
        } else {
            Kind::Other
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            device: self.device().to_owned(),
            path: self.path.clone(),
            fstype: self.fstype.clone(),
            options: self.options.clone(),
            dump: self.dump,
            pass: self.pass,
        }
    }

    /// The table with exactly this entry for the path, or none.
    fn edit(&self, text: &str) -> Result<String, String> {
        let wanted = (self.state != State::Absent).then(|| self.entry());
        let ours = |entry: &Option<Entry>| entry.as_ref().is_some_and(|e| e.path == self.path);
        match (fstab::lines(text).filter(|(_, entry)| ours(entry)).count(), &wanted) {
            (0, None) => return Ok(text.to_owned()),
            (0, Some(wanted)) => {
                let lines: Vec<&str> = text.split_terminator('\n').collect();
                return Ok(format!("{}{}\n", edit::join(&lines), wanted.line()));
            }
            (1, _) => {}
            (count, _) => return Err(format!("has {count} lines for {}; leave one", self.path)),
        }
        if fstab::entry(text, &self.path) == wanted {
            return Ok(text.to_owned());
        }
        let lines: Vec<String> = fstab::lines(text)
            .filter_map(|(line, entry)| match ours(&entry) {
                true => wanted.as_ref().map(Entry::line),
                false => Some(line.to_owned()),
            })
            .collect();
        Ok(edit::join(&lines))
    }

    /// The line that is in the table now.
    fn old_entry(&self, seen: &Answers) -> Result<Option<Entry>, Unanswered> {
        Ok(match seen.content(fstab::PATH, "")? {
            Content::Differs(bytes) => fstab::entry(&String::from_utf8_lossy(bytes), &self.path),
            _ => None,
        })
    }

    fn table(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        Ok(edit::diff(fstab::PATH, true, seen, |text| self.edit(text))?.followed_by(fstab::RELOAD))
    }

    fn mounted(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        match seen.mount(&self.path)? {
            Some(mount) if mount.fstype == "autofs" => Ok(Verdict::Converged),
            Some(mount) if self.is_ours(mount, seen)? => self.remounted(mount, seen),
            Some(mount) => Ok(Verdict::Refused(format!(
                "{} is mounted on {}, not {}; unmount it first, with state = \"unmounted\"",
                mount.device,
                self.path,
                self.device()
            ))),
            None => self.to_be_mounted(seen),
        }
    }

    fn is_ours(&self, mount: &Seen, seen: &Answers) -> Result<bool, Unanswered> {
        let plain = |device: &str| device.trim_end_matches('/').to_owned();
        Ok(match self.kind() {
            // In a container one device can have several names.
            Kind::Block => match (seen.source(self.device())?, seen.stat(&self.path)?) {
                (Some(source), Some(at)) => source.name == mount.device || source.number == at.identity.0,
                _ => false,
            },
            Kind::Bind => match (seen.stat(self.device())?, seen.stat(&self.path)?) {
                (Some(source), Some(at)) => source.identity == at.identity,
                _ => false,
            },
            Kind::Network => plain(&mount.device) == plain(self.device()),
            Kind::Other => mount.fstype == self.fstype,
        })
    }

    fn remounted(&self, mount: &Seen, seen: &Answers) -> Result<Verdict, Unanswered> {
        let differing = options::differing(&self.options, mount, self.kind() == Kind::Bind);
        let old = self.old_entry(seen)?;
        let was_read_only = old.as_ref().is_some_and(|entry| options::has(&entry.options, "ro"));
        if differing.iter().any(|flag| flag.wanted == "rw") && !was_read_only {
            return Ok(Verdict::Refused(format!(
                "{} is mounted read-only, though /etc/fstab does not say so: the kernel does that after errors. Look \
                 at `dmesg`, check the disk and the file system, then remount it by hand",
                self.path
            )));
        }
        let changed =
            old.is_some_and(|entry| options::effective(&entry.options) != options::effective(&self.options));
        if differing.is_empty() && !changed {
            return Ok(Verdict::Converged);
        }
        let resets: Vec<&str> = differing.iter().map(|flag| flag.wanted).collect();
        let words = [&["remount", self.options.as_str()], resets.as_slice()].concat().join(",");
        let (before, after) = match differing.is_empty() {
            true => ("the old ones".to_owned(), self.options.clone()),
            false => (differing.iter().map(|flag| flag.live).collect::<Vec<_>>().join(","), resets.join(",")),
        };
        Ok(Verdict::Differs(Change::new(
            vec![Difference::value("live options", Some(&before), Some(&after))],
            format!("mount -o {} -- {} || exit 1\n", quote(&words), quote(&self.path)),
        )))
    }

    fn to_be_mounted(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let (path, device) = (&self.path, self.device());
        if self.kind() != Kind::Network {
            match seen.stat(path)?.as_ref().map(|stat| stat.file_type) {
                None | Some(FileType::Directory) => {}
                Some(FileType::Link) => {
                    return Ok(Verdict::Refused(format!("{path} is a link; name the directory it leads to")));
                }
                Some(_) => return Ok(Verdict::Refused(format!("{path} is not a directory; move it away"))),
            }
        }
        let there = match self.kind() {
            Kind::Block => seen.source(device)?.is_some(),
            Kind::Bind => seen.stat(device)?.is_some(),
            Kind::Network | Kind::Other => true,
        };
        if !there {
            return Ok(Verdict::Unknown(format!(
                "{device} is not there (yet); connect or make it, or use state = \"present\" to have it in /etc/fstab \
                 only"
            )));
        }
        let made = if self.kind() == Kind::Block && device.starts_with('/') {
            self.file_system(seen)?
        } else {
            Verdict::Converged
        };
        let change = Change::new(vec![Difference::value("mounted", None, Some(device))], self.mount_shell());
        Ok(Verdict::all([made, Verdict::Differs(Change { timeout: MOUNT_PATIENCE, ..change })]))
    }

    /// What is on the device, and whether a file system must be made.
    fn file_system(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let (device, fstype) = (self.device(), &self.fstype);
        let Some(signature) = seen.device(device)? else {
            return Ok(Verdict::Unknown(format!(
                "{device} cannot be read: is it a disk, and is there a medium in it?"
            )));
        };
        let known = |fstype: &str| FORMATS.iter().any(|(known, _)| *known == fstype);
        let holds = signature.get("TYPE").map(String::as_str);
        Ok(match holds {
            Some(holds) if holds == fstype || !known(fstype) => Verdict::Converged,
            None if signature.is_empty() && self.format => Verdict::Differs(
                Change::new(
                    vec![Difference::value(format!("file system on {device}"), None, Some(fstype))],
                    self.format_shell(),
                )
                .long(FORMAT_PATIENCE),
            ),
            None if signature.is_empty() => Verdict::Unknown(format!(
                "{device} has no file system (yet); set format = true to have an {fstype} made on it"
            )),
            _ if !known(fstype) => Verdict::Converged,
            _ => Verdict::Refused(format!(
                "{device} holds {}, not {fstype}; nothing is ever formatted over it. If it may be lost, erase it by \
                 hand with wipefs",
                describe(signature)
            )),
        })
    }

    /// Looks once more right before: the device may have been written to since. What an interrupted run of this
    /// step has made is taken as it is.
    fn format_shell(&self) -> String {
        let package =
            FORMATS.iter().find(|(known, _)| *known == self.fstype).map_or("", |(_, package)| package);
        format!(
            "(\n\
             device={device} fstype={fstype}\n\
             fail() {{ printf '%s\\n' \"$device: $1\" >&2; exit 1; }}\n\
             [ -b \"$device\" ] || fail 'is not a block device'\n\
             head -c 1048576 \"$device\" >/dev/null || fail 'cannot be read'\n\
             found=$(blkid -p -o export \"$device\" 2>&1)\n\
             status=$?\n\
             if [ \"$status\" -eq 0 ]; then\n\
             case \"\n$found\n\" in *\"\nTYPE=$fstype\n\"*) exit 0;; esac\n\
             fi\n\
             [ \"$status\" -eq 2 ] && [ -z \"$found\" ] || fail \"is not empty any more: $found\"\n\
             command -v \"mkfs.$fstype\" >/dev/null || fail 'cannot be formatted: install the package {package}'\n\
             \"mkfs.$fstype\" -q \"$device\" </dev/null || fail \"mkfs.$fstype failed\"\n\
             ) || exit 1\n",
            device = quote(self.device()),
            fstype = quote(&self.fstype),
        )
    }

    /// With everything said here, nothing read from the table: so a mistake is found before the table has it.
    fn mount_shell(&self) -> String {
        let hides = "{ printf '%s\\n' \"$path: holds files that the mount would hide; move them away\" >&2; exit 1; }";
        let guard = match self.kind() {
            Kind::Other => String::new(),
            _ => format!("[ -z \"$(ls -A -- \"$path\")\" ] || {hides}\n"),
        };
        format!(
            "(\n\
             path={path}\n\
             ! mountpoint -q -- \"$path\" || exit 0\n\
             mkdir -p -- \"$path\" || exit 1\n\
             {guard}\
             mount -t {fstype} -o {options} -- {device} \"$path\" && mountpoint -q -- \"$path\"\n\
             ) || exit 1\n",
            path = quote(&self.path),
            fstype = quote(&self.fstype),
            options = quote(&options::without_nofail(&self.options)),
            device = quote(self.device()),
        )
    }

    fn unmounted(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        let Some(mount) = seen.mount(&self.path)? else { return Ok(Verdict::Converged) };
        let path = quote(&self.path);
        let shell = match mount.fstype.as_str() {
            "autofs" => format!(
                "unit=$(systemd-escape -p --suffix=automount -- {path}) && systemctl stop -- \"$unit\" || exit 1\n"
            ),
            _ => format!(
                "! mountpoint -q -- {path} || umount -- {path} || {{ printf '%s\\n' {} >&2; exit 1; }}\n",
                quote(&format!(
                    "find what uses it with `fuser -vm {0}` or `lsof {0}`, and stop that first",
                    self.path
                ))
            ),
        };
        Ok(Verdict::Differs(Change::new(
            vec![Difference::value("mounted", Some(&mount.device), None)],
            shell,
        )))
    }
}

/// `ext4 (LABEL data, UUID …)`
fn describe(signature: &std::collections::HashMap<String, String>) -> String {
    let get = |key: &str| signature.get(key).map(String::as_str);
    let what = match (get("TYPE"), get("PTTYPE")) {
        (Some(fstype), _) => fstype.to_owned(),
        (None, Some(table)) => format!("a partition table ({table})"),
        (None, None) => "something unknown, or several things at once".to_owned(),
    };
    let details: Vec<String> =
        ["LABEL", "UUID"].iter().filter_map(|key| get(key).map(|value| format!("{key} {value}"))).collect();
    if details.is_empty() { what } else { format!("{what} ({})", details.join(", ")) }
}

impl Resource for Mount {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let device = || self.device().to_owned();
        let mut questions = edit::questions(fstab::PATH);
        questions.push(Question::Mount(self.path.clone()));
        if self.state != State::Mounted {
            return questions;
        }
        // To look at the mount point of a server that does not answer would hang.
        if self.kind() != Kind::Network {
            questions.push(Question::Stat(self.path.clone()));
        }
        match self.kind() {
            Kind::Block => {
                questions.push(Question::Source(device()));
                if self.device().starts_with('/') {
                    questions.push(Question::Device(device()));
                }
            }
            Kind::Bind => questions.push(Question::Stat(device())),
            Kind::Network | Kind::Other => {}
        }
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        Ok(match self.state {
            State::Present => self.table(seen)?,
            State::Unmounted => self.unmounted(seen)?,
            State::Absent => Verdict::all([self.unmounted(seen)?, self.table(seen)?]),
            // A new line comes last, so that no boot finds one that does not work. One that is there already must be
            // right before the mount: systemd undoes a mount whose line names a device that is gone.
            State::Mounted if self.old_entry(seen)?.is_none() => {
                Verdict::all([self.mounted(seen)?, self.table(seen)?])
            }
            State::Mounted => Verdict::all([self.table(seen)?, self.mounted(seen)?]),
        })
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let concerned = seen.facts.container && self.state == State::Mounted && self.kind() == Kind::Block;
        match concerned && !options::has(&self.options, "noauto") {
            true => vec![
                "in a container systemd mounts no devices at boot: after a restart the next run does".into(),
            ],
            false => Vec::new(),
        }
    }

    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        let wanted = matches!(self.state, State::Mounted | State::Present);
        if !wanted && SYSTEM.contains(&self.path.as_str()) {
            return Err(format!("path {:?} belongs to the system and is never unmounted", self.path));
        }
        if wanted && self.device.is_none() {
            return Err("`device` is needed, except with state = \"unmounted\" or \"absent\"".into());
        }
        let device = self.device();
        if wanted
            && (device.is_empty() || device.starts_with(['#', '-']) || device.contains(char::is_control))
        {
            return Err(format!("device {device:?} cannot stand in /etc/fstab"));
        }
        if self.fstype.is_empty()
            || !self.fstype.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            return Err(format!("fstype {:?} is not the name of a file system", self.fstype));
        }
        if self.options.split(',').any(str::is_empty) || self.options.contains([' ', '\t', '\n', '\0']) {
            return Err("`options` must be words joined by commas, as \"defaults,nofail\"".into());
        }
        if self.options.split(',').any(|word| word.starts_with("password=") || word.starts_with("pass=")) {
            return Err(
                "a password in `options` would be readable by all: use the option credentials=FILE".into()
            );
        }
        if self.state == State::Mounted
            && options::has(&self.options, "noauto")
            && !options::has(&self.options, "x-systemd.automount")
        {
            return Err(
                "the option noauto contradicts state = \"mounted\": use \"present\", or leave it out".into(),
            );
        }
        if wanted && matches!(self.kind(), Kind::Bind | Kind::Other) && device.starts_with('/') {
            check_path(device).map_err(|e| e.replacen("path", "device", 1))?;
            if self.kind() == Kind::Other {
                return Err(format!("device {device:?} is no device; for a directory add the option bind"));
            }
        }
        if !self.format {
            return Ok(());
        }
        if self.state != State::Mounted || self.kind() != Kind::Block || !device.starts_with('/') {
            return Err(
                "`format` needs state = \"mounted\" and a device by its path, as /dev/disk/by-id/…".into()
            );
        }
        match FORMATS.iter().any(|(known, _)| *known == self.fstype) {
            true => Ok(()),
            false => Err(format!("`format` makes btrfs, ext4 and xfs, not {}", self.fstype)),
        }
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
