//! Single-board computers: where their boot loaders read the kernel's arguments, and when they are rebooted.

use crate::run::{json, plain};
use crate::support::{self, Fixture};

/// Node, boot file, what the image's maker wrote, what it must become.
const BOARDS: &[(&str, &str, &str, &str)] = &[
    (
        "armbian",
        "/boot/armbianEnv.txt",
        "verbosity=1\nbootlogo=false\nextraargs=cma=128M\nrootdev=UUID=0b1c\nusbstoragequirks=0x2537:u\n",
        "verbosity=1\nbootlogo=false\nextraargs=cma=128M cgroup_enable=memory cgroup_memory=1\nrootdev=UUID=0b1c\nusbstoragequirks=0x2537:u\n",
    ),
    (
        "orangepi",
        "/boot/orangepiEnv.txt",
        "verbosity=1\noverlay_prefix=rk3588\nrootdev=UUID=0b1c\nrootfstype=ext4\n",
        "verbosity=1\noverlay_prefix=rk3588\nrootdev=UUID=0b1c\nrootfstype=ext4\nextraargs=cgroup_enable=memory cgroup_memory=1\n",
    ),
    (
        "raspberry",
        "/boot/firmware/cmdline.txt",
        "console=serial0,115200 console=tty1 root=PARTUUID=0b1c-02 rootfstype=ext4 fsck.repair=yes rootwait cgroup_memory=0\n",
        "console=serial0,115200 console=tty1 root=PARTUUID=0b1c-02 rootfstype=ext4 fsck.repair=yes rootwait cgroup_memory=1 cgroup_enable=memory\n",
    ),
    (
        "dietpi",
        "/boot/dietpiEnv.txt",
        "rootdev=UUID=0b1c\nconsole=serial\nextraargs=\"net.ifnames=0\"\n",
        "rootdev=UUID=0b1c\nconsole=serial\nextraargs=\"net.ifnames=0 cgroup_enable=memory cgroup_memory=1\"\n",
    ),
];

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Has the machine's kernel offer these controllers, until it is booted anew. That of a container is this computer's.
fn offers(lab: &Fixture, node: &str, controllers: &str) {
    let file = "/sys/fs/cgroup/cgroup.controllers";
    lab.sh(node, &format!("echo '{controllers}' >/run/controllers; mount --bind /run/controllers {file}"));
    assert_eq!(lab.sh(node, &format!("cat {file}")), controllers);
}

#[test]
fn boards() {
    let Some(mut lab) = support::lab("boards") else { return };
    let nodes: Vec<&str> = BOARDS.iter().map(|(node, ..)| *node).collect();
    let inventory: Vec<_> = nodes.iter().map(|node| (*node, "debian-13", &["sbc"][..])).collect();
    lab.up(&support::inventory("kim", &inventory).replace("amd64", "arm64"), &nodes);
    // Two whose kernel hides the memory controller, two that were booted with it, by another file.
    let lacking = ["armbian", "raspberry"];
    for (node, path, before, _) in BOARDS {
        lab.sh(node, &format!("mkdir -p $(dirname {path}); printf '%s' '{before}' >{path}"));
        let has = !lacking.contains(node);
        offers(&lab, node, if has { "cpuset cpu io memory pids" } else { "cpuset cpu io pids" });
    }
    let boots: Vec<String> = nodes.iter().map(|node| lab.sh(node, BOOT_ID)).collect();
    let reboots: Vec<bool> = nodes.iter().map(|node| lacking.contains(node)).collect();

    let plan = json(&lab, &["plan", "--all", "--detailed-exitcode"]);
    plan.ends_with(2);
    let (_, text, _) = plain(&lab, &["plan", "--all"]);
    for ((node, path, ..), reboot) in BOARDS.iter().zip(&reboots) {
        assert_eq!(plan.resources("differs", node), [format!("boot_arguments {path}")], "{}", plan.text);
        let pending = plan.of("handler-pending").any(|event| event["node"] == *node);
        assert_eq!(pending, *reboot, "{node}: {}", plan.text);
    }
    assert!(text.contains("handler reboot"), "{text}");

    let run = json(&lab, &["provision", "--all"]);
    run.ends_with(0);
    for (at, (node, path, _, after)) in BOARDS.iter().enumerate() {
        run.finished(node, 1, reboots[at].into());
        assert_eq!(lab.sh(node, &format!("cat {path}; echo .")), format!("{after}."));
        assert_eq!(lab.sh(node, BOOT_ID) != boots[at], reboots[at], "{node}: {}", run.text);
    }

    let boots: Vec<String> = nodes.iter().map(|node| lab.sh(node, BOOT_ID)).collect();
    let again = json(&lab, &["provision", "--all"]);
    again.ends_with(0);
    for (at, node) in nodes.iter().enumerate() {
        again.finished(node, 0, 0);
        assert_eq!(lab.sh(node, BOOT_ID), boots[at], "{node} is not rebooted twice");
    }
}

/// The role `base` with nothing to install.
const VARS: &str =
    "\n[cluster.vars]\npackages = [\"openssh-client\"]\ntime_sync = false\nunattended_upgrades = false\n";

#[test]
fn an_upgrade_that_asks_for_a_reboot_gets_one() {
    let Some(mut lab) = support::lab("reboot required") else { return };
    lab.up(&(support::inventory("kim", &[("n", "debian-13", &["base"])]) + VARS), &["n"]);
    json(&lab, &["provision", "--all"]).ends_with(0);
    json(&lab, &["provision", "--all"]).ends_with(0).finished("n", 0, 0);
    let boot = lab.sh("n", BOOT_ID);
    lab.sh("n", "echo '*** System restart required ***' >/run/reboot-required");

    // Where it is switched off, nothing happens.
    let run = json(&lab, &["provision", "--all", "--set", "reboot_when_required=false"]);
    run.ends_with(0).finished("n", 0, 0);
    let plan = json(&lab, &["plan", "--all", "--detailed-exitcode"]);
    plan.ends_with(2);
    assert_eq!(plan.resources("differs", "n"), ["command a reboot that upgrades ask for"]);
    assert_eq!(plan.fields("handler-pending", "handler"), ["reboot"]);
    assert_eq!(lab.sh("n", BOOT_ID), boot);

    let run = json(&lab, &["provision", "--all"]);
    run.ends_with(0).finished("n", 1, 1);
    assert_eq!(run.fields("handler-run", "handler"), ["reboot"]);
    let anew = lab.sh("n", BOOT_ID);
    assert_ne!(anew, boot);
    lab.sh("n", "test ! -e /run/reboot-required");

    json(&lab, &["provision", "--all"]).ends_with(0).finished("n", 0, 0);
    assert_eq!(lab.sh("n", BOOT_ID), anew, "once");
}
