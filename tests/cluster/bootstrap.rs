//! The cluster's components: what is changed by hand is mended, what fails says what is at fault, and a run that is cut
//! off goes on. Charts and applications are the simulation's, or real where K3s is.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, NEW};

/// A cluster whose components are these.
fn with_components(cluster: &Cluster, components: &[&str], vars: &str) {
    cluster.describe(NEW, "");
    let text = std::fs::read_to_string(cluster.file("datahub.toml")).expect("there");
    let names: Vec<String> = components.iter().map(|name| format!("{name:?}")).collect();
    let list = format!("name = \"rehearsal\"\ncomponents = [{}]\nvars = {{ {vars} }}", names.join(", "));
    cluster.lab.write("datahub.toml", &text.replace("name = \"rehearsal\"", &list));
    cluster.lab.sh("s", "command -v curl || { apt-get update -qq && apt-get install -y -qq curl; }");
}

/// A rule of the simulation: what is to go wrong.
fn rule(cluster: &Cluster, lever: &str, rule: &str) {
    cluster
        .lab
        .sh("s", &format!("mkdir -p /etc/datahub-lab.d; echo '{rule}' >/etc/datahub-lab.d/{lever}; sleep 2"));
}

fn no_rules(cluster: &Cluster) {
    cluster.lab.sh("s", "rm -rf /etc/datahub-lab.d; sleep 2");
}

/// A part of each of the objects that there are.
fn each(cluster: &Cluster, what: &str, pointer: &str) -> Vec<Value> {
    let list = cluster.get(what);
    let items = list["items"].as_array().expect("a list").iter();
    items.map(|item| item.pointer(pointer).cloned().unwrap_or_default()).collect()
}

const CORE: &str = "gitops_core = { url = \"https://git.home.arpa/core.git\" }, gitops_core_parts = { common = \"kube-system\", data = \"data\" }";

