//! What a node is: gathered in the first exec, checked against what the inventory claims, read by templates.

use serde::Serialize;

/// Facts about a machine. In templates: `facts.arch`, `facts.container`, …
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Live host name, from the kernel.
    pub hostname: String,
    /// Debian's name: `amd64`, `arm64`, `armhf`; from `uname -m`.
    pub arch: String,
    /// `ID` of /etc/os-release: `debian`, `ubuntu`.
    pub os: String,
    /// `VERSION_ID` of /etc/os-release: `13`, `24.04`.
    pub os_version: String,
    /// `VERSION_CODENAME` of /etc/os-release: `trixie`.
    pub os_codename: String,
    /// Kernel release, `uname -r`.
    pub kernel: String,
    /// A container: the kernel is not the machine's own.
    pub container: bool,
    /// Windows Subsystem for Linux.
    pub wsl: bool,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// MiB, from /proc/meminfo.
    pub memory_mib: u64,
    pub cpus: u32,
    /// The memory controller is in cgroup v2's list, or in cgroup v1's as enabled.
    pub cgroup_memory: bool,
    /// ufw is installed and its configuration says it is enabled.
    pub ufw_active: bool,
    /// /run/reboot-required exists.
    pub reboot_required: bool,
    /// Where a single-board computer keeps its kernel arguments: the `…Env.txt` of DietPi, Armbian or Orange Pi
    /// (a line `extraargs=`), the `cmdline.txt` of Raspberry Pi (one line of words), or empty.
    pub boot_file: String,
    /// Who logged in, before becoming root.
    pub login_user: String,
}

/// Facts as `key=value` lines; nearly all looked up by the shell itself. That this is a container is known from
/// where systemd-detect-virt knows it: process 1 was told so. A /.dockerenv says nothing: it travels with images.
pub(super) const FACTS_SHELL: &str = r#"nl='
'
o="machine=$(uname -m)"
k() { [ -r "$2" ] && read -r v <"$2" 2>/dev/null && o="$o$nl$1=$v"; }
k hostname /proc/sys/kernel/hostname
k kernel /proc/sys/kernel/osrelease
k boot_id /proc/sys/kernel/random/boot_id
k memory /proc/meminfo
k cpus /sys/devices/system/cpu/online
k controllers /sys/fs/cgroup/cgroup.controllers
k container /run/systemd/container || { grep -qz '^container=.' /proc/1/environ 2>/dev/null && o="$o${nl}container=1"; }
[ -e /run/reboot-required ] && o="$o${nl}reboot=1"
for l in /etc/os-release /etc/ufw/ufw.conf; do
  [ -r "$l" ] && while read -r v; do case "$v" in ID=*|VERSION_ID=*|VERSION_CODENAME=*|ENABLED=*) o="$o${nl}$v";; esac; done <"$l"
done
[ -r /proc/cgroups ] && while read -r v a b e; do [ "$v" = memory ] && o="$o${nl}cgroup1=$e"; done </proc/cgroups
for l in /boot/dietpiEnv.txt /boot/armbianEnv.txt /boot/orangepiEnv.txt /boot/firmware/cmdline.txt /boot/cmdline.txt; do
  [ -f "$l" ] && { o="$o${nl}boot=$l"; break; }
done
o="$o${nl}user=${SUDO_USER:-root}"
f 0 0 "$o"
"#;

pub(super) fn read_facts(body: &str) -> Facts {
    let mut facts = Facts::default();
    let mut cgroup1 = false;
    let mut cgroup2 = None;
    for (key, value) in body.lines().filter_map(|l| l.split_once('=')) {
        let value = value.trim().trim_matches('"');
        let own = || value.to_owned();
        match key {
            "machine" => facts.arch = debian_arch(value),
            "hostname" => facts.hostname = own(),
            "kernel" => {
                facts.kernel = own();
                facts.wsl = value.to_lowercase().contains("microsoft");
            }
            "boot_id" => facts.boot_id = own(),
            "memory" => {
                let kib: Option<u64> = value.split_whitespace().nth(1).and_then(|n| n.parse().ok());
                facts.memory_mib = kib.unwrap_or_default() / 1024;
            }
            "cpus" => facts.cpus = count_cpus(value),
            "controllers" => cgroup2 = Some(value.split(' ').any(|c| c == "memory")),
            "cgroup1" => cgroup1 = value == "1",
            "container" => facts.container = !value.is_empty(),
            "reboot" => facts.reboot_required = true,
            "ID" => facts.os = own(),
            "VERSION_ID" => facts.os_version = own(),
            "VERSION_CODENAME" => facts.os_codename = own(),
            "ENABLED" => facts.ufw_active = value == "yes",
            "boot" => facts.boot_file = own(),
            "user" => facts.login_user = own(),
            _ => {}
        }
    }
    facts.cgroup_memory = cgroup2.unwrap_or(cgroup1);
    facts
}

/// Debian's name of what `uname -m` says.
fn debian_arch(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "armhf",
        "i686" | "i586" => "i386",
        other => other,
    }
    .to_owned()
}

/// `0-3,5` → 5.
fn count_cpus(ranges: &str) -> u32 {
    ranges
        .split(',')
        .filter_map(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            Some(to.parse::<u32>().ok()?.saturating_sub(from.parse().ok()?) + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_from_ranges() {
        for (ranges, count) in [("0", 1), ("0-3", 4), ("0-3,5", 5), ("", 0)] {
            assert_eq!(count_cpus(ranges), count);
        }
    }
}
