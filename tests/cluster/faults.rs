//! What goes wrong is told at once: what it is, on which node, and what to do. Nothing is lost by it: done as told, the
//! same command succeeds.

use std::time::{Duration, Instant};

use datahub::checksum::sha256_hex;
use serde_json::Value;

use super::web::{Manner, Web};
use super::{Cluster, NEW, at, program};

/// How long a refusal may take to be told. systemd itself would wait for five minutes.
const AT_ONCE: Duration = Duration::from_secs(60);

#[test]
fn faults_are_told() {
    let web = Web::start();
    let source = format!("source = {:?}", web.base);
    let Some(cluster) = Cluster::with("faults_are_told", NEW, source) else { return };
    a_release_that_cannot_be_had(&cluster, &web);
    an_agent_without_a_server(&cluster);
    a_server_that_never_gets_ready(&cluster, &web);
    cluster.run(&["provision", "--all"]).ends_with(0);
    a_node_installed_anew(&cluster);
    a_wrong_token(&cluster);
    a_refusal_after_a_restart(&cluster);
    a_full_disk(&cluster);
    a_host_name_twice(&cluster);

    let last = cluster.run(&["provision", "--all"]);
    last.ends_with(0).finished("s", 0, 0).finished("a", 0, 0).finished("b", 0, 0);
    for node in ["s", "a", "b"] {
        assert!(cluster.is_ready(node), "{node}");
    }
}

/// A run on a node that fails, and what is told of it: every part stands in its message, output or hint.
#[track_caller]
fn fails(cluster: &Cluster, args: &[&str], node: &str, told: &[&str]) -> Value {
    let started = Instant::now();
    let run = cluster.run(args);
    run.ends_with(1);
    let failure = run.failure(node).clone();
    assert!(started.elapsed() < AT_ONCE, "after {:?}: {failure}", started.elapsed());
    let text = failure.to_string();
    for part in told {
        assert!(text.contains(part), "{part}: {failure}");
    }
    assert!(failure["hint"].is_string(), "what to do: {failure}");
    failure
}

/// A file of the release that is another one than its list says, then one whose download breaks off.
fn a_release_that_cannot_be_had(cluster: &Cluster, web: &Web) {
    let good = program(NEW);
    let server = ["provision", "--node", "s"];
    let nothing =
        || assert_eq!(cluster.lab.sh("s", "ls -A /usr/local/bin"), "", "nothing half-written stays");
    web.put(&at(NEW, "sha256sum-amd64.txt"), format!("{}  k3s\n", sha256_hex(&good)));
    web.put(&at(NEW, "k3s"), [&good[..good.len() - 1], b"?"].concat());
    let told = ["artifact /usr/local/bin/k3s", &web.base, "has the checksum", "is pinned", "do not use it"];
    fails(cluster, &server, "s", &told);
    nothing();

    web.put(&at(NEW, "k3s"), good);
    // Of the list, then of the file as often as it is tried.
    web.will([Manner::Well].into_iter().chain((0..6).map(|_| Manner::Cut(1000))));
    let told = ["artifact /usr/local/bin/k3s", "cannot get", "/k3s: ", "What has arrived is kept: run again"];
    fails(cluster, &server, "s", &told);
    nothing();
    web.requests();
}

fn an_agent_without_a_server(cluster: &Cluster) {
    let told = ["cannot get the join token from s", "provision s first"];
    fails(cluster, &["provision", "--node", "a"], "a", &told);
}

fn a_server_that_never_gets_ready(cluster: &Cluster, web: &Web) {
    let lever = "/etc/datahub-lab.d/k3s-never-ready";
    let impatient = "/etc/systemd/system/k3s.service.d/impatient.conf";
    let write = |path: &str, text: &str| {
        cluster.lab.sh("s", &format!("mkdir -p $(dirname {path}) && printf '{text}' >{path}"))
    };
    write(lever, "");
    write(impatient, "[Service]\\nTimeoutStartSec=5s\\n");
    let run = cluster.run(&["provision", "--all"]);
    run.ends_with(1);
    let failure = run.failure("s").to_string();
    for part in ["unit k3s.service", "failed right after its start", "timed out", "journalctl -n 100 -u k3s"]
    {
        assert!(failure.contains(part), "{part}: {failure}");
    }
    // Of the file that broke off only the rest was downloaded.
    let requests = web.requests();
    assert!(requests.iter().any(|request| request.ends_with("/k3s 6000")), "{requests:?}");
    // The agents wait for it, and say so.
    assert!(run.failure("a").to_string().contains("k3s-server"), "{}", run.text);
    cluster.lab.sh("s", &format!("rm -f {lever} {impatient}; systemctl daemon-reload"));
}

