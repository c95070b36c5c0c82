//! What goes wrong says what it is and what to do, and nothing is lost.

use super::{Cluster, NEW};

#[test]
#[ignore = "K3s itself gives up on a refused node only after the unit's start limit: each of them takes five minutes"]
fn faults_are_told() {
    let Some(cluster) = Cluster::new("faults_are_told", NEW) else { return };

    // An agent alone: there is no server to join yet.
    let alone = cluster.run(&["provision", "--node", "a"]);
    alone.ends_with(1);
    assert!(alone.text.contains("cannot get the join token from s"), "{}", alone.text);

    a_server_that_never_gets_ready(&cluster);
    cluster.run(&["provision", "--all"]).ends_with(0);
    a_node_installed_anew(&cluster);
    a_wrong_token(&cluster);
    a_full_disk(&cluster);
}

fn a_server_that_never_gets_ready(cluster: &Cluster) {
    let lever = "/etc/datahub-lab.d/k3s-never-ready";
    cluster.lab.sh("s", &format!("mkdir -p /etc/datahub-lab.d; touch {lever}"));
    cluster.lab.sh("s", "mkdir -p /etc/systemd/system/k3s.service.d; printf '[Service]\\nTimeoutStartSec=5s\\n' >/etc/systemd/system/k3s.service.d/impatient.conf");
    let run = cluster.run(&["provision", "--all"]);
    run.ends_with(1);
    let failure = run.failure("s").to_string();
    assert!(failure.contains("k3s.service"), "{failure}");
    // The agents wait for it, and say so.
    assert!(run.failure("a").to_string().contains("k3s-server"), "{}", run.text);
    cluster
        .lab
        .sh("s", &format!("rm -f {lever}; rm -r /etc/systemd/system/k3s.service.d; systemctl daemon-reload"));
}

/// Its password is lost, and the cluster does not take a stranger for it.
fn a_node_installed_anew(cluster: &Cluster) {
    cluster.lab.sh("b", "systemctl stop k3s-agent; rm -rf /etc/rancher/node /var/lib/rancher/k3s/agent");
    let run = cluster.run(&["provision", "--node", "b"]);
    run.ends_with(1);
    let failure = run.failure("b").to_string();
    assert!(failure.contains("password") || failure.contains("datahub remove"), "{failure}");
    cluster.succeeds(&["remove", "b", "--gone", "--yes"]);
    cluster.run(&["provision", "--node", "b"]).ends_with(0);
    assert!(cluster.is_ready("b"));
}

fn a_wrong_token(cluster: &Cluster) {
    let token = "/etc/rancher/k3s/token";
    let kept = cluster.lab.sh("a", &format!("cat {token}"));
    let (secure, _) = kept.rsplit_once(':').expect("the secure form");
    cluster
        .lab
        .sh("a", &format!("echo '{secure}:wrong' >{token}; systemctl restart --no-block k3s-agent; sleep 3"));
    let run = cluster.run(&["provision", "--node", "a"]);
    // What it joins with now is wrong, and can be told only by the service that does not start.
    run.ends_with(1);
    assert!(run.failure("a").to_string().contains("k3s-agent"), "{}", run.text);
    cluster.lab.sh("a", &format!("rm {token}"));
    cluster.run(&["provision", "--node", "a"]).ends_with(0);
    assert!(cluster.is_ready("a"));
    assert_eq!(cluster.lab.sh("a", &format!("cat {token}")), kept);
}

fn a_full_disk(cluster: &Cluster) {
    cluster.lab.sh(
        "b",
        "systemctl stop k3s-agent; rm -f /usr/local/bin/k3s; mount -t tmpfs -o size=1m full /usr/local/bin",
    );
    let run = cluster.run(&["provision", "--node", "b"]);
    run.ends_with(1);
    let failure = run.failure("b").to_string();
    assert!(failure.contains("artifact /usr/local/bin/k3s"), "{failure}");
    assert!(failure.to_lowercase().contains("space") || failure.contains("room"), "{failure}");
    assert_eq!(cluster.lab.sh("b", "ls -A /usr/local/bin"), "", "nothing half-written stays");
    cluster.lab.sh("b", "umount /usr/local/bin");
    cluster.run(&["provision", "--node", "b"]).ends_with(0);
    assert!(cluster.is_ready("b"));
}
