//! Several servers with an embedded etcd: made at once, kept, backed up and taken back, and one of them less.

use datahub::lab::Stop;
use serde_json::Value;

use super::NEW;
use crate::run::{self, Run};
use crate::support::{self, Fixture};

/// Machines and what they are to be.
const NODES: &[(&str, &[&str])] = &[
    ("one", &["rebooted", "k3s-server"]),
    ("two", &["k3s-server"]),
    ("three", &["k3s-server"]),
    ("agent", &["k3s-agent"]),
];

/// The others have asked the first server for its cluster when it reboots, and ask it again afterwards.
const REBOOTED: &str = r#"
description = "What takes hold with the next boot"
[[resource]]
notify = ["reboot"]
command = { name = "settings of the boot loader", creates = "/etc/rebooted", run = "touch /etc/rebooted" }
[[handler]]
name = "reboot"
reboot = true
"#;

fn inventory() -> String {
    let node = |(name, roles): &(&str, &[&str])| {
        let claims = "arch = \"amd64\"\nos = \"debian-13\"";
        format!("[nodes.{name}]\nhost = \"{name}.home.arpa\"\n{claims}\nroles = {roles:?}\n")
    };
    let nodes: String = NODES.iter().map(node).collect();
    format!("[cluster]\nname = \"several\"\n[k3s]\nversion = \"{NEW}\"\n{nodes}")
}

fn provision(lab: &Fixture) -> Run {
    run::json(lab, &["provision", "--all", &flag(lab)])
}

fn flag(lab: &Fixture) -> String {
    format!("--lab={}", lab.name)
}

/// Both streams of a command that succeeds.
#[track_caller]
fn succeeds(lab: &Fixture, args: &[&str]) -> String {
    let (code, out, said) = run::plain(lab, &[args, &[&flag(lab)]].concat());
    assert_eq!(code, Some(0), "{args:?}: {out}{said}");
    out + &said
}

/// Both streams of a command that fails.
#[track_caller]
fn fails(lab: &Fixture, args: &[&str]) -> String {
    let (code, out, said) = run::plain(lab, &[args, &[&flag(lab)]].concat());
    assert_eq!(code, Some(1), "{args:?}: {out}{said}");
    out + &said
}

/// Nodes and what kind of member they are, as the cluster says.
#[track_caller]
fn nodes(lab: &Fixture) -> Vec<(String, bool, bool)> {
    let text = lab.sh("one", "k3s kubectl get nodes -o json");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let mut nodes: Vec<_> = list["items"].as_array().expect("a list").iter().map(member).collect();
    nodes.sort();
    nodes
}

