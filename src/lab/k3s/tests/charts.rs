//! Charts: what K3s's Helm controller and klipper-helm make of them, and how they fail.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use serde_json::{Value, json};

use super::VERSION;
use crate::lab::k3s::client::Client;
use crate::lab::k3s::testing::*;
use crate::lab::k3s::{levers, object};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn chart_path(name: &str) -> String {
    format!("/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/{name}")
}

fn job_path(name: &str) -> String {
    format!("/apis/batch/v1/namespaces/kube-system/jobs/helm-install-{name}")
}

fn release_path(namespace: &str, name: &str, number: u32) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.{name}.v{number}")
}

/// A HelmChart as `datahub bootstrap` makes one.
fn chart(name: &str, namespace: &str, more: Value) -> Value {
    let mut chart = json!({
        "apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {
            "chart": name, "version": "1.0.0", "repo": "https://charts.home.arpa", "targetNamespace": namespace,
            "createNamespace": true, "failurePolicy": "abort", "backOffLimit": 1,
        },
    });
    object::as_map(&mut chart["spec"]).extend(object::as_map(&mut more.clone()).clone());
    chart
}

async fn put(client: &Client, chart: Value) {
    let path = chart_path(object::name(&chart));
    let answer = apply(client, &path, "datahub", true, chart).await;
    assert!(answer.is_success(), "{}", answer.text());
}

/// Waits for a revision of a release.
async fn released(client: &Client, namespace: &str, name: &str, number: u32) -> Value {
    let path = release_path(namespace, name, number);
    until(client, &path, |seen| object::label(seen, "status") == Some("deployed")).await
}

/// `Failed` of a chart and its message.
fn failed(chart: &Value) -> (Option<&str>, &str) {
    let conditions = object::items(&chart["status"]["conditions"]);
    let found = conditions.iter().find(|condition| condition["type"] == "Failed");
    let message = found.and_then(|found| found["message"].as_str()).unwrap_or_default();
    (object::condition(chart, "Failed"), message)
}

fn is_rolled_out(seen: &Value) -> bool {
    let status = &seen["status"];
    let (wanted, ready) = match seen["kind"].as_str() {
        Some("DaemonSet") => (&status["desiredNumberScheduled"], &status["numberReady"]),
        _ => (&seen["spec"]["replicas"], &status["readyReplicas"]),
    };
    status["observedGeneration"] == seen["metadata"]["generation"] && wanted == ready
}

#[tokio::test]
async fn every_component_comes_up_quickly_and_a_second_time_changes_nothing() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &["--disable", "traefik"]).await.expect("started");
    let client = machine.client();
    let daemon_set = json!({"values": {"deployment": {"kind": "DaemonSet"}}});
    // Chart, namespace, values, what to wait for.
    let components = [
        (
            "cert-manager",
            "security",
            json!({"values": {"crds": {"enabled": true}}}),
            "deployments/cert-manager-webhook",
        ),
        ("external-dns", "kube-system", json!({}), "deployments/external-dns"),
        ("reflector", "kube-system", json!({}), "deployments/reflector"),
        ("reloader", "kube-system", json!({}), "deployments/reloader-reloader"),
        ("traefik", "kube-system", daemon_set, "daemonsets/traefik"),
        ("dex", "security", json!({}), "deployments/dex"),
        ("oauth2-proxy", "security", json!({}), "deployments/oauth2-proxy"),
        ("external-secrets", "security", json!({}), "deployments/external-secrets-cert-controller"),
        ("longhorn", "kube-system", json!({}), "daemonsets/longhorn-manager"),
        ("snapshot-controller", "kube-system", json!({}), "deployments/snapshot-controller"),
        (
            "nfs-subdir-external-provisioner",
            "kube-system",
            json!({}),
            "deployments/nfs-subdir-external-provisioner",
        ),
        ("argo-cd", "automation", json!({}), "statefulsets/argo-cd-argocd-application-controller"),
        ("nvidia-device-plugin", "kube-system", json!({}), "daemonsets/nvidia-device-plugin"),
    ];
    let start = Instant::now();
    for (name, namespace, more, _) in &components {
        put(&client, chart(name, namespace, more.clone())).await;
    }
    let mut versions = Vec::new();
    for (name, namespace, _, workload) in &components {
        released(&client, namespace, name, 1).await;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/{workload}");
        let seen = until(&client, &path, is_rolled_out).await;
        assert_eq!(object::annotation(&seen, "meta.helm.sh/release-name"), Some(*name));
        assert_eq!(object::annotation(&seen, "meta.helm.sh/release-namespace"), Some(*namespace));
        assert_eq!(object::label(&seen, "app.kubernetes.io/managed-by"), Some("Helm"));
        versions.push((path, seen["metadata"]["generation"].clone()));
    }
    for name in [
        "certificates.cert-manager.io",
        "middlewares.traefik.io",
        "externalsecrets.external-secrets.io",
        "volumes.longhorn.io",
        "volumesnapshots.snapshot.storage.k8s.io",
        "applications.argoproj.io",
    ] {
        let established = |seen: &Value| object::condition(seen, "Established") == Some("True");
        until(&client, &format!("{DEFINITIONS}/{name}"), established).await;
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let plain = get(&client, &format!("{DEFINITIONS}/middlewares.traefik.io")).await;
    assert_eq!(plain["metadata"]["labels"], Value::Null, "definitions of a chart's crds/ carry no marks");
    assert_eq!(get(&client, "/apis/longhorn.io/v1beta2/volumes").await["kind"], "VolumeList");

    for (name, namespace, more, _) in &components {
        put(&client, chart(name, namespace, more.clone())).await;
    }
    // Longer than the controllers rest.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (path, generation) in versions {
        assert_eq!(get(&client, &path).await["metadata"]["generation"], generation, "{path}");
    }
    for (name, namespace, ..) in &components {
        assert_eq!(get(&client, &release_path(namespace, name, 2)).await["code"], 404, "{name}");
    }
}

