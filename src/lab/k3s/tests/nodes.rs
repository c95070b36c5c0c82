//! Nodes: joining with every kind of token, being refused, falling silent.

use hyper::Method;
use serde_json::json;

use super::VERSION;
use crate::lab::k3s::client::{self, Client};
use crate::lab::k3s::testing::*;
use crate::lab::k3s::token::Token;
use crate::lab::k3s::{object, token};

const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/two.node-password.k3s";

#[tokio::test]
async fn agents_register_fall_silent_and_come_back() {
    let (first, second) = (Machine::new(VERSION), Machine::new(VERSION));
    let running = first
        .server("one", &["--token", "server-secret", "--agent-token", "agent-secret"])
        .await
        .expect("started");
    let client = first.client();
    let secure = first.read("/var/lib/rancher/k3s/server/agent-token");
    second.write("/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/50-pods.conf", "maxPods: 42\n");
    let line = ["--node-label", "disk=ssd", "--node-taint", "gpu=yes:NoSchedule"];
    let agent = second.agent("two", &url(&running), &secure, &line);
    let node = until(&client, "/api/v1/nodes/two", object::is_ready).await;
    assert_eq!(object::label(&node, "disk"), Some("ssd"));
    assert_eq!(node["spec"]["taints"], json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]));
    assert_eq!(node["status"]["capacity"]["pods"], "42");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "containerd://2.3.2-k3s1");
    assert_eq!(second.read("/etc/rancher/node/password").len(), 33);

    agent.abort();
    let silent = until(&client, "/api/v1/nodes/two", |node| !object::is_ready(node)).await;
    assert_eq!(object::condition(&silent, "Ready"), Some("Unknown"));
    until(&client, "/api/v1/nodes/two", |node| node["spec"]["taints"].to_string().contains("unreachable"))
        .await;
    // Taints are given at the registration only, labels at every start.
    let agent = second.agent("two", &url(&running), "agent-secret", &["--node-label", "disk=nvme"]);
    let back = until(&client, "/api/v1/nodes/two", object::is_ready).await;
    assert_eq!(object::label(&back, "disk"), Some("nvme"));
    until(&client, "/api/v1/nodes/two", |node| {
        node["spec"]["taints"].as_array().is_some_and(|taints| taints.len() == 1)
    })
    .await;
    agent.abort();
}

#[tokio::test]
async fn strangers_are_refused() {
    let (first, second, other) = (Machine::new(VERSION), Machine::new(VERSION), Machine::new(VERSION));
    let running = first.server("one", &["--token", "secret"]).await.expect("started");
    let client = first.client();
    let elsewhere = other.server("other", &["--token", "secret", "--disable-agent"]).await.expect("started");
    let foreign = other.read("/var/lib/rancher/k3s/server/node-token");
    let error = client::fetch_ca(&url(&running), &Token::parse(&foreign).expect("a token"), "x").await;
    let error = error.expect_err("another cluster's token").to_string();
    assert!(error.starts_with("token CA hash does not match the Cluster CA certificate hash: "), "{error}");
    drop(elsewhere);

    let wrong = second.agent("two", &url(&running), "wrong", &[]);
    let newer = Machine::new("v1.37.0+k3s1");
    let too_new = newer.agent("new", &url(&running), "secret", &[]);
    until(&client, "/api/v1/nodes/one", object::is_ready).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for name in ["two", "new"] {
        assert_eq!(get(&client, &format!("/api/v1/nodes/{name}")).await["code"], 404, "{name}");
    }
    wrong.abort();
    too_new.abort();
}

