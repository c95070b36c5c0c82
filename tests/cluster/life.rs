//! From nothing to a cluster, its drift, its care, and its end.

use super::{Cluster, NEW};

/// Watches for the cluster's secrets where they must not be, for as long as it runs. They are looked for as files
/// hold them, so that this itself puts them nowhere.
const WATCH: &str = r#"
umask 077
: >/root/leaks
patterns() { for f in /etc/rancher/k3s/token /etc/rancher/k3s/agent-token; do
  [ -s "$f" ] && sed 's/.*://' "$f"; done >/root/patterns.new 2>/dev/null; mv /root/patterns.new /root/patterns; }
while [ ! -e /root/stop-watching ]; do
  patterns
  if [ -s /root/patterns ]; then
    grep -lFf /root/patterns /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null >>/root/leaks
  fi
  sleep 0.2
done
"#;

/// Where a secret may be after all: the files that exist for it, and K3s's own data.
const LEFT_BEHIND: &str = r#"
[ -s /root/patterns ] || { echo 'there are no secrets to look for'; exit 1; }
cat /root/leaks
grep -rlFf /root/patterns /etc /run /tmp /var/log /var/tmp /var/lib/datahub /usr/local /home 2>/dev/null \
  | grep -v -x -e /etc/rancher/k3s/token -e /etc/rancher/k3s/agent-token
journalctl --no-pager -o cat 2>/dev/null | grep -cFf /root/patterns | grep -vx 0 | sed 's/.*/in the journal/'
find /etc/rancher/k3s -type f \( -name '*token*' -o -name '*.yaml' \) -perm /077
true
"#;

#[test]
fn a_cluster_lives() {
    let Some(cluster) = Cluster::new("a_cluster_lives", NEW) else { return };
    let all = ["s", "a", "b"];
    for node in all {
        let watch = format!(
            "cat >/root/watch <<'END'\n{WATCH}\nEND\nsetsid sh /root/watch >/dev/null 2>&1 </dev/null &"
        );
        cluster.lab.sh(node, &watch);
    }

    // From nothing.
    let first = cluster.run(&["provision", "--all"]);
    first.ends_with(0);
    for node in all {
        assert!(cluster.is_ready(node), "{node}");
    }
    let (server, storage) = (cluster.node("s"), cluster.node("a"));
    assert_eq!(server["metadata"]["labels"]["server-no-schedule"], "true");
    assert_eq!(storage["metadata"]["labels"]["datahub.local/role"], "storage");
    let taints = |node: &serde_json::Value| node["spec"]["taints"].to_string();
    assert!(taints(&server).contains("server-no-schedule") && taints(&storage).contains("PreferNoSchedule"));

    // Nothing to do: nothing is restarted.
    let before = cluster.started_all();
    let second = cluster.run(&["provision", "--all"]);
    second.ends_with(0);
    for node in all {
        second.finished(node, 0, 0);
    }
    assert_eq!(cluster.started_all(), before, "{}", second.text);

    a_label_is_mended(&cluster);
    a_setting_restarts_its_nodes_only(&cluster);
    no_secret_is_where_it_should_not_be(&cluster, &first.text);
    it_is_looked_at(&cluster);
    it_is_cared_for(&cluster);
    it_goes_back_to_a_backup(&cluster);
    a_node_leaves_and_comes_back(&cluster);
    nothing_stays_of_it(&cluster);
}

fn a_label_is_mended(cluster: &Cluster) {
    let started = cluster.started_all();
    let none = r#"{"metadata":{"labels":{"datahub.local/role":null}}}"#;
    cluster.lab.sh("s", "command -v curl >/dev/null || apt-get install -y -qq curl >/dev/null 2>&1");
    cluster.request("PATCH", "/api/v1/nodes/a", "application/merge-patch+json", none);
    let dry = cluster.run(&["provision", "--all", "--dry-run", "--detailed-exitcode"]);
    dry.ends_with(2);
    assert_eq!(dry.resources("differs", "a"), ["kube_node a"], "{}", dry.text);
    cluster.run(&["provision", "--all"]).ends_with(0).finished("a", 1, 0).finished("b", 0, 0);
    assert_eq!(cluster.node("a")["metadata"]["labels"]["datahub.local/role"], "storage");
    assert_eq!(cluster.started_all(), started);
}