#[tokio::test]
async fn a_release_is_recorded_upgraded_and_removed() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let path = chart_path("external-secrets");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "more", "namespace": "kube-system"},
        "stringData": {"values.yaml": "webhook: {replicaCount: 2}"},
    });
    let with = |version: &str| {
        let secrets = json!([{"name": "more", "keys": ["values.yaml"]}]);
        chart(
            "external-secrets",
            "security",
            json!({"version": version, "valuesContent": "replicaCount: 3\n", "valuesSecrets": secrets}),
        )
    };
    put(&client, with("2.8.0")).await;
    let seen =
        until(&client, &path, |seen| seen["status"]["jobName"] == "helm-install-external-secrets").await;
    assert_eq!(object::annotation(&seen, "helmcharts.cattle.io/managed-by"), Some("helm-controller"));
    let message = "Applying HelmChart using Job kube-system/helm-install-external-secrets";
    let created =
        json!({"type": "JobCreated", "status": "True", "reason": "Job created", "message": message});
    assert_eq!(seen["status"]["conditions"], json!([created, {"type": "Failed", "status": "False"}]));

    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=job-name%3Dhelm-install-external-secrets";
    until(&client, pods, |seen| {
        let state = &seen["items"][0]["status"]["containerStatuses"][0]["state"]["waiting"];
        state["message"].as_str().is_some_and(|text| text.ends_with("secret \"more\" not found"))
    })
    .await;
    send(&client, Method::POST, "/api/v1/namespaces/kube-system/secrets", secret).await;
    let first = released(&client, "security", "external-secrets", 1).await;
    let hash = object::label(&first, "helmcharts.helm.cattle.io/configHash").expect("a hash").to_owned();
    assert_eq!((hash.len(), object::label(&first, "owner")), (63, Some("helm")));
    let gzip =
        BASE64.decode(BASE64.decode(first["data"]["release"].as_str().expect("text")).expect("base64"));
    assert!(gzip.expect("base64 twice").starts_with(&[0x1f, 0x8b]));
    let workload = "/apis/apps/v1/namespaces/security/deployments/external-secrets";
    let seen = until(&client, workload, is_rolled_out).await;
    assert_eq!(seen["spec"]["replicas"], 3);
    assert_eq!(get(&client, &format!("{workload}-webhook")).await["spec"]["replicas"], 2);
    until(&client, &job_path("external-secrets"), |job| object::condition(job, "Complete") == Some("True"))
        .await;

    put(&client, with("2.9.0")).await;
    released(&client, "security", "external-secrets", 2).await;
    let old = get(&client, &release_path("security", "external-secrets", 1)).await;
    assert_eq!(object::label(&old, "status"), Some("superseded"));
    until(&client, workload, |seen| {
        object::label(seen, "helm.sh/chart") == Some("external-secrets-2.9.0") && is_rolled_out(seen)
    })
    .await;

    let more = "/api/v1/namespaces/kube-system/secrets/more";
    merge(&client, more, json!({"stringData": {"values.yaml": "webhook: {create: false}"}})).await;
    released(&client, "security", "external-secrets", 3).await;
    until(&client, &format!("{workload}-webhook"), |seen| seen["code"] == 404).await;

    // What somebody deletes by hand comes back only with the next upgrade.
    send(&client, Method::DELETE, workload, json!({})).await;
    let config = json!({
        "apiVersion": "helm.cattle.io/v1", "kind": "HelmChartConfig",
        "metadata": {"name": "external-secrets", "namespace": "kube-system"}, "spec": {"valuesContent": "replicaCount: 1"},
    });
    send(&client, Method::POST, "/apis/helm.cattle.io/v1/namespaces/kube-system/helmchartconfigs", config)
        .await;
    released(&client, "security", "external-secrets", 4).await;
    assert_eq!(until(&client, workload, is_rolled_out).await["spec"]["replicas"], 1);

    send(&client, Method::DELETE, &path, json!({})).await;
    until(&client, &path, |seen| seen["code"] == 404).await;
    for gone in [
        release_path("security", "external-secrets", 4),
        workload.to_owned(),
        format!("{DEFINITIONS}/externalsecrets.external-secrets.io"),
        job_path("external-secrets"),
    ] {
        until(&client, &gone, |seen| seen["code"] == 404).await;
    }
}

