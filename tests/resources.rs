//! Every type of resource on real machines, from Debian 12 and 13: made, changed, removed, and converged after each,
//! looked at with plain shell. Types with a test program of their own are named below.
#![cfg(feature = "lab")]

mod support;

#[path = "provision/run.rs"]
mod run;

use std::collections::BTreeSet;

use datahub::resource::KINDS;
use run::Run;
use support::Fixture;

/// In tests/artifact.rs and tests/cluster.rs: they need a release, or a cluster.
const ELSEWHERE: &[&str] = &["artifact", "helm_chart", "k3s_join", "kube_node", "kube_object", "kube_secret"];

const NODES: [&str; 2] = ["trixie", "bookworm"];

/// The same resources in three states. What each phase names differs before it from what it says.
const PHASES: [(&str, &str); 3] = [
    ("present", include_str!("resources/present.toml")),
    ("changed", include_str!("resources/changed.toml")),
    ("removed", include_str!("resources/removed.toml")),
];

/// A flat archive with one package that nobody can install. Its key was made for it and thrown away.
const RELEASE: &str = include_str!("resources/archive/InRelease");
const PACKAGES: &str = include_str!("resources/archive/Packages");
const KEY: &str = include_str!("resources/archive/key.asc");

/// `openssl passwd -6 -salt tested datahub`
const HASH: &str =
    "$6$tested$dwLrG0T3bKEJVW9AP4QZJcchiQ9kxVjVVoivH5erSjLDk/U1oZ9fYplBksgCZ2ndmRg4kqyMdTjlv5bhkplqV0";

/// Shell, and what it prints when everything is as the phase says: on both machines, where `NODE` is the machine's name.
type Looks = &'static [(&'static str, &'static str)];

const BEFORE: Looks = &[
    ("dpkg-query -W -f '${Package} ' hello logrotate 2>/dev/null || true", ""),
    ("ls -A /srv", "archive\nold"),
    ("ls /etc/apt/keyrings/tested.asc /etc/apt/sources.list.d/tested.sources 2>/dev/null || true", ""),
    ("getent passwd app; getent group keepers; getent hosts printer; true", ""),
    ("hostname", "NODE"),
    ("cat /etc/sysctl.d/90-tested.conf /etc/modules-load.d/datahub-* 2>/dev/null || true", ""),
    ("cat /proc/sys/net/ipv4/conf/all/log_martians", "0"),
    ("grep -c /mnt/ /proc/mounts || true", "0"),
    ("ls -d /etc/systemd/system/tested* /etc/systemd/system/swap.target 2>/dev/null || true", ""),
];

