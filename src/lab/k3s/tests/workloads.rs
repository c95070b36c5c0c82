//! Workloads: rollouts, drains, jobs.

use hyper::Method;
use serde_json::{Value, json};

use super::VERSION;
use crate::lab::k3s::client::Client;
use crate::lab::k3s::object;
use crate::lab::k3s::testing::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn is_complete(seen: &Value, replicas: i64) -> bool {
    let status = &seen["status"];
    status["observedGeneration"] == seen["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
            .iter()
            .all(|field| status[*field] == replicas)
        && object::condition(seen, "Progressing") == Some("True")
}

/// The names of the nodes the pods of an app run on.
async fn places(client: &Client, app: &str) -> Vec<String> {
    let pods = get(client, &format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{app}")).await;
    let mut found: Vec<String> = object::items(&pods["items"])
        .iter()
        .filter(|pod| !object::is_going(pod))
        .map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn deployments_roll_out_and_stuck_ones_show_it() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let one = format!("{DEPLOYMENTS}/web");
    apply(&client, &one, "datahub", false, deployment("web", 3, "web:1")).await;
    until(&client, &one, |seen| is_complete(seen, 3)).await;
    apply(&client, &one, "datahub", false, deployment("web", 3, "web:2")).await;
    let rolled = until(&client, &one, |seen| is_complete(seen, 3)).await;
    assert_eq!(rolled["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    apply(&client, &one, "datahub", false, deployment("web", 1, "web:2")).await;
    until(&client, &one, |seen| is_complete(seen, 1)).await;

    let mut stuck = deployment("web", 1, "web:never-ready");
    stuck["spec"]["progressDeadlineSeconds"] = json!(1);
    apply(&client, &one, "datahub", false, stuck).await;
    let late = until(&client, &one, |seen| object::condition(seen, "Progressing") == Some("False")).await;
    assert_eq!(late["status"]["availableReplicas"], 1, "the old pod stays");
    send(&client, Method::DELETE, &one, json!({})).await;
    until(&client, "/api/v1/namespaces/default/pods", |seen| object::items(&seen["items"]).is_empty()).await;
}

#[tokio::test]
async fn drained_nodes_lose_their_pods_as_budgets_allow() {
    let (first, second) = (Machine::new(VERSION), Machine::new(VERSION));
    let running = first.server("one", &["--token", "secret"]).await.expect("started");
    let client = first.client();
    let agent = second.agent("two", &url(&running), "secret", &[]);
    for name in ["one", "two"] {
        until(&client, &format!("/api/v1/nodes/{name}"), object::is_ready).await;
    }
    let web = format!("{DEPLOYMENTS}/web");
    apply(&client, &web, "datahub", false, deployment("web", 2, "web:1")).await;
    until(&client, &web, |seen| is_complete(seen, 2)).await;
    let agents = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agents", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "agents"}},
            "template": {
                "metadata": {"labels": {"app": "agents"}}, "spec": {"containers": [{"name": "main", "image": "a"}]},
            },
        },
    });
    let set = "/apis/apps/v1/namespaces/default/daemonsets/agents";
    apply(&client, set, "datahub", false, agents).await;
    until(&client, set, |seen| {
        seen["status"]["numberReady"] == 2 && seen["status"]["desiredNumberScheduled"] == 2
    })
    .await;

    let budget = |least: i64| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "web"}}},
        })
    };
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web";
    apply(&client, path, "datahub", false, budget(2)).await;
    merge(&client, "/api/v1/nodes/two", json!({"spec": {"unschedulable": true}})).await;
    let pods = get(&client, "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb").await;
    let name = object::name(&pods["items"][0]).to_owned();
    let evict = format!("/api/v1/namespaces/default/pods/{name}/eviction");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let refused = send(&client, Method::POST, &evict, eviction.clone()).await;
    assert_eq!((refused.code, refused.value()["reason"].clone()), (429, json!("TooManyRequests")));
    apply(&client, path, "datahub", false, budget(1)).await;
    until(&client, path, |seen| seen["status"]["disruptionsAllowed"] == 1).await;
    for pod in object::items(&pods["items"]).iter().filter(|pod| pod["spec"]["nodeName"] == "two") {
        let path = format!("/api/v1/namespaces/default/pods/{}/eviction", object::name(pod));
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": object::name(pod)}});
        assert_eq!(send(&client, Method::POST, &path, eviction).await.code, 201);
        until(&client, "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb", |seen| {
            let pods = object::items(&seen["items"]);
            pods.len() == 2
                && pods
                    .iter()
                    .all(|other| object::name(other) != object::name(pod) && object::is_ready(other))
        })
        .await;
    }
    assert_eq!(places(&client, "web").await, ["one", "one"]);
    assert_eq!(places(&client, "agents").await, ["one", "two"], "a DaemonSet's pods stay");
    agent.abort();
}