/// Its name, whether it is a server with etcd, and whether it is Ready.
fn member(node: &Value) -> (String, bool, bool) {
    let name = node["metadata"]["name"].as_str().expect("a name").to_owned();
    let etcd = node["metadata"]["labels"]["node-role.kubernetes.io/etcd"] == "true";
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    (name, etcd, conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

#[test]
fn several_servers() {
    let Some(mut lab) = support::lab("several_servers") else { return };
    lab.write("datahub.toml", &inventory());
    lab.write("roles/rebooted/role.toml", REBOOTED);

    // From nothing, all at once: the others wait for the first.
    let first = provision(&lab);
    first.ends_with(0);
    lab.adopt();
    let whole = [("agent", false), ("one", true), ("three", true), ("two", true)];
    let whole: Vec<_> = whole.map(|(name, etcd)| (name.to_owned(), etcd, true)).into();
    assert_eq!(nodes(&lab), whole, "{}", first.text);
    let second = provision(&lab);
    second.ends_with(0);
    for (node, _) in NODES {
        second.finished(node, 0, 0);
    }
    // What they expect of agents is the same, and bare; what they join with proves the first one.
    let tokens =
        |node: &str| lab.sh(node, "cat /etc/rancher/k3s/agent-token; cut -c1-3 /etc/rancher/k3s/token");
    let credentials = lab.sh("one", "cat /etc/rancher/k3s/agent-token");
    for node in ["two", "three"] {
        assert_eq!(tokens(node), format!("{credentials}\nK10"), "{node}");
    }

    // The datastore is etcd's: a snapshot of it is a backup, and a server that is not the first joins it anew.
    succeeds(&lab, &["backup", "--to", "saved"]);
    let mut files =
        std::fs::read_dir(lab.dir().join("saved")).expect("made").flatten().map(|file| file.path());
    let saved = files.find(|file| file.extension().is_some_and(|end| end == "gz")).expect("a file");
    let saved = saved.to_str().expect("UTF-8");
    succeeds(&lab, &["restore", saved, "--yes"]);
    assert_eq!(nodes(&lab), whole);
    what_cannot_be_restored_changes_nothing(&lab, saved);
    assert_eq!(nodes(&lab), whole);
    let maintained = succeeds(&lab, &["maintenance"]);
    assert!(maintained.contains("is an embedded etcd: it shrinks by itself"), "{maintained}");

    // With one of three down no other one may go.
    lab.sh("three", "systemctl stop k3s");
    until(|| nodes(&lab).contains(&("three".into(), true, false)));
    let refused = fails(&lab, &["remove", "two", "--yes"]);
    assert!(refused.contains("no majority") && refused.contains("to Ready first: three"), "{refused}");
    lab.sh("three", "systemctl start k3s");
    until(|| nodes(&lab) == whole);
    succeeds(&lab, &["remove", "three", "--yes"]);
    assert!(!nodes(&lab).iter().any(|(name, ..)| name == "three"));
    provision(&lab).ends_with(0);
    assert_eq!(nodes(&lab), whole);

    // Agents first; one that is off already holds up nobody.
    lab.lab().stop("agent", Stop::PowerCut).expect("off");
    let said = succeeds(&lab, &["shutdown", "--all", "--yes", "--connect-timeout", "3"]);
    assert!(said.contains("agent off already, or out of reach"), "{said}");
    // A container's processes outlive its network by a moment.
    until(|| !lab.lab().machines().expect("readable").iter().any(|machine| machine.running));
}

/// The other servers run on with what they had.
fn what_cannot_be_restored_changes_nothing(lab: &Fixture, saved: &str) {
    lab.lab().stop("three", Stop::PowerCut).expect("off");
    let started = |node: &str| lab.sh(node, "systemctl show -P ActiveEnterTimestampMonotonic k3s");
    let before = ["one", "two"].map(started);
    let refused = fails(lab, &["restore", saved, "--yes", "--connect-timeout", "3"]);
    assert!(refused.contains("three: cannot reach") && refused.contains("nothing was done"), "{refused}");
    assert_eq!(["one", "two"].map(started), before);
    lab.lab().start("three").expect("on");
    until(|| nodes(lab).iter().all(|(.., ready)| *ready));

    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.tar.gz");
    let spoil = "tar -xzf \"$1\" && echo rubbish >snapshot && tar -czf \"$2\" ./*[!z]";
    let mut sh = std::process::Command::new("sh");
    sh.args(["-ec", spoil, "sh", saved]).arg(&broken).current_dir(&folder);
    assert!(sh.status().expect("sh runs").success());
    let refused = fails(lab, &["restore", broken.to_str().expect("UTF-8"), "--yes"]);
    assert!(refused.contains("what was there before was put back"), "{refused}");
    assert!(refused.contains("two starting K3s again, with what it had"), "{refused}");
    until(|| nodes(lab).iter().all(|(.., ready)| *ready));
    // Of the first restore, and none of this one.
    assert_eq!(lab.sh("one", "ls -d /var/lib/rancher/k3s/server/*.before-restore-* | wc -l"), "2");
}

/// Waits until it is so.
#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed().as_secs() < 120, "it is not so");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
