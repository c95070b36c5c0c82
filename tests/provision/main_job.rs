//! One machine, from bare to converged, then drift by hand: each is found, shown, mended, and nothing else is touched.

use std::collections::BTreeSet;

use crate::machines;
use crate::run::{json, plain};
use crate::support::{self, Fixture};

const NODE: &str = "orpi-1";

/// A role beside the shipped ones: none of those has a service that runs in a container.
const HEARTBEAT: &str = r#"
description = "A service that is restarted when its settings change"

[[resource]]
notify = ["restart"]
file = { path = "/etc/heartbeat.conf", mode = "0640", content = "interval = 10\n" }

[[resource]]
unit = { name = "heartbeat.service", template = "heartbeat.service", enabled = true, started = true }

[[resource]]
unit = { name = "heartbeat-watch.service", template = "heartbeat.service", enabled = true, started = true }

[[handler]]
name = "restart"
restart = "heartbeat.service"
"#;

const HEARTBEAT_UNIT: &str =
    "[Service]\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";

/// What a fresh machine needs, in order.
const FRESH: &[&str] = &[
    "package curl daemontools net-tools nfs-common open-iscsi openssh-client systemd-timesyncd unattended-upgrades",
    "hosts /etc/hosts",
    "sysctl datahub-cluster",
    "sysctl datahub-no-ipv6",
    "swap off",
    "file /etc/ssh/sshd_config.d/10-datahub.conf",
    "file /etc/apt/apt.conf.d/20auto-upgrades",
    "file /etc/heartbeat.conf",
    "unit heartbeat.service",
    "unit heartbeat-watch.service",
];

/// Drift: what is done by hand, and the resource that must find it. In the order of the roles.
const DRIFT: &[(&str, &str)] = &[
    ("apt-get purge -qq -y net-tools >/dev/null 2>&1; ! command -v arp", FRESH[0]),
    ("hostname drifted; echo drifted >/etc/hostname", "hostname datahublocal-orpi-1"),
    (
        "sed -i 's/^[0-9.]*\\(.*datahublocal-orpi-1\\)/192.0.2.99\\1/' /etc/hosts; \
         echo '192.0.2.7 printer # by hand' >>/etc/hosts; grep -q ^192.0.2.99 /etc/hosts",
        "hosts /etc/hosts",
    ),
    ("ln -sf ../usr/share/zoneinfo/Asia/Tokyo /etc/localtime", "timezone Etc/UTC"),
    ("systemctl disable -q systemd-timesyncd.service", "unit systemd-timesyncd.service"),
    (
        "sed -i s/524288/4096/ /etc/sysctl.d/90-datahub-cluster.conf; sysctl -qw net.ipv4.ip_forward=0",
        "sysctl datahub-cluster",
    ),
    ("sysctl -qw net.ipv6.conf.lo.disable_ipv6=0", "sysctl datahub-no-ipv6"),
    ("systemctl unmask -q swap.target", "swap off"),
    (
        "echo 'PermitEmptyPasswords yes' >>/etc/ssh/sshd_config.d/10-datahub.conf",
        "file /etc/ssh/sshd_config.d/10-datahub.conf",
    ),
    ("rm /etc/apt/apt.conf.d/20auto-upgrades", "file /etc/apt/apt.conf.d/20auto-upgrades"),
    ("chmod 0666 /etc/heartbeat.conf", "file /etc/heartbeat.conf"),
    ("systemctl stop heartbeat-watch.service", "unit heartbeat-watch.service"),
];

/// The files and links that mending the drift writes, and no other ones below /etc.
const MENDED: &[&str] = &[
    "/etc/apt/apt.conf.d/20auto-upgrades",
    "/etc/heartbeat.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/ssh/sshd_config.d/10-datahub.conf",
    // sshd does not read it: it is for the handler that takes a lock-out back.
    "/etc/ssh/sshd_config.d/10-datahub.conf.datahub-backup",
    "/etc/sysctl.d/90-datahub-cluster.conf",
    "/etc/systemd/system/dbus-org.freedesktop.timesync1.service",
    "/etc/systemd/system/swap.target",
    "/etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service",
];

/// Every file and link below /etc: path, inode, mode, owner and the time of its last change.
fn etc(lab: &Fixture) -> BTreeSet<String> {
    let found = lab.sh(NODE, "find /etc ! -type d -printf '%p %i %m %U %G %T@ %l\\n'");
    found.lines().map(str::to_owned).collect()
}

/// The paths that one of both has and the other has not, or not so.
fn differing(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let path = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let paths: BTreeSet<String> = before.symmetric_difference(after).map(path).collect();
    paths.into_iter().collect()
}

/// When the running services were started, by the clock that never goes back.
fn starts(lab: &Fixture, units: &[&str]) -> String {
    lab.sh(
        NODE,
        &format!("systemctl show -p Id -p MainPID -p ActiveEnterTimestampMonotonic -- {}", units.join(" ")),
    )
}