#[tokio::test]
async fn definitions_are_kept_where_the_chart_says_so() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let kept = json!({"values": {"crds": {"enabled": true}}});
    put(&client, chart("cert-manager", "security", kept)).await;
    put(&client, chart("external-dns", "kube-system", json!({}))).await;
    put(&client, chart("nobody-knows", "default", json!({}))).await;
    for (namespace, name) in
        [("security", "cert-manager"), ("kube-system", "external-dns"), ("default", "nobody-knows")]
    {
        released(&client, namespace, name, 1).await;
    }
    let unknown = "/apis/apps/v1/namespaces/default/deployments/nobody-knows";
    until(&client, unknown, is_rolled_out).await;
    for name in ["cert-manager", "external-dns", "nobody-knows"] {
        send(&client, Method::DELETE, &chart_path(name), json!({})).await;
        until(&client, &chart_path(name), |seen| seen["code"] == 404).await;
    }
    until(&client, unknown, |seen| seen["code"] == 404).await;
    for name in ["issuers.cert-manager.io", "dnsendpoints.externaldns.k8s.io"] {
        let seen = get(&client, &format!("{DEFINITIONS}/{name}")).await;
        assert_eq!(object::condition(&seen, "Established"), Some("True"), "{name}");
    }
    put(&client, chart("cert-manager", "security", json!({"version": "1.1.0"}))).await;
    released(&client, "security", "cert-manager", 1).await;
}

#[tokio::test]
async fn a_chart_that_cannot_be_fetched_fails_until_it_is_asked_for_anew() {
    let machine = Machine::new(VERSION);
    machine.write(levers::CHART_UNAVAILABLE, "dex no such host\n");
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let (path, job) = (chart_path("dex"), job_path("dex"));
    put(&client, chart("dex", "security", json!({}))).await;
    let seen = until(&client, &path, |seen| failed(seen).0 == Some("True")).await;
    assert_eq!(failed(&seen).1, "Job has reached configured number of retries without succeeding");
    let seen = get(&client, &job).await;
    assert_eq!((object::condition(&seen, "Failed"), &seen["status"]["failed"]), (Some("True"), &json!(1)));
    assert_eq!(seen["status"]["conditions"][1]["reason"], "BackoffLimitExceeded");
    let releases = get(&client, "/api/v1/secrets?labelSelector=owner%3Dhelm%2Cname%3Ddex").await;
    assert_eq!(releases["items"], json!([]));

    std::fs::remove_file(machine.settings.path(levers::CHART_UNAVAILABLE)).expect("removed");
    put(&client, chart("dex", "security", json!({"backOffLimit": 100}))).await;
    until(&client, &path, |seen| failed(seen).0 == Some("False")).await;
    released(&client, "security", "dex", 1).await;

    // One that is still being tried gets well of itself.
    machine.write(levers::CHART_UNAVAILABLE, "dex\n");
    put(&client, chart("dex", "security", json!({"backOffLimit": 100, "version": "1.1.0"}))).await;
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=job-name%3Dhelm-install-dex";
    until(&client, pods, |seen| {
        let last = &seen["items"][0]["status"]["containerStatuses"][0]["lastState"]["terminated"];
        last["message"].as_str().is_some_and(|text| text.starts_with("Error: UPGRADE FAILED: "))
    })
    .await;
    std::fs::remove_file(machine.settings.path(levers::CHART_UNAVAILABLE)).expect("removed");
    released(&client, "security", "dex", 2).await;
    assert_eq!(failed(&get(&client, &path).await).0, Some("False"));
}