fn a_setting_restarts_its_nodes_only(cluster: &Cluster) {
    let [server, a, b] = ["s", "a", "b"].map(|node| cluster.started(node));
    cluster.describe(NEW, "vars.k3s_kubelet = { shutdownGracePeriod = \"45s\" }");
    let run = cluster.run(&["provision", "--all"]);
    run.ends_with(0);
    run.finished("s", 0, 0).finished("a", 1, 1).finished("b", 1, 1);
    assert_eq!(cluster.started("s"), server);
    assert!(cluster.started("a") != a && cluster.started("b") != b);
    // One after another: the second was stopped when the first was back. The machines of a lab share a clock.
    let mut restarts = ["a", "b"].map(|node| {
        ["InactiveEnterTimestampMonotonic", "ActiveEnterTimestampMonotonic"].map(|moment| {
            let text = cluster.lab.sh(node, &format!("systemctl show -P {moment} k3s-agent"));
            text.parse::<u64>().expect("microseconds")
        })
    });
    restarts.sort();
    assert!(restarts[0][1] < restarts[1][0], "restarted together: {restarts:?}");
    for node in ["a", "b"] {
        assert!(cluster.is_ready(node) && cluster.node(node)["spec"]["unschedulable"] != true, "{node}");
    }
    cluster.run(&["provision", "--all"]).ends_with(0).finished("a", 0, 0).finished("b", 0, 0);
}

fn no_secret_is_where_it_should_not_be(cluster: &Cluster, printed: &str) {
    for node in ["s", "a", "b"] {
        cluster.lab.sh(node, "touch /root/stop-watching; sleep 0.5");
        assert_eq!(cluster.lab.sh(node, LEFT_BEHIND), "", "{node}");
    }
    let secrets = cluster.lab.sh("s", "cat /root/patterns");
    let outputs = [
        printed.to_owned(),
        cluster.says(&["provision", "--all", "--dry-run", "--verbose"]).1,
        cluster.says(&["plan", "--all", "--format", "markdown"]).1,
        cluster.says(&["facts", "--all", "--format", "json"]).1,
    ];
    for secret in secrets.lines() {
        assert!(secret.len() >= 32, "that is no secret: {secret}");
        assert!(!outputs.iter().any(|output| output.contains(secret)));
        let record = std::process::Command::new("grep")
            .args(["-rlF", secret])
            .arg(cluster.file("home"))
            .output()
            .expect("grep runs");
        assert!(record.stdout.is_empty(), "{}", String::from_utf8_lossy(&record.stdout));
    }
}

