//! The simulation as its clients see it: real HTTPS requests to servers and agents on this machine.

use hyper::Method;
use serde_json::json;

use super::client::{Call, Client};
use super::object;
use super::testing::*;

const VERSION: &str = "v1.36.3+k3s1";

#[tokio::test]
async fn a_server_serves_what_clients_ask_first() {
    let machine = Machine::new(VERSION);
    let running = machine.server("one", &["--tls-san", "cluster.home.arpa"]).await.expect("started");
    running.ready().await;
    let client = machine.client();
    let text = |path: &'static str| {
        let client = &client;
        async move { client.send(&Call::get(path)).await.expect("an answer").text() }
    };
    assert_eq!(text("/readyz").await, "ok");
    assert!(text("/readyz?verbose").await.ends_with("readyz check passed\n"));
    assert_eq!(get(&client, "/version").await["gitVersion"], VERSION);
    assert_eq!(text("/ping").await, "pong");
    assert!(get(&client, "/apis").await["groups"].as_array().expect("groups").len() > 10);
    assert_eq!(get(&client, "/apis/apps/v1").await["groupVersion"], "apps/v1");
    let stranger = Client::new(
        &url(&running),
        Some(&machine.read("/var/lib/rancher/k3s/server/tls/server-ca.crt")),
        None,
        "x",
    )
    .expect("a client");
    assert_eq!(stranger.send(&Call::get("/readyz")).await.expect("an answer").code, 401);
    assert_eq!(stranger.send(&Call::get("/cacerts")).await.expect("an answer").code, 200);
    let node = until(&client, "/api/v1/nodes/one", object::is_ready).await;
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], VERSION);
    assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "true");
    let token = machine.read("/var/lib/rancher/k3s/server/node-token");
    assert!(token.starts_with("K10") && token.contains("::server:"), "{token}");
}

#[tokio::test]
async fn objects_are_written_and_conflicts_are_told() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &["--disable-agent"]).await.expect("started");
    let client = machine.client();
    let all = "/api/v1/namespaces/default/configmaps";
    let one = "/api/v1/namespaces/default/configmaps/a";
    let map = |data: serde_json::Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});

    let dry = send(&client, Method::POST, &format!("{all}?dryRun=All"), map(json!({"x": "1"}))).await;
    assert_eq!(dry.code, 201);
    assert_eq!(get(&client, one).await["message"], "configmaps \"a\" not found");
    let created = send(&client, Method::POST, all, map(json!({"x": "1"}))).await;
    assert_eq!(created.code, 201);
    let again = send(&client, Method::POST, all, map(json!({}))).await;
    assert_eq!((again.code, again.value()["reason"].clone()), (409, json!("AlreadyExists")));

    let mut changed = created.value();
    changed["data"]["x"] = json!("2");
    assert_eq!(send(&client, Method::PUT, one, changed.clone()).await.code, 200);
    let stale = send(&client, Method::PUT, one, changed).await;
    assert_eq!((stale.code, stale.value()["reason"].clone()), (409, json!("Conflict")));

    let conflict = apply(&client, one, "datahub", false, map(json!({"x": "3"}))).await;
    assert_eq!(conflict.code, 409);
    let message = conflict.value()["message"].as_str().expect("a message").to_owned();
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"tests\" using v1: .data.x");
    assert_eq!(apply(&client, one, "datahub", true, map(json!({"x": "3", "y": "1"}))).await.code, 200);
    let before = get(&client, one).await["metadata"]["resourceVersion"].clone();
    let same = apply(&client, one, "datahub", false, map(json!({"x": "3", "y": "1"}))).await.value();
    assert_eq!(same["metadata"]["resourceVersion"], before, "the same configuration changes nothing");
    let less = apply(&client, one, "datahub", false, map(json!({"x": "3"}))).await.value();
    assert_eq!(less["data"], json!({"x": "3"}));
    assert_eq!(
        merge(&client, one, json!({"data": {"z": "1"}})).await.value()["data"],
        json!({"x": "3", "z": "1"})
    );

    let wrong = send(&client, Method::DELETE, one, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(wrong.code, 409);
    assert_eq!(send(&client, Method::DELETE, one, json!({})).await.code, 200);
    assert_eq!(send(&client, Method::DELETE, one, json!({})).await.code, 404);
    let lost = send(&client, Method::POST, "/api/v1/namespaces/gone/configmaps", map(json!({}))).await;
    assert_eq!(lost.value()["message"], "namespaces \"gone\" not found");
}
