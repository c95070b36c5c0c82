//! The API: what clients ask first, writing, applying, watching, definitions, namespaces.

use hyper::Method;
use serde_json::json;

use super::VERSION;
use crate::lab::k3s::client::{Call, Client};
use crate::lab::k3s::object;
use crate::lab::k3s::testing::*;

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

#[tokio::test]
async fn watches_tell_changes_and_when_they_are_too_old() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &["--disable-agent"]).await.expect("started");
    let client = machine.client();
    let all = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str, app: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": app}}});
    send(&client, Method::POST, all, map("first", "web")).await;
    let list = get(&client, &format!("{all}?labelSelector=app%3Dweb")).await;
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["items"].as_array().expect("items").len(), 1);
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();

    let path = format!("{all}?watch=true&labelSelector=app%3Dweb&resourceVersion={from}");
    let mut watch = Lines::open(&client, &path).await;
    send(&client, Method::POST, all, map("second", "web")).await;
    send(&client, Method::POST, all, map("other", "db")).await;
    merge(&client, &format!("{all}/second"), json!({"data": {"x": "1"}})).await;
    merge(&client, &format!("{all}/second"), json!({"metadata": {"labels": {"app": "db"}}})).await;
    send(&client, Method::DELETE, &format!("{all}/first"), json!({})).await;
    for (kind, name) in
        [("ADDED", "second"), ("MODIFIED", "second"), ("DELETED", "second"), ("DELETED", "first")]
    {
        let event = watch.next().await;
        assert_eq!((event["type"].as_str(), object::name(&event["object"])), (Some(kind), name));
    }

    let path =
        format!("{all}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&labelSelector=app%3Ddb");
    let mut watch = Lines::open(&client, &path).await;
    let kinds =
        [watch.next().await, watch.next().await, watch.next().await].map(|event| event["type"].clone());
    assert_eq!(kinds, ["ADDED", "ADDED", "BOOKMARK"]);

    let old = Lines::open(&client, &format!("{all}?watch=true&resourceVersion=999999999")).await.next().await;
    assert_eq!((old["type"].as_str(), old["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
}

#[tokio::test]
async fn definitions_add_resources_and_namespaces_take_theirs_along() {
    let machine = Machine::new(VERSION);
    let _running = machine.server("one", &["--disable-agent"]).await.expect("started");
    let client = machine.client();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {
                "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}],
        },
    });
    let things = "/apis/example.org/v1/namespaces/team/things";
    assert_eq!(client.send(&Call::get(things)).await.expect("an answer").code, 404);
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let made =
        apply(&client, &format!("{path}/things.example.org"), "datahub", false, definition).await.value();
    assert_eq!(object::condition(&made, "Established"), None, "that takes a moment");
    assert_eq!(client.send(&Call::get(things)).await.expect("an answer").code, 404);
    let one = format!("{path}/things.example.org");
    let made = until(&client, &one, |seen| object::condition(seen, "Established") == Some("True")).await;
    assert_eq!(object::condition(&made, "NamesAccepted"), Some("True"));
    assert_eq!(made["status"]["acceptedNames"]["kind"], "Thing");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(get(&client, "/apis/example.org/v1").await["resources"][0]["kind"], "Thing");

    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    send(&client, Method::POST, "/api/v1/namespaces", namespace).await;
    until(&client, "/api/v1/namespaces/team/serviceaccounts/default", |seen| {
        seen["kind"] == "ServiceAccount"
    })
    .await;
    let thing = json!({
        "apiVersion": "example.org/v1", "kind": "Thing",
        "metadata": {"name": "a", "finalizers": ["example.org/wait"]}, "spec": {"x": 1}, "status": {"ignored": true},
    });
    let made = send(&client, Method::POST, things, thing).await.value();
    assert_eq!((made["status"].clone(), made["metadata"]["generation"].as_i64()), (json!(null), Some(1)));
    let one = format!("{things}/a");
    let stated =
        merge(&client, &format!("{one}/status"), json!({"status": {"y": 2}, "spec": {"x": 9}})).await.value();
    assert_eq!((stated["status"]["y"].as_i64(), stated["spec"]["x"].as_i64()), (Some(2), Some(1)));
    assert_eq!(merge(&client, &one, json!({"spec": {"x": 2}})).await.value()["metadata"]["generation"], 2);

    send(&client, Method::DELETE, "/api/v1/namespaces/team", json!({})).await;
    let going = until(&client, &one, |seen| seen["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(get(&client, "/api/v1/namespaces/team").await["status"]["phase"], "Terminating");
    let refused = send(
        &client,
        Method::POST,
        things,
        json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "b"}}),
    )
    .await;
    assert_eq!(refused.code, 403);
    assert_eq!(going["metadata"]["finalizers"][0], "example.org/wait");
    merge(&client, &one, json!({"metadata": {"finalizers": null}})).await;
    until(&client, "/api/v1/namespaces/team", |seen| seen["code"] == 404).await;

    let things = "/apis/example.org/v1/namespaces/default/things";
    let thing = json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "b"}});
    assert_eq!(send(&client, Method::POST, things, thing).await.code, 201);
    send(&client, Method::DELETE, &format!("{path}/things.example.org"), json!({})).await;
    until(&client, &format!("{path}/things.example.org"), |seen| seen["code"] == 404).await;
    assert_eq!(client.send(&Call::get(things)).await.expect("an answer").code, 404);
}
