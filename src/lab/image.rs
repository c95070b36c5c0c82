//! Base images: one minimal Debian per release, made once and shared by all machines as their lower layer.
//!
//! An image is named by its release and a hash of its recipe: what is in it, where it comes from, and how this
//! computer reaches that place. It is made under another name and renamed when it is whole. One that no lab
//! uses and that was not asked for in [`KEEP`] is removed when another is made.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::apt::Apt;
use super::machine::{Record, Release};
use super::state::{self, Folder, State};
use super::{Error, Progress, Report, command, container};

const CACHE: &str = "/var/cache/datahub-lab";
/// How long an image is kept that no lab uses.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// To be raised when [`finish`] changes, so that cached images are made anew.
const VERSION: u32 = 1;
/// Beside the essential packages and apt: what a freshly installed Debian server has that roles may count on.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "sudo",
    "systemd-sysv",
    "udev",
];
/// Certificates a person has added to this computer's trust, update-ca-certificates(8).
const CERTIFICATES: &str = "usr/local/share/ca-certificates";

/// Everything that decides what is in an image.
struct Recipe {
    release: Release,
    apt: Apt,
    /// File names and contents.
    certificates: Vec<(OsString, Vec<u8>)>,
    keyrings: Vec<(PathBuf, Vec<u8>)>,
}

/// Makes the images the lab's machines need and notes them in its state.
pub fn ensure(folder: &Folder, state: &mut State, report: Report<'_>) -> Result<(), Error> {
    let missing = |record: &&Record| folder_of(record).is_none_or(|image| !image.exists());
    let releases: BTreeSet<Release> =
        state.machines.values().filter(missing).map(|record| record.release).collect();
    let images: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = releases
            .into_iter()
            .map(|release| (release, scope.spawn(move || made(release, report))))
            .collect();
        let join = |build: std::thread::ScopedJoinHandle<'_, _>| {
            build.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        builds.into_iter().map(|(release, build)| (release, join(build))).collect()
    });
    for (release, image) in images {
        let image = image?;
        for record in state.machines.values_mut().filter(|record| record.release == release) {
            if folder_of(record).is_none_or(|image| !image.exists()) {
                // What was written over another image does not fit this one.
                container::erase(folder, &record.node)?;
                record.image = Some(image.clone());
            }
        }
        folder.write(state)?;
    }
    Ok(())
}

/// The image of a machine; the lower layer of its overlay.
pub fn folder(record: &Record) -> Result<PathBuf, Error> {
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "bring the lab up again to make it");
    folder_of(record)
        .filter(|folder| folder.exists())
        .ok_or_else(|| Error::io("find the base image in", Path::new(CACHE))(missing()))
}

fn folder_of(record: &Record) -> Option<PathBuf> {
    record.image.as_ref().map(|image| Path::new(CACHE).join(image))
}

/// The folder name of a release's image, which is made if it is not there.
fn made(release: Release, report: Report<'_>) -> Result<String, Error> {
    let recipe = Recipe::of_this_computer(release)?;
    let name = format!("{}-{}", release.codename(), recipe.hash());
    let lock_on = Path::new(CACHE).join(format!("{}.lock", release.codename()));
    let lock = state::lock(&lock_on, &format!("the base image of {}", release.name()), report)?;
    let image = Path::new(CACHE).join(&name);
    if !image.exists() {
        let log = Path::new(CACHE).join(format!("{}.log", release.codename()));
        report(Progress::Building { release: release.name().to_owned(), log: log.clone() });
        let partial = Path::new(CACHE).join(format!("{}.partial", release.codename()));
        state::remove_dir(&partial)?;
        recipe.bootstrap(&partial, &log, &lock)?;
        recipe.finish(&partial)?;
        std::fs::rename(&partial, &image).map_err(Error::io("put in place", &partial))?;
        prune()?;
        report(Progress::Built { release: release.name().to_owned() });
    }
    // Its age counts from when it was last asked for.
    let now = std::fs::File::open(&image).and_then(|file| file.set_modified(SystemTime::now()));
    now.map_err(Error::io("set the time of", &image))?;
    Ok(name)
}