const PRESENT: Looks = &[
    // Packages
    ("hello", "Hello, world!"),
    ("logrotate --version 2>&1 | head -n 1 | cut -d. -f1", "logrotate 3"),
    ("apt-mark showhold", "hello"),
    (
        "cat /etc/apt/sources.list.d/tested.sources",
        "Types: deb\nURIs: file:/srv/archive\nSuites: ./\nSigned-By: /etc/apt/keyrings/tested.asc",
    ),
    ("apt-cache show datahub-tested | grep Version", "Version: 1.0"),
    // Files
    (
        "stat -c '%a %U:%G %F' /srv/tested /srv/tested/inner",
        "755 root:root directory\n750 daemon:adm directory",
    ),
    ("cat \"/srv/tested/it's text\"", "one\n$two `three` \\four"),
    ("stat -c '%a %U:%G %s' \"/srv/tested/it's text\"", "640 root:adm 23"),
    ("od -An -tx1 /srv/tested/bytes; stat -c '%a %U:%G' /srv/tested/bytes", " 00 01 02 ff\n644 root:root"),
    ("stat -c %a /srv/tested/secret; cat /srv/tested/secret", "600\nhash = HASH"),
    ("readlink /srv/tested/link", "bytes"),
    ("ls -d /srv/old 2>/dev/null || true", ""),
    ("grep -cxE '[0-9a-f]{32}' /srv/tested/token; stat -c %a /srv/tested/token", "1\n600"),
    ("find /srv /etc /boot -name '*.datahub*'", ""),
    // Parts of files
    (
        "cat /etc/tested.conf",
        "# kept\ncolour = blue\nend = yes\n# BEGIN datahub sizes\nwidth = 1\nheight = 2\n# END datahub sizes",
    ),
    (
        "cat /boot/armbianEnv.txt",
        "verbosity=1\nextraargs=cma=128M loglevel=4 cgroup_enable=memory\nrootdev=UUID=0b1c",
    ),
    (
        "grep 192.0.2. /etc/hosts",
        "192.0.2.2\tcamera # by hand\n192.0.2.1\tprinter.home.arpa printer\n192.0.2.3\tdoor",
    ),
    ("getent hosts printer | cut -d' ' -f1", "192.0.2.1"),
    // The machine
    ("hostname; cat /etc/hostname", "renamed-NODE\nrenamed-NODE"),
    ("date +%Z; readlink -f /etc/localtime", "JST\n/usr/share/zoneinfo/Asia/Tokyo"),
    ("cat /etc/sysctl.d/90-tested.conf", "net.ipv4.conf.all.log_martians = 1\nvm.swappiness = 17"),
    ("cat /proc/sys/net/ipv4/conf/all/log_martians", "1"),
    (
        "cat /etc/modules-load.d/datahub-no_such_module.conf /etc/modprobe.d/datahub-no_such_module.conf",
        "no_such_module\noptions no_such_module speed=3",
    ),
    (
        "grep swap /etc/fstab; systemctl is-enabled swap.target || true",
        "# datahub, swap off: /swapfile none swap sw 0 0\nmasked",
    ),
    ("grep ' /mnt/memory tmpfs ' /proc/mounts | grep -w nosuid | grep -cw size=1024k", "1"),
    (
        "grep /mnt/ /etc/fstab",
        "tmpfs /mnt/memory tmpfs size=1m,nosuid 0 0\n/srv/tested /mnt/bound none bind 0 0",
    ),
    ("stat -c %d:%i /mnt/bound | grep -cx \"$(stat -c %d:%i /srv/tested)\"", "1"),
    // Accounts
    ("getent group keepers", "keepers:x:1600:"),
    ("getent passwd app", "app:x:1500:1600:Keeps the application:/home/app:/bin/bash"),
    ("id -Gn app | tr ' ' '\\n' | sort", "adm\ngames\nkeepers"),
    ("getent shadow app | cut -d: -f2", "HASH"),
    (
        "cat /home/app/.ssh/authorized_keys",
        "restrict ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH/BTr7gFj1/ujH9dLvijGsOXvoccZkQ/YJrLpin6zWo first",
    ),
    ("cd /home/app && stat -c '%a %U:%G' .ssh .ssh/authorized_keys", "700 app:keepers\n600 app:keepers"),
    // Units
    ("systemctl is-active tested.service; systemctl is-enabled tested.service", "active\nenabled"),
    (
        "systemctl show -p Description -p NeedDaemonReload tested.service",
        "Description=One note\nNeedDaemonReload=no",
    ),
    ("systemctl is-enabled tested-never.service || true", "masked"),
    ("systemctl is-active tested-clock.service || true", "inactive"),
    ("systemctl is-active tested-timer.timer; systemctl is-enabled tested-timer.timer", "active\nenabled"),
    // It is not run because it is made.
    ("ls /run/tested-timer 2>/dev/null; systemctl start tested-timer.service; cat /run/tested-timer", "42 %"),
    // What systemd has read from a file of environment.
    ("cat /run/tested-word", "it's 5 % of \"$HOME\" `id` C:\\new\\ # ; two  blanks"),
    ("cat /srv/tested/sum /srv/tested/id", "42\n0"),
];