#[tokio::test]
async fn a_failed_release_is_left_alone_under_abort() {
    let machine = Machine::new(VERSION);
    machine.write(levers::CHART_FAILS, "d* hook failed\n");
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    put(&client, chart("dex", "security", json!({}))).await;
    let release = release_path("security", "dex", 1);
    until(&client, &release, |seen| object::label(seen, "status") == Some("failed")).await;
    until(&client, &chart_path("dex"), |seen| failed(seen).0 == Some("True")).await;
    std::fs::remove_file(machine.settings.path(levers::CHART_FAILS)).expect("removed");

    put(&client, chart("dex", "security", json!({"version": "1.1.0", "backOffLimit": 2}))).await;
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=job-name%3Dhelm-install-dex";
    until(&client, pods, |seen| {
        let last = &seen["items"][0]["status"]["containerStatuses"][0]["lastState"]["terminated"];
        last["message"].as_str().is_some_and(|text| text.ends_with("waiting for operator intervention"))
    })
    .await;
    until(&client, &chart_path("dex"), |seen| failed(seen).0 == Some("True")).await;
    let retry = json!({"version": "1.1.0", "backOffLimit": 2, "failurePolicy": "retry"});
    put(&client, chart("dex", "security", retry)).await;
    released(&client, "security", "dex", 2).await;
    until(&client, "/apis/apps/v1/namespaces/security/deployments/dex", is_rolled_out).await;
}

#[tokio::test]
async fn definitions_can_be_missing_or_never_established() {
    let machine = Machine::new(VERSION);
    machine.write(levers::DEFINITION_MISSING, "orders.*\n");
    machine.write(levers::DEFINITION_UNESTABLISHED, "challenges.acme.cert-manager.io\n");
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    put(&client, chart("cert-manager", "security", json!({"set": {"installCRDs": "true"}}))).await;
    let established = |seen: &Value| object::condition(seen, "Established") == Some("True");
    until(&client, &format!("{DEFINITIONS}/issuers.cert-manager.io"), established).await;
    let (missing, held) = (
        format!("{DEFINITIONS}/orders.acme.cert-manager.io"),
        format!("{DEFINITIONS}/challenges.acme.cert-manager.io"),
    );
    // Longer than the controllers rest.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(get(&client, &missing).await["code"], 404);
    let seen = get(&client, &held).await;
    assert_eq!(object::condition(&seen, "NamesAccepted"), Some("True"));
    assert_eq!(object::condition(&seen, "Established"), Some("False"));
    assert_eq!(get(&client, "/apis/acme.cert-manager.io/v1/challenges").await["code"], 404);
    for lever in [levers::DEFINITION_MISSING, levers::DEFINITION_UNESTABLISHED] {
        std::fs::remove_file(machine.settings.path(lever)).expect("removed");
    }
    until(&client, &missing, established).await;
    until(&client, &held, established).await;
    assert_eq!(get(&client, "/apis/acme.cert-manager.io/v1/challenges").await["kind"], "ChallengeList");
}

#[tokio::test]
async fn jobs_wait_for_a_node_and_for_their_namespace() {
    let machine = Machine::new(VERSION);
    let taint = ["--node-taint", "server-no-schedule=true:NoSchedule", "--disable", "traefik"];
    let running =
        machine.server("one", &[&taint[..], &["--token", "secret"]].concat()).await.expect("started");
    let client = machine.client();
    let nowhere = json!({"createNamespace": false, "backOffLimit": 0});
    put(&client, chart("dex", "nowhere", nowhere)).await;
    put(&client, chart("reflector", "kube-system", json!({}))).await;
    let theirs = chart("reloader", "kube-system", json!({}));
    let mut theirs = theirs;
    theirs["metadata"]["annotations"] = json!({"helmcharts.cattle.io/managed-by": "somebody"});
    put(&client, theirs).await;
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=job-name%3Dhelm-install-reflector";
    until(&client, pods, |seen| object::condition(&seen["items"][0], "PodScheduled") == Some("False")).await;
    assert_eq!(get(&client, &job_path("reloader")).await["code"], 404);

    let second = Machine::new(VERSION);
    let agent = second.agent("two", &url(&running), "secret", &[]);
    released(&client, "kube-system", "reflector", 1).await;
    until(&client, &chart_path("dex"), |seen| failed(seen).0 == Some("True")).await;
    agent.abort();
}