/// Its password is lost, and the cluster does not take a stranger for it.
fn a_node_installed_anew(cluster: &Cluster) {
    cluster.lab.sh("b", "systemctl stop k3s-agent; rm -rf /etc/rancher/node /var/lib/rancher/k3s/agent");
    let told =
        ["unit k3s-agent.service", "Node password rejected", "does not get up", "datahub remove b --gone"];
    fails(cluster, &["provision", "--node", "b"], "b", &told);
    cluster.succeeds(&["remove", "b", "--gone", "--yes"]);
    cluster.run(&["provision", "--node", "b"]).ends_with(0);
    assert!(cluster.is_ready("b"));
}

/// It can be told only by the service that does not start: what the server's token is, the node does not know.
fn a_wrong_token(cluster: &Cluster) {
    let token = "/etc/rancher/k3s/token";
    let kept = cluster.lab.sh("a", &format!("cat {token}"));
    let (secure, _) = kept.rsplit_once(':').expect("the secure form");
    cluster
        .lab
        .sh("a", &format!("echo '{secure}:wrong' >{token}; systemctl restart --no-block k3s-agent; sleep 1"));
    let remedy = format!("datahub exec --node a -- rm {token}");
    fails(cluster, &["provision", "--node", "a"], "a", &["401 Unauthorized", "join token", &remedy]);
    cluster.lab.sh("a", &format!("rm {token}"));
    cluster.run(&["provision", "--node", "a"]).ends_with(0);
    assert!(cluster.is_ready("a"));
    assert_eq!(cluster.lab.sh("a", &format!("cat {token}")), kept);
}

/// A handler's restart is watched like a start, and stays pending.
fn a_refusal_after_a_restart(cluster: &Cluster) {
    cluster.lab.sh("b", "mv /etc/rancher/node/password /root/; echo other >/etc/rancher/node/password");
    cluster.describe(NEW, "vars.k3s_kubelet = { maxPods = 50 }");
    let told = ["handler `restart`", "Node password rejected", "datahub remove b --gone"];
    fails(cluster, &["provision", "--node", "b"], "b", &told);
    cluster.lab.sh("b", "mv /root/password /etc/rancher/node/");
    cluster.run(&["provision", "--all"]).ends_with(0);
    assert!(cluster.is_ready("b") && cluster.node("b")["spec"]["unschedulable"] != true);
    assert_eq!(cluster.node("b")["status"]["capacity"]["pods"], "50");
}

fn a_full_disk(cluster: &Cluster) {
    let full = "mount -t tmpfs -o size=1m full /usr/local/bin";
    cluster.lab.sh("b", &format!("systemctl stop k3s-agent; rm -f /usr/local/bin/k3s; {full}"));
    let told = ["artifact /usr/local/bin/k3s", "MiB are free", "make room"];
    fails(cluster, &["provision", "--node", "b"], "b", &told);
    assert_eq!(cluster.lab.sh("b", "ls -A /usr/local/bin"), "", "nothing half-written stays");
    cluster.lab.sh("b", "umount /usr/local/bin");
    cluster.run(&["provision", "--node", "b"]).ends_with(0);
    assert!(cluster.is_ready("b"));
}

/// In the inventory, where both places are told; and on a machine, which is then not touched.
fn a_host_name_twice(cluster: &Cluster) {
    let inventory = cluster.file("datahub.toml");
    let good = std::fs::read_to_string(&inventory).expect("read");
    std::fs::write(&inventory, good.replace("[nodes.b]", "[nodes.b]\nhostname = \"a\"")).expect("written");
    let (code, said) = cluster.says(&["provision", "--all"]);
    assert_eq!(code, Some(64), "{said}");
    let first = good.lines().position(|line| line == "[nodes.a]").expect("there") + 1;
    let told = ["the hostname `a` is already that of node `a`", &format!("datahub.toml:{first})")];
    assert!(told.iter().all(|part| said.contains(part)), "{said}");
    std::fs::write(&inventory, good).expect("written");

    cluster.lab.sh("b", "hostname a");
    fails(
        cluster,
        &["provision", "--node", "b"],
        "b",
        &["which is the node a and not b", "rename the machine"],
    );
    cluster.lab.sh("b", "hostname b");
}