#[tokio::test]
async fn a_node_that_was_set_up_anew_is_refused_until_it_is_forgotten() {
    let (first, second, anew) = (Machine::new(VERSION), Machine::new(VERSION), Machine::new(VERSION));
    let running = first.server("one", &["--token", "secret"]).await.expect("started");
    let client = first.client();
    let agent = second.agent("two", &url(&running), "secret", &[]);
    until(&client, "/api/v1/nodes/two", object::is_ready).await;
    agent.abort();
    until(&client, "/api/v1/nodes/two", |node| !object::is_ready(node)).await;
    let agent = anew.agent("two", &url(&running), "secret", &[]);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!object::is_ready(&get(&client, "/api/v1/nodes/two").await), "its password is another one");
    assert_eq!(send(&client, Method::DELETE, "/api/v1/nodes/two", json!({})).await.code, 200);
    assert_eq!(send(&client, Method::DELETE, SECRET, json!({})).await.code, 200);
    until(&client, "/api/v1/nodes/two", object::is_ready).await;
    agent.abort();
}

#[tokio::test]
async fn bootstrap_tokens_let_agents_in_until_they_expire() {
    use base64::Engine as _;
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);

    let (first, second) = (Machine::new(VERSION), Machine::new(VERSION));
    let running = first.server("one", &["--disable-agent"]).await.expect("started");
    let client = first.client();
    let secret = |id: &str, end: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token", "data": {
                "token-id": encoded(id), "token-secret": encoded("0123456789abcdef"), "expiration": encoded(end),
            },
        })
    };
    for (id, end) in [("abcdef", "2999-01-01T00:00:00Z"), ("expird", "2020-01-01T00:00:00Z")] {
        send(&client, Method::POST, "/api/v1/namespaces/kube-system/secrets", secret(id, end)).await;
    }
    let ca = first.read("/var/lib/rancher/k3s/server/tls/server-ca.crt");
    let code = async |token: &str| {
        let token = Token::parse(&token::secure(&ca, token)).expect("a token");
        let client =
            Client::new(&url(&running), Some(&ca), None, "x").expect("a client").with_token(&token, "node");
        client.send(&client::Call::get("/v1-k3s/config")).await.expect("an answer").code
    };
    assert_eq!(code("abcdef.0123456789abcdef").await, 200);
    assert_eq!(code("abcdef.0123456789abcdee").await, 401);
    assert_eq!(code("expird.0123456789abcdef").await, 401);
    let agent = second.agent("two", &url(&running), &token::secure(&ca, "abcdef.0123456789abcdef"), &[]);
    until(&client, "/api/v1/nodes/two", object::is_ready).await;
    agent.abort();
}

#[tokio::test]
async fn a_second_server_joins_and_passes_on() {
    let (first, second) = (Machine::new(VERSION), Machine::new(VERSION));
    let running = first.server("one", &["--cluster-init"]).await.expect("started");
    let token = first.read("/var/lib/rancher/k3s/server/token");
    let line = ["--server", &url(&running), "--token", token.trim()];
    let joined = second.server("two", &line).await.expect("joined");
    joined.ready().await;
    let client = second.client();
    let node = until(&client, "/api/v1/nodes/two", object::is_ready).await;
    assert_eq!(object::label(&node, "node-role.kubernetes.io/etcd"), Some("true"));
    assert_eq!(get(&client, "/api/v1/nodes").await["items"].as_array().expect("nodes").len(), 2);
    let agents = Machine::new(VERSION);
    let wrong = agents.server("three", &["--server", &url(&running), "--token", "wrong"]).await;
    let error = wrong.err().expect("refused").to_string();
    assert!(
        error.starts_with("starting kubernetes: preparing server: failed to bootstrap cluster data"),
        "{error}"
    );
}

#[tokio::test]
async fn a_node_never_gets_ready_while_its_file_is_there() {
    let machine = Machine::new(VERSION);
    machine.write("/etc/datahub-lab.d/k3s-never-ready", "");
    let running = machine.server("one", &[]).await.expect("started");
    let client = machine.client();
    let answer = client.send(&client::Call::get("/readyz")).await.expect("an answer");
    assert_eq!(answer.code, 500);
    assert!(answer.text().ends_with("readyz check failed\n"));
    assert!(!object::is_ready(&until(&client, "/api/v1/nodes/one", |node| node["kind"] == "Node").await));
    std::fs::remove_file(machine.settings.path("/etc/datahub-lab.d/k3s-never-ready")).expect("removed");
    running.ready().await;
    until(&client, "/api/v1/nodes/one", object::is_ready).await;
}