#[tokio::test]
async fn pods_of_a_lost_node_are_replaced() {
    let (first, second) = (Machine::new(VERSION), Machine::new(VERSION));
    let running = first
        .server("one", &["--token", "secret", "--node-taint", "only=me:NoSchedule"])
        .await
        .expect("started");
    let client = first.client();
    let agent = second.agent("two", &url(&running), "secret", &[]);
    until(&client, "/api/v1/nodes/two", object::is_ready).await;
    let web = format!("{DEPLOYMENTS}/web");
    let mut wanted = deployment("web", 1, "web:1");
    wanted["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "only", "operator": "Exists"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
    ]);
    wanted["spec"]["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "linux"});
    merge(&client, "/api/v1/nodes/one", json!({"spec": {"unschedulable": true}})).await;
    until(&client, "/api/v1/nodes/one", |node| node["spec"]["taints"].to_string().contains("unschedulable"))
        .await;
    apply(&client, &web, "datahub", false, wanted).await;
    until(&client, &web, |seen| is_complete(seen, 1)).await;
    assert_eq!(places(&client, "web").await, ["two"]);
    merge(&client, "/api/v1/nodes/one", json!({"spec": {"unschedulable": null}})).await;
    agent.abort();
    until(&client, &web, |seen| seen["status"]["readyReplicas"] == 0).await;
    until(&client, &web, |seen| seen["status"]["readyReplicas"] == 1).await;
    assert_eq!(places(&client, "web").await, ["one"]);
}

#[tokio::test]
async fn jobs_complete() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": "default"},
        "spec": {"completions": 2, "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "job:1"}]},
        }},
    });
    let path = "/apis/batch/v1/namespaces/default/jobs/once";
    apply(&client, path, "datahub", false, job).await;
    let done = until(&client, path, |seen| object::condition(seen, "Complete") == Some("True")).await;
    assert_eq!(done["status"]["succeeded"], 2);
}

#[tokio::test]
async fn stateful_sets_count_their_pods() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let set = |image: &str| {
        let mut set = deployment("db", 2, image);
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!("db");
        set
    };
    let path = "/apis/apps/v1/namespaces/default/statefulsets/db";
    apply(&client, path, "datahub", false, set("db:1")).await;
    let done = |seen: &Value| {
        seen["status"]["readyReplicas"] == 2
            && seen["status"]["updatedReplicas"] == 2
            && seen["status"]["currentRevision"] == seen["status"]["updateRevision"]
            && seen["status"]["observedGeneration"] == seen["metadata"]["generation"]
    };
    let first = until(&client, path, done).await;
    apply(&client, path, "datahub", false, set("db:2")).await;
    let second = until(&client, path, |seen| done(seen) && seen["metadata"]["generation"] == 2).await;
    assert_ne!(first["status"]["currentRevision"], second["status"]["currentRevision"]);
    let pod = get(&client, "/api/v1/namespaces/default/pods/db-1").await;
    assert_eq!(pod["spec"]["containers"][0]["image"], "db:2");
}