#[test]
fn components_are_kept_as_the_inventory_says() {
    let Some(cluster) = Cluster::new("components_are_kept_as_the_inventory_says", NEW) else { return };
    let all = ["cert-manager", "reloader", "traefik", "dex", "oauth2-proxy", "argo-cd", "gitops"];
    with_components(&cluster, &all, CORE);
    cluster.run(&["bootstrap", "--all"]).ends_with(0);

    // A second run, and a dry run, find nothing; nothing is restarted.
    let before = cluster.started_all();
    let charts = || each(&cluster, "helmcharts -n kube-system", "/metadata/generation");
    let pods = || each(&cluster, "pods -A", "/metadata/uid");
    let (generations, uids) = (charts(), pods());
    let second = cluster.run(&["bootstrap", "--all"]);
    second.ends_with(0);
    for node in ["s", "a", "b"] {
        second.finished(node, 0, 0);
    }
    cluster.run(&["bootstrap", "--all", "--dry-run", "--detailed-exitcode"]).ends_with(0);
    assert_eq!((before, generations, uids), (cluster.started_all(), charts(), pods()));

    // Changed by hand: found, each by its name, and mended; nothing else is touched.
    let merge = "application/merge-patch+json";
    let chart = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/reloader";
    cluster.request("PATCH", chart, merge, r#"{"spec":{"version":"1.0.0"}}"#);
    let secret = "/api/v1/namespaces/security/secrets/oauth2-proxy";
    cluster.request("PATCH", secret, merge, r#"{"data":{"client-id":"b3RoZXI="}}"#);
    let project = "/apis/argoproj.io/v1alpha1/namespaces/automation/appprojects/namespace-data";
    cluster.request("DELETE", project, merge, "{}");
    let drift = [
        "helm_chart kube-system/reloader",
        "kube_secret security/oauth2-proxy",
        "kube_object AppProject automation/namespace-data",
    ];
    let found = cluster.run(&["bootstrap", "--all", "--dry-run", "--detailed-exitcode"]);
    found.ends_with(2);
    assert_eq!(found.resources("differs", "s"), drift, "{}", found.text);
    let cookie = || cluster.get("secret -n security oauth2-proxy")["data"]["cookie-secret"].clone();
    let kept = cookie();
    cluster.run(&["bootstrap", "--all"]).ends_with(0).finished("s", 3, 0);
    assert_eq!(cluster.get("helmchart -n kube-system reloader")["spec"]["version"], "2.2.16");
    assert_eq!((kept.is_string(), cookie()), (true, kept.clone()), "made up once");

    // One component only: the nodes are left alone.
    cluster.request("DELETE", project, merge, "{}");
    cluster.run(&["bootstrap", "--only", "reloader"]).ends_with(0).finished("s", 0, 0);
    let only = cluster.run(&["bootstrap", "--only", "argo-cd"]);
    only.ends_with(0).finished("s", 1, 0);
    assert_eq!(only.of("node-finished").count(), 1, "{}", only.text);

    // No value of a Secret stands in anything that was printed or noted.
    let kept = kept.as_str().expect("text");
    assert!(!found.text.contains(kept) && !only.text.contains(kept));
}

#[test]
fn what_fails_says_what_is_at_fault() {
    let Some(cluster) = Cluster::new("what_fails_says_what_is_at_fault", NEW) else { return };
    let all = ["reloader", "external-secrets", "argo-cd", "gitops"];
    with_components(&cluster, &all, &format!("component_timeout = 300, {CORE}"));
    cluster.run(&["provision", "--all"]).ends_with(0);
    let fails = |set: &[&str], resource: &str, wanted: &[&str]| {
        let run = cluster.run(&[&["bootstrap", "--all"], set].concat());
        run.ends_with(1);
        let failure = run.failure("s");
        assert_eq!(failure["resource"], resource, "{}", run.text);
        for text in wanted {
            assert!(failure.to_string().contains(text), "{text}: {failure:#}");
        }
    };

    // A chart that cannot be fetched, and one that fails half-way; mended, the next run goes on.
    for lever in ["k3s-chart-unavailable", "k3s-chart-fails"] {
        rule(&cluster, lever, "reloader the repository is on fire");
        fails(&[], "helm_chart kube-system/reloader", &["has failed", "the repository is on fire"]);
        no_rules(&cluster);
        cluster.run(&["bootstrap", "--only", "reloader"]).ends_with(0);
        cluster.request(
            "DELETE",
            "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/reloader",
            "application/json",
            "{}",
        );
        cluster.lab.sh(
            "s",
            "while k3s kubectl get helmchart -n kube-system reloader 2>/dev/null; do sleep 0.2; done",
        );
    }

    // A definition that never comes.
    rule(&cluster, "k3s-definition-missing", "secretstores.external-secrets.io");
    let missing = ["secretstores.external-secrets.io was not established within 15 s"];
    fails(&["--set", "component_timeout=15"], "helm_chart security/external-secrets", &missing);
    no_rules(&cluster);

    // An application whose manifests cannot be made, and one with a resource that does not work.
    rule(&cluster, "argocd-comparison-error", "datahub-local-core-data no such path");
    let core = "kube_object ApplicationSet automation/datahub-local-core";
    fails(&[], core, &["datahub-local-core-data", "ComparisonError", "no such path"]);
    no_rules(&cluster);
    rule(&cluster, "argocd-degraded", "datahub-local-core-data Deployment/trino 0 of 1 pods are there");
    fails(&[], core, &["datahub-local-core-data", "Deployment", "trino", "0 of 1 pods are there"]);
    let (code, table) = cluster.says(&["status"]);
    assert!(code == Some(1) && table.contains("0 of 1 pods are there"), "{table}");
    no_rules(&cluster);
    cluster.run(&["bootstrap", "--all"]).ends_with(0);
    cluster.succeeds(&["status"]);
}

/// What happens to the run while it goes on.
enum Blow {
    /// The API server restarts.
    Restart,
    /// Every SSH session to the server ends.
    Drop,
    /// datahub itself is killed.
    Kill,
}

#[test]
fn a_run_that_is_disturbed_goes_on() {
    let Some(cluster) = Cluster::new("a_run_that_is_disturbed_goes_on", NEW) else { return };
    with_components(&cluster, &["reflector", "reloader", "snapshot-controller", "external-secrets"], "");
    cluster.run(&["provision", "--all"]).ends_with(0);
    let charts = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts";
    for (blow, component) in
        [(Blow::Restart, "reflector"), (Blow::Drop, "reloader"), (Blow::Kill, "snapshot-controller")]
    {
        // Held up, so that the blow falls into the middle of a watch.
        rule(&cluster, "k3s-definition-missing", "secretstores.external-secrets.io");
        let only = format!("{component},external-secrets");
        let mut command = cluster.command(&["bootstrap", "--only", &only]);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let begun = Instant::now();
        while !cluster
            .lab
            .sh("s", "k3s kubectl get helmcharts -n kube-system -o name")
            .contains("external-secrets")
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never came so far");
            std::thread::sleep(Duration::from_millis(200));
        }
        match blow {
            Blow::Restart => drop(cluster.lab.sh("s", "systemctl restart k3s")),
            Blow::Drop => drop(cluster.lab.sh("s", "pkill -KILL -u ops sshd")),
            Blow::Kill => {
                rustix::process::kill_process(
                    rustix::process::Pid::from_child(&run),
                    rustix::process::Signal::KILL,
                )
                .expect("it runs");
            }
        }
        std::thread::sleep(Duration::from_secs(2));
        no_rules(&cluster);
        let output = run.wait_with_output().expect("it ends");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        match blow {
            Blow::Kill => assert!(!output.status.success()),
            _ => assert!(output.status.success(), "{component}: {said}"),
        }
        cluster.run(&["bootstrap", "--only", &only]).ends_with(0);
        let again = cluster.run(&["bootstrap", "--only", &only]);
        again.ends_with(0).finished("s", 0, 0);
        cluster.request("DELETE", &format!("{charts}/external-secrets"), "application/json", "{}");
        // Its definitions go with it.
        cluster.lab.sh(
            "s",
            "while k3s kubectl get crd secretstores.external-secrets.io 2>/dev/null; do sleep 0.2; done",
        );
    }
}