const CHANGED: Looks = &[
    // Packages
    ("hello; apt-mark showhold", "Hello, world!"),
    ("dpkg-query -W -f '${db:Status-Abbrev}' logrotate; ls /etc/logrotate.conf", "rc /etc/logrotate.conf"),
    (
        "apt-cache madison datahub-tested | tr -s ' '",
        "datahub-tested | 1.0 | file:/srv/archive-2 ./ Packages",
    ),
    // Files
    ("stat -c '%a %U:%G' /srv/tested/inner", "2700 root:root"),
    (
        "cat \"/srv/tested/it's text\"; stat -c '%a %U:%G' \"/srv/tested/it's text\"",
        "one\nfive\n644 root:root",
    ),
    ("cat \"/srv/tested/it's text.datahub-backup\"", "one\n$two `three` \\four"),
    ("od -An -tx1 /srv/tested/bytes", " ff 02 01 00"),
    ("cat /srv/tested/secret", "digest = HASH"),
    ("readlink /srv/tested/link", "/srv/tested/inner"),
    ("ls -d /srv/old 2>/dev/null || true", ""),
    // Never another one.
    ("cmp /srv/tested/token /root/token; stat -c '%a %G' /srv/tested/token", "640 adm"),
    // Parts of files
    (
        "cat /etc/tested.conf",
        "# kept\ncolour = green\nend = yes\n# BEGIN datahub sizes\ndepth = 3\n# END datahub sizes",
    ),
    ("grep extraargs /boot/armbianEnv.txt", "extraargs=cma=128M loglevel=7 cgroup_enable=memory"),
    (
        "grep 192.0.2. /etc/hosts",
        "192.0.2.8\tcamera # by hand\n192.0.2.9\tprinter.home.arpa printer\n192.0.2.3\tdoor",
    ),
    // The machine
    ("hostname; cat /etc/hostname", "again-NODE\nagain-NODE"),
    ("date +%Z; readlink -f /etc/localtime", "-05\n/usr/share/zoneinfo/America/Lima"),
    (
        "cat /etc/sysctl.d/90-tested.conf /proc/sys/net/ipv4/conf/all/log_martians",
        "net.ipv4.conf.all.log_martians = 0\nvm.swappiness = 18\n0",
    ),
    ("cat /etc/modprobe.d/datahub-no_such_module.conf", "options no_such_module speed=4"),
    ("grep ' /mnt/memory tmpfs ' /proc/mounts | grep -w noexec | grep -cw size=2048k", "1"),
    ("grep -c /mnt/bound /proc/mounts; grep -c /mnt/bound /etc/fstab", "0\n1"),
    // Accounts
    ("getent group keepers", "keepers:x:1601:"),
    ("getent passwd app", "app:x:1500:1601:Kept:/home/app:/bin/sh"),
    ("id -Gn app | tr ' ' '\\n' | sort", "adm\nkeepers"),
    ("getent shadow app | cut -d: -f2", "!HASH"),
    (
        "cat /home/app/.ssh/authorized_keys",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJAWxTV98Zb+j65uvMS2AonQlGM1y0cKACnThyjtC2ss second",
    ),
    // Units
    ("systemctl is-active tested.service; systemctl is-enabled tested.service; true", "inactive\ndisabled"),
    (
        "systemctl show -p Description -p NeedDaemonReload tested.service",
        "Description=Another note\nNeedDaemonReload=no",
    ),
    ("systemctl show -p LoadState tested-never.service", "LoadState=not-found"),
    ("systemctl show -p ExecStart tested-clock.service | grep -c 'sleep 1d'", "1"),
    ("systemctl show -p TimersCalendar tested-timer.timer | grep -c 'Mon \\*-\\*-\\* 03:30:00'", "1"),
    ("systemctl start tested-timer.service; stat -c %U '/home/app/it ran' 2>&1", "app"),
    ("cat /srv/tested/sum; wc -l </srv/tested/date", "43\n1"),
];

const REMOVED: Looks = &[
    ("ls -d /etc/systemd/system/tested* /var/lib/systemd/timers/*tested* 2>/dev/null || true", ""),
    ("systemctl list-timers --all --no-legend | grep -c tested || true", "0"),
    ("getent passwd app; getent group keepers; ls -d /home/app 2>/dev/null || true", ""),
    ("grep /mnt/ /proc/mounts /etc/fstab || true", ""),
    ("cat /etc/modprobe.d/datahub-no_such_module.conf", "blacklist no_such_module"),
    ("ls /etc/modules-load.d/datahub-no_such_module.conf 2>/dev/null || true", ""),
    ("grep 192.0.2. /etc/hosts", "192.0.2.8\tcamera # by hand\n192.0.2.3\tdoor"),
    ("cat /etc/tested.conf", "# kept\nend = yes"),
    ("ls /srv/tested", "bytes\ndate\nid\nit's text.datahub-backup\nsecret\nsum\ntoken"),
    ("ls /etc/apt/keyrings/tested.asc /etc/apt/sources.list.d/tested.sources 2>/dev/null || true", ""),
    ("apt-cache madison datahub-tested", ""),
    ("dpkg-query -W -f '${db:Status-Status} ' hello logrotate 2>/dev/null || true", ""),
    ("ls /etc/logrotate.conf 2>/dev/null || true", ""),
    ("dpkg --audit", ""),
];

/// What a container cannot have is said in every run that means it, and no failure. Node and note.
fn expected_notes(phase: &str, swappiness: &str) -> BTreeSet<String> {
    let live = |value| {
        format!(
            "sysctl tested: live values a container cannot set: vm.swappiness ({swappiness}, not {value})"
        )
    };
    let module = "kernel_module no_such_module: no_such_module is not loaded, and a container cannot change that: its host can";
    let clock = "unit tested-clock.service: tested-clock.service is not running: its start conditions are not met in a container";
    let notes = match phase {
        "present" => vec![live(17), module.into(), clock.into()],
        "changed" => vec![live(18), module.into(), clock.into()],
        _ => vec![],
    };
    notes.into_iter().collect()
}

fn notes(run: &Run, node: &str) -> BTreeSet<String> {
    let about = |event: &&serde_json::Value| {
        let text = |field: &str| event[field].as_str().expect("a text").to_owned();
        format!("{}: {}", text("resource"), text("note"))
    };
    let of_node = run.of("note").filter(|event| event["node"] == node).collect::<Vec<_>>();
    // This computer's own swap is none of the test's.
    of_node.iter().map(about).filter(|note| !note.starts_with("swap off")).collect()
}

