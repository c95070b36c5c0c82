//! From one minor release to the next, cut off in the middle.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Cluster, GIVEN, NEW, OLD};

/// Pods that an upgrade has to move.
const WORKLOAD: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":2,
"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
"spec":{"containers":[{"name":"web","image":"web"}]}}}}"#;

#[test]
fn an_upgrade_goes_on_where_it_was_killed() {
    if std::env::var_os(GIVEN).is_some() {
        // One executable is one release.
        return;
    }
    let Some(cluster) = Cluster::new("an_upgrade_goes_on_where_it_was_killed", OLD) else { return };
    cluster.run(&["provision", "--all"]).ends_with(0);
    cluster.lab.sh("s", "apt-get install -y -qq curl >/dev/null 2>&1");
    cluster.request("POST", "/apis/apps/v1/namespaces/default/deployments", "application/json", WORKLOAD);
    let version = |node: &str| cluster.node(node)["status"]["nodeInfo"]["kubeletVersion"].clone();

    // It is no business of provision's.
    cluster.describe(NEW, "");
    let refused = cluster.run(&["provision", "--all"]);
    refused.ends_with(1);
    assert!(refused.text.contains("datahub upgrade"), "{}", refused.text);
    assert_eq!(version("s"), OLD);

    // Killed when the first agent is on its way.
    let mut child = cluster
        .command(&["upgrade"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let started = Instant::now();
    // Nothing answers while the server restarts.
    let is_new = |node: &str| {
        let asked = cluster.lab.sh_output("s", "root", &format!("k3s kubectl get node {node} -o json"));
        asked.status.success() && String::from_utf8_lossy(&asked.stdout).contains(NEW)
    };
    while !is_new("a") && !is_new("b") {
        assert!(started.elapsed() < Duration::from_secs(240), "no agent is upgraded");
        assert!(child.try_wait().expect("asked").is_none(), "it ended before an agent was upgraded");
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert_eq!(version("s"), NEW);

    let said = cluster.succeeds(&["upgrade"]);
    for node in ["s", "a", "b"] {
        assert_eq!(version(node), NEW, "{said}");
        assert!(cluster.is_ready(node), "{node}: {said}");
        assert!(cluster.node(node)["spec"]["unschedulable"] != true, "{node} is still cordoned: {said}");
    }
    let backups = std::fs::read_dir(cluster.file("backups")).expect("made").count();
    assert!(backups >= 1, "{said}");

    // There, and never back or too far.
    let started = cluster.started_all();
    let again = cluster.succeeds(&["upgrade"]);
    assert!(again.contains("every node runs"), "{again}");
    assert_eq!(cluster.started_all(), started);
    for (target, why) in [(OLD, "K3s cannot go back"), ("v1.38.0+k3s1", "would skip a minor release")] {
        cluster.describe(target, "");
        let (code, said) = cluster.says(&["upgrade"]);
        assert!(code == Some(1) && said.contains(why), "{said}");
    }
}