#[test]
fn main_job() {
    let Some(mut lab) = support::lab("main job") else { return };
    lab.write("roles/heartbeat/role.toml", HEARTBEAT);
    lab.write("templates/heartbeat/heartbeat.service", HEARTBEAT_UNIT);
    let inventory = machines().replace("[groups.workers]", "[groups.workers]\nroles = [\"heartbeat\"]");
    lab.up(&inventory, &[NODE]);

    // The dry run says what the run would do, and does none of it.
    let dry = ["provision", "--node", NODE, "--dry-run", "--detailed-exitcode"];
    let bare = etc(&lab);
    let plan = json(&lab, &dry);
    plan.ends_with(2);
    assert_eq!(plan.resources("differs", NODE), FRESH, "{}", plan.text);
    assert_eq!(plan.resources("unknown", NODE), ["unit systemd-timesyncd.service"], "{}", plan.text);
    assert_eq!(plan.resources("changed", NODE), [""; 0]);
    let handlers = plan.fields("handler-pending", "handler");
    assert_eq!(handlers, ["reload ssh.service", "restart heartbeat.service"]);
    assert_eq!(differing(&bare, &etc(&lab)), [""; 0]);
    assert_eq!(lab.sh(NODE, "ls -d /run/datahub /var/lib/datahub 2>/dev/null || true"), "");
    json(&lab, &dry[..4]).ends_with(0);

    // From bare to converged. The timesyncd of the package is enabled already.
    let run = json(&lab, &["provision", "--node", NODE]);
    run.ends_with(0).finished(NODE, FRESH.len() as u64, 2);
    assert_eq!(run.resources("changed", NODE), FRESH, "{}", run.text);
    assert_eq!(run.fields("handler-run", "handler"), handlers);
    assert_eq!(lab.sh(NODE, "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.disable_ipv6"), "1\n1");
    assert_eq!(
        lab.sh(NODE, "systemctl is-active heartbeat.service heartbeat-watch.service"),
        "active\nactive"
    );
    assert_eq!(lab.sh(NODE, "sshd -T | grep -i ^passwordauthentication"), "passwordauthentication no");
    lab.sh(NODE, "curl --version && arp -V && setuidgid root true && iscsiadm --version && dpkg --audit");

    nothing_to_do(&lab, &dry);
    drift(&lab, &dry);
}

/// A converged machine: a run changes nothing, in every format.
fn nothing_to_do(lab: &Fixture, dry: &[&str]) {
    let before = etc(lab);
    json(lab, &["provision", "--node", NODE]).ends_with(0).finished(NODE, 0, 0);
    json(lab, dry).ends_with(0).finished(NODE, 0, 0);
    let (code, out, _) = plain(lab, &["provision", "--node", NODE]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("Nothing to do: 1 node is as described (0 changes)."), "{out}");
    let (code, out, _) = plain(lab, &[dry, &["--format", "markdown"]].concat());
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("## datahub\n\nNothing to do: 1 node is as described."), "{out}");
    assert_eq!(differing(&before, &etc(lab)), [""; 0]);
}

/// Drift by hand of every kind at once.
fn drift(lab: &Fixture, dry: &[&str]) {
    for (shell, _) in DRIFT {
        lab.sh(NODE, shell);
    }
    let expected: Vec<&str> = DRIFT.iter().map(|(_, resource)| *resource).collect();
    let others = ["ssh.service", "dbus.service", "cron.service", "systemd-networkd.service"];
    let (drifted, started) = (etc(lab), starts(lab, &others));

    let plan = json(lab, dry);
    plan.ends_with(2);
    assert_eq!(plan.resources("differs", NODE), expected, "{}", plan.text);
    assert_eq!(plan.resources("unknown", NODE), [""; 0], "{}", plan.text);
    for format in ["text", "markdown"] {
        let (code, out, _) = plain(lab, &[dry, &["--format", format]].concat());
        assert_eq!(code, Some(2), "{out}");
        let changes = out.split("### Notes").next().unwrap_or_default();
        let lines = |resource: &&str| changes.lines().filter(|line| line.contains(resource)).count();
        for resource in &expected {
            assert_eq!(lines(resource), 1, "{resource}: {out}");
        }
        for detail in [
            "net-tools",
            "192.0.2.99",
            "Asia/Tokyo",
            "live net.ipv4.ip_forward: 0 → 1",
            "live net.ipv6.conf.lo.disable_ipv6: 0 → 1",
            "PermitEmptyPasswords yes",
            "0666 → 0640",
        ] {
            assert!(out.contains(detail), "{detail}: {out}");
        }
        assert!(!out.contains("-192.0.2.7") && !out.contains("+192.0.2.7"), "nobody's business: {out}");
    }
    assert_eq!(differing(&drifted, &etc(lab)), [""; 0], "a dry run changes nothing");

    let run = json(lab, &["provision", "--node", NODE]);
    run.ends_with(0).finished(NODE, DRIFT.len() as u64, 2);
    assert_eq!(run.resources("changed", NODE), expected, "{}", run.text);
    assert_eq!(differing(&drifted, &etc(lab)), MENDED);
    assert_eq!(starts(lab, &others), started, "services that nobody had to restart");
    assert_eq!(
        lab.sh(NODE, "hostname; date +%Z; sysctl -n net.ipv4.ip_forward"),
        "datahublocal-orpi-1\nUTC\n1"
    );
    assert_eq!(
        lab.sh(NODE, "stat -c %a /etc/heartbeat.conf; systemctl is-active heartbeat-watch"),
        "640\nactive"
    );
    // A line that is nobody's business stays.
    assert_eq!(
        lab.sh(NODE, "grep -c 'printer # by hand' /etc/hosts; grep -c 192.0.2.99 /etc/hosts || true"),
        "1\n0"
    );
    lab.sh(NODE, "arp -V");
    nothing_to_do(lab, dry);
}
