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