impl Recipe {
    fn of_this_computer(release: Release) -> Result<Self, Error> {
        let apt = Apt::of_this_computer();
        let read = |path: &Path| std::fs::read(path).map_err(Error::io("read", path));
        let keyrings = apt.keyrings().map(|path| Ok((path.to_owned(), read(path)?)));
        let keyrings = keyrings.collect::<Result<_, Error>>()?;
        let mut certificates = Vec::new();
        for entry in std::fs::read_dir(Path::new("/").join(CERTIFICATES)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "crt") {
                certificates.push((entry.file_name(), read(&entry.path())?));
            }
        }
        certificates.sort();
        Ok(Self { release, apt, certificates, keyrings })
    }

    fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        part(&VERSION.to_le_bytes());
        part(self.release.codename().as_bytes());
        part(PACKAGES.join(",").as_bytes());
        part(self.sources().as_bytes());
        part(self.apt.settings.as_bytes());
        for (name, text) in &self.certificates {
            part(name.as_encoded_bytes());
            part(text);
        }
        for (path, keys) in &self.keyrings {
            part(path.as_os_str().as_encoded_bytes());
            part(keys);
        }
        hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    fn sources(&self) -> String {
        self.apt.sources_file(self.release.codename())
    }

    /// Unpacks and installs the packages. The child holds the lock too: were this process killed, nobody
    /// would begin anew before the child has ended.
    fn bootstrap(&self, target: &Path, log: &Path, lock: &state::Lock) -> Result<(), Error> {
        let way = target.with_extension("way");
        state::make_dir(&way)?;
        let (sources, settings) = (way.join("debian.sources"), way.join("apt.conf"));
        state::replace(&sources, &self.sources())?;
        state::replace(&settings, &self.apt.settings)?;
        let output = std::fs::File::create(log).map_err(Error::io("write", log))?;
        let errors = output.try_clone().map_err(Error::io("write", log))?;
        let mut bootstrap = command::tool("mmdebstrap");
        bootstrap
            .args(["--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists"])
            .arg(format!("--aptopt={}", settings.display()))
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(self.release.codename())
            .arg(target)
            .stdin(Stdio::from(lock.share().map_err(Error::io("share the lock on", target))?))
            .stdout(output)
            .stderr(errors);
        if !self.apt.sources.is_empty() {
            bootstrap.arg(&sources);
        }
        let doing = format!("make the base image of {} (log: {})", self.release.name(), log.display());
        let status = bootstrap.status().map_err(|error| command::not_started(&bootstrap, &doing, &error))?;
        let said = std::fs::read(log).unwrap_or_default();
        state::remove_dir(&way)?;
        if status.success() {
            return Ok(());
        }
        state::remove_dir(target)?;
        Err(command::failed(&bootstrap, &doing, status, &String::from_utf8_lossy(&said)))
    }

    /// Makes a general image of what is on the disk after the packages were installed.
    fn finish(&self, root: &Path) -> Result<(), Error> {
        for path in ["etc/hostname", "etc/machine-id", "etc/resolv.conf", "var/lib/dbus/machine-id"] {
            let _ = std::fs::remove_file(root.join(path));
        }
        for entry in std::fs::read_dir(root.join("etc/ssh")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        // mmdebstrap numbers the file it was given.
        let sources = root.join("etc/apt/sources.list.d");
        let _ = std::fs::rename(sources.join("0000debian.sources"), sources.join("debian.sources"));
        for (path, keys) in &self.keyrings {
            place(&root.join(path.strip_prefix("/").unwrap_or(path)), keys)?;
        }
        for (name, text) in &self.certificates {
            place(&root.join(CERTIFICATES).join(name), text)?;
        }
        let mut trust = command::tool("chroot");
        command::output(trust.arg(root).arg("update-ca-certificates"), "add this computer's certificates")?;
        let systemctl = |verb: &str, unit: &str| {
            let mut systemctl = command::tool("systemctl");
            systemctl.arg("--root").arg(root).args([verb, unit]);
            command::output(&mut systemctl, &format!("{verb} {unit} in the base image"))
        };
        systemctl("enable", "systemd-networkd.service")?;
        // There is no terminal to offer a login on: the console is a log.
        systemctl("mask", "console-getty.service")?;
        // A machine that is thrown away needs no file to survive a power failure of this computer.
        place(&root.join("etc/dpkg/dpkg.cfg.d/datahub-lab"), b"force-unsafe-io\n")?;
        place(&root.join("etc/fstab"), b"")?;
        // Newer than /usr: systemd then has nothing to update at the first boot, systemd-update-done.service(8).
        place(&root.join("etc/.updated"), b"")?;
        place(&root.join("var/.updated"), b"")
    }
}

/// Writes a file that everybody may read, and the folders above it.
fn place(path: &Path, text: &[u8]) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
    }
    std::fs::write(path, text).map_err(Error::io("write", path))
}

/// Removes images that no lab uses and that nobody has asked for in a while.
fn prune() -> Result<(), Error> {
    let labs = state::all()?;
    let used: BTreeSet<&String> = labs
        .iter()
        .flat_map(|lab| lab.machines.values().filter_map(|record| record.image.as_ref()))
        .collect();
    for entry in std::fs::read_dir(CACHE).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_image = [Release::Bookworm, Release::Trixie]
            .iter()
            .any(|release| name.starts_with(&format!("{}-", release.codename())));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEEP));
        if is_image && old && !used.contains(&name) {
            state::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_another_when_anything_in_its_recipe_is() {
        let recipe = |release, settings: &str, certificate: &[u8]| Recipe {
            release,
            apt: Apt { sources: Vec::new(), settings: settings.into() },
            certificates: vec![("a.crt".into(), certificate.to_vec())],
            keyrings: Vec::new(),
        };
        let plain = recipe(Release::Trixie, "", b"x").hash();
        assert_eq!(plain, recipe(Release::Trixie, "", b"x").hash());
        assert_eq!(plain.len(), 12);
        let others = [
            recipe(Release::Bookworm, "", b"x"),
            recipe(Release::Trixie, "Acquire::Retries \"3\";\n", b"x"),
            recipe(Release::Trixie, "", b"y"),
        ];
        for other in others {
            assert_ne!(plain, other.hash());
        }
    }
}
