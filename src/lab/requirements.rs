//! What a lab needs of this computer, and getting the tools that are missing.

use std::path::Path;

use super::{Error, Progress, Report, Unavailable, command};

/// A tool, and the Debian package it comes with.
const TOOLS: &[(&str, &str)] = &[
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// The oldest kernel a lab runs on: it ends all processes of a control group at once (`cgroup.kill`).
const KERNEL: (u32, u32) = (5, 14);
/// Type of overlayfs, statfs(2).
const OVERLAYFS_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// Whether labs can run here; missing tools that [`super::Lab::up`] would install do not count.
pub fn available() -> Result<(), Unavailable> {
    let no = |reason: String| Err(Unavailable(reason));
    if !cfg!(target_os = "linux") {
        return no("it needs Linux with systemd-nspawn; run datahub on a Debian machine".into());
    }
    root()?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel(&release).is_none_or(|version| version < KERNEL) {
        let (major, minor) = KERNEL;
        return no(format!("its Linux is {}, older than {major}.{minor}; use a newer one", release.trim()));
    }
    if !has_overlayfs() {
        return no("its kernel has no overlayfs; load the module `overlay`, or use Debian's kernel".into());
    }
    if on_overlayfs(super::state::ROOT) {
        return no(format!(
            "{} lies on an overlayfs, on which no other can be laid (a container?); mount a disk or tmpfs there",
            super::state::ROOT
        ));
    }
    super::cgroup::Group::of_lab(super::DEFAULT).map_err(|error| Unavailable(error.to_string()))?;
    let isolated = command::tool("unshare").args(["--mount", "--net", "true"]).output();
    if !isolated.is_ok_and(|output| output.status.success()) {
        return no("it may not make namespaces (a container?); run datahub on the machine itself".into());
    }
    let missing = missing_packages();
    if !missing.is_empty() && command::find("apt-get").is_none() {
        return no(format!(
            "tools are missing and there is no apt to install them; install {}",
            missing.join(", ")
        ));
    }
    Ok(())
}

pub fn root() -> Result<(), Unavailable> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Unavailable("containers need root; run datahub with sudo".into()))
}

/// Makes sure that labs can run here; installs what is missing.
pub fn ensure(report: Report<'_>) -> Result<(), Error> {
    available()?;
    let packages = missing_packages();
    if packages.is_empty() {
        return Ok(());
    }
    report(Progress::Installing { packages: packages.iter().map(|package| (*package).to_owned()).collect() });
    let apt = |args: &[&str]| {
        let mut apt = command::tool("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(args);
        apt
    };
    // Without a fresh list an old one may do: the installation says so if not.
    let _ = apt(&["update"]).output();
    let mut install = apt(&["install", "--no-install-recommends", "-y"]);
    command::output(install.args(&packages), &format!("install {}", packages.join(", ")))?;
    Ok(())
}

/// inotify(7) instances a machine uses: its systemd, its services, a user's systemd.
const INOTIFY_OF_A_MACHINE: usize = 8;

/// As many as many machines need.
const INOTIFY_WANTED: usize = 1024;

/// Raises this computer's limits when the machines of all labs may be more than they allow, and says so.
pub fn raise_limits(report: Report<'_>) -> Result<(), Error> {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    let machines: usize = super::state::all()?.iter().map(|lab| lab.machines.len()).sum();
    let limit = std::fs::read_to_string(LIMIT).unwrap_or_default();
    let limit = limit.trim().parse::<usize>().unwrap_or(usize::MAX);
    let needed = machines.saturating_mul(INOTIFY_OF_A_MACHINE);
    if needed <= limit {
        return Ok(());
    }
    let wanted = needed.max(INOTIFY_WANTED);
    let text = match std::fs::write(LIMIT, wanted.to_string()) {
        Ok(()) => format!(
            "fs.inotify.max_user_instances of this computer is {wanted} in place of {limit} until it is started anew: \
             {machines} machines need more"
        ),
        Err(error) => format!(
            "{machines} machines may need more than fs.inotify.max_user_instances = {limit} allows, and it cannot be \
             raised ({error}); services may fail in them"
        ),
    };
    report(Progress::Note { node: None, text });
    Ok(())
}

fn missing_packages() -> Vec<&'static str> {
    let missing = TOOLS.iter().filter(|(tool, _)| command::find(tool).is_none());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !Path::new(super::apt::DEBIAN_KEYRING).exists() {
        packages.push("debian-archive-keyring");
    }
    packages.dedup();
    packages
}

fn has_overlayfs() -> bool {
    let known = || {
        let list = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines().any(|line| line.split_whitespace().last() == Some("overlay"))
    };
    known() || {
        let _ = command::tool("modprobe").arg("overlay").output();
        known()
    }
}

/// Whether a folder, or the nearest one above it that exists, lies on an overlayfs.
fn on_overlayfs(folder: &str) -> bool {
    let nearest = Path::new(folder).ancestors().find(|path| path.exists());
    let status = nearest.and_then(|path| rustix::fs::statfs(path).ok());
    status.is_some_and(|status| status.f_type == OVERLAYFS_MAGIC)
}

/// Major and minor of `6.1.0-32-amd64`.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(kernel("6.1.0-32-amd64\n"), Some((6, 1)));
        assert_eq!(kernel("5.4.0"), Some((5, 4)));
        assert_eq!(kernel("strange"), None);
        assert!(kernel("5.4.0") < Some(KERNEL) && kernel("6.1.0") > Some(KERNEL));
    }
}