/// The kinds of a role's resources, in their order; one with `for_each` as often as it says.
fn kinds(role: &str) -> Vec<String> {
    let role: toml::Table = role.parse().expect("TOML");
    let resources = role["resource"].as_array().expect("a list");
    resources
        .iter()
        .flat_map(|resource| {
            let table = resource.as_table().expect("a table");
            let kind = table.keys().find(|key| KINDS.contains(&key.as_str())).expect("a kind").clone();
            let times =
                table.get("for_each").map_or(1, |list| list.as_str().expect("a text").split(',').count());
            std::iter::repeat_n(kind, times)
        })
        .collect()
}

/// Of the events of some kinds about a node, the resources' kinds, in their order.
fn seen(run: &Run, node: &str, events: &[&str]) -> Vec<String> {
    let about = run.events.iter().filter(|event| {
        event["node"] == node && events.contains(&event["event"].as_str().unwrap_or_default())
    });
    about
        .map(|event| {
            let label = event["resource"].as_str().expect("a resource");
            label.split(' ').next().expect("a kind").to_owned()
        })
        .collect()
}

#[track_caller]
fn datahub(lab: &Fixture, args: &[&str]) -> Run {
    let args = [args, &["--all", "--format", "json"]].concat();
    let run = run::read(&lab.command(&args).env("DATAHUB_SECRET_PASSWORD", HASH).output().expect("it runs"));
    assert!(!run.text.contains(HASH), "the secret is printed: {}", run.text);
    run
}

#[track_caller]
fn look(lab: &Fixture, looks: Looks) {
    let mut wrong = String::new();
    for node in NODES {
        for (shell, expected) in looks {
            let expected = expected.replace("NODE", node).replace("HASH", HASH);
            let found = lab.sh(node, shell);
            if found != expected {
                wrong.push_str(&format!("\n{node}: {shell}\n expected {expected:?}\n    found {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_type_is_tested() {
    let tested: BTreeSet<String> = PHASES.iter().flat_map(|(_, role)| kinds(role)).collect();
    let all: BTreeSet<String> =
        KINDS.iter().filter(|kind| !ELSEWHERE.contains(kind)).map(|kind| (*kind).to_owned()).collect();
    assert_eq!(tested, all);
}

#[test]
fn every_resource_is_made_changed_and_removed() {
    let Some(mut lab) = support::lab("resources") else { return };
    let nodes: &[(&str, &str, &[&str])] =
        &[(NODES[0], "debian-13", &["tested"]), (NODES[1], "debian-12", &["tested"])];
    lab.up(&support::inventory("kim", nodes), &NODES);
    for node in NODES {
        lab.sh(node, include_str!("resources/setup.sh"));
        lab.sh(node, &format!("cat >/srv/archive/InRelease <<'END'\n{RELEASE}END\n"));
        lab.sh(node, &format!("cat >/srv/archive/Packages <<'END'\n{PACKAGES}END\n"));
    }
    let swappiness = lab.sh(NODES[0], "cat /proc/sys/vm/swappiness");
    look(&lab, BEFORE);

    for ((phase, role), looks) in PHASES.into_iter().zip([PRESENT, CHANGED, REMOVED]) {
        lab.write("roles/tested/role.toml", &role.replace("ARCHIVE-KEY\n", KEY).replace("ARCHIVE-KEY", KEY));
        if phase == "changed" {
            for node in NODES {
                lab.sh(
                    node,
                    "touch /srv/old; cp -a /srv/archive /srv/archive-2; cp -p /srv/tested/token /root/token",
                );
            }
        }
        let kinds = kinds(role);
        let plan = datahub(&lab, &["plan", "--detailed-exitcode"]);
        plan.ends_with(2);
        let run = datahub(&lab, &["provision"]);
        run.ends_with(0);
        let again = datahub(&lab, &["provision"]);
        again.ends_with(0);
        for node in NODES {
            assert_eq!(seen(&plan, node, &["differs", "unknown"]), kinds, "{phase}: {}", plan.text);
            assert_eq!(seen(&run, node, &["changed"]), kinds, "{phase}: {}", run.text);
            run.finished(node, kinds.len() as u64, 0);
            again.finished(node, 0, 0);
            let expected = expected_notes(phase, &swappiness);
            assert_eq!((notes(&run, node), notes(&again, node)), (expected.clone(), expected), "{phase}");
        }
        look(&lab, looks);
    }
    assert_eq!(lab.sh(NODES[0], "cat /proc/sys/vm/swappiness"), swappiness, "this computer's own");
}