fn it_is_looked_at(cluster: &Cluster) {
    let table = cluster.succeeds(&["status"]);
    for word in ["s ", "a ", "b ", "Ready", NEW, "containerd", "none"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let written = cluster.succeeds(&["kubeconfig"]);
    assert!(written.contains("context rehearsal"), "{written}");
    let config = std::fs::read_to_string(cluster.file("home/.kube/config")).expect("written");
    assert!(
        config.contains(&cluster.lab.address("s")) && config.contains("current-context: rehearsal"),
        "{config}"
    );
    assert!(cluster.succeeds(&["kubeconfig"]).contains("up to date"));
}

fn it_is_cared_for(cluster: &Cluster) {
    // Not while a run changes the machine.
    let lock = "flock -n /run/datahub/run.lock sleep 600 >/dev/null 2>&1 & echo $!";
    let holder = cluster.lab.sh("s", &format!("printf '%s\\n' ada@desk r 1 >/run/datahub/owner; {lock}"));
    let (code, refused) = cluster.says(&["maintenance"]);
    assert!(code == Some(1) && refused.contains("another run is changing this node: ada@desk"), "{refused}");
    cluster.lab.sh("s", &format!("pkill -P {holder}; kill {holder}; true"));
    let said = cluster.succeeds(&["maintenance", "--prune-images"]);
    assert!(said.contains("the datastore went from"), "{said}");
    assert!(cluster.is_ready("s"));

    let boot = |node: &str| cluster.lab.sh(node, "cat /proc/sys/kernel/random/boot_id; uptime -s");
    let before = cluster.started("a");
    cluster.succeeds(&["reboot", "--node", "a"]);
    assert!(cluster.started("a") != before, "not rebooted: {}", boot("a"));
    assert!(cluster.is_ready("a") && cluster.node("a")["spec"]["unschedulable"] != true);
    let before = cluster.started_all();
    let said = cluster.succeeds(&["reboot", "--all", "--if-required"]);
    assert_eq!(cluster.started_all(), before, "{said}");
}

fn it_goes_back_to_a_backup(cluster: &Cluster) {
    let map =
        |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    let path = "/api/v1/namespaces/default/configmaps";
    cluster.request("POST", path, "application/json", &map("kept"));
    let said = cluster.succeeds(&["backup", "--to", "saved"]);
    let file =
        said.lines().find_map(|line| line.split_once(".tar.gz")).expect("a file").0.to_owned() + ".tar.gz";
    cluster.request("POST", path, "application/json", &map("later"));
    let (code, refused) = cluster.says(&["restore", &file]);
    assert_eq!(code, Some(64), "nobody can be asked: {refused}");
    cluster.lab.sh("s", "[ ! -e /var/lib/datahub/backups/.restore ]");
    cluster.succeeds(&["restore", &file, "--yes"]);
    // The old datastore is kept, with the tokens it is read with.
    cluster.lab.sh("s", "cd /var/lib/rancher/k3s/server && [ -s tokens.before-restore-*/token ] && [ -d db.before-restore-* ]");
    let left = cluster.lab.sh("s", "k3s kubectl get configmaps -o json");
    assert!(left.contains("\"kept\"") && !left.contains("\"later\""), "{left}");
    for node in ["s", "a", "b"] {
        assert!(cluster.is_ready(node), "{node}");
    }
    cluster.run(&["provision", "--all"]).ends_with(0).finished("s", 0, 0);
}

fn a_node_leaves_and_comes_back(cluster: &Cluster) {
    let (code, refused) = cluster.says(&["remove", "s", "--yes"]);
    assert!(code == Some(1) && refused.contains("the only server"), "{refused}");
    let (code, refused) = cluster.says(&["shutdown", "--all", "--last", "bb", "--yes"]);
    assert!(code == Some(64) && refused.contains("--last bb"), "{refused}");
    // A volume of K3s's own storage class has no other copy.
    cluster.lab.sh("b", "mkdir -p /var/lib/rancher/k3s/storage/pvc-1_default_photos");
    for command in [&["remove", "b", "--yes"][..], &["reset", "--yes"]] {
        let (code, refused) = cluster.says(command);
        assert!(code == Some(1) && refused.contains("pvc-1_default_photos"), "{refused}");
        assert!(cluster.is_ready("b") && cluster.node("b")["spec"]["unschedulable"] != true);
    }
    cluster.lab.sh("b", "rm -r /var/lib/rancher/k3s/storage");
    cluster.succeeds(&["remove", "b", "--yes"]);
    let nodes =
        cluster.lab.sh("s", "k3s kubectl get nodes -o json; k3s kubectl get secrets -n kube-system -o json");
    assert!(!nodes.contains("\"b\"") && !nodes.contains("b.node-password"), "{nodes}");
    assert_eq!(
        cluster.lab.sh("b", "ls -d /etc/rancher/k3s /var/lib/rancher /usr/local/bin/k3s 2>/dev/null; true"),
        "/var/lib/rancher"
    );
    cluster.run(&["provision", "--node", "b"]).ends_with(0);
    assert!(cluster.is_ready("b"));
}

fn nothing_stays_of_it(cluster: &Cluster) {
    let (code, refused) = cluster.says(&["reset"]);
    assert_eq!(code, Some(64), "nobody can be asked: {refused}");
    cluster.succeeds(&["reset", "--yes"]);
    for node in ["s", "a", "b"] {
        let left = cluster.lab.sh(
            node,
            "ls -d /etc/rancher /var/lib/rancher/k3s /var/lib/kubelet /usr/local/bin/* /etc/systemd/system/k3s* 2>/dev/null; \
             systemctl list-units --all --no-legend 'k3s*'; true",
        );
        assert_eq!(left, "", "{node}");
    }
    cluster.run(&["provision", "--all"]).ends_with(0);
    assert!(cluster.is_ready("a"), "a cluster can be made anew");
}
