//! What stays: objects over a restart, the cluster's identity over a restore, manifests, configuration.

use serde_json::json;

use super::VERSION;
use crate::lab::k3s::object;
use crate::lab::k3s::testing::*;

const MAP: &str = "/api/v1/namespaces/default/configmaps/kept";

fn map() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"x": "1"}})
}

#[tokio::test]
async fn objects_and_certificates_survive_a_restart() {
    let machine = Machine::new(VERSION);
    let running = machine.server("one", &["--token", "secret", "--disable-agent"]).await.expect("started");
    apply(&machine.client(), MAP, "datahub", false, map()).await;
    let token = machine.read("/var/lib/rancher/k3s/server/token");
    running.stop().await;
    let running = machine.server("one", &["--disable-agent"]).await.expect("started again, without a token");
    assert_eq!(get(&machine.client(), MAP).await["data"]["x"], "1");
    assert_eq!(machine.read("/var/lib/rancher/k3s/server/token"), token);
    running.stop().await;
    let failed = machine.server("one", &["--token", "another"]).await.err().expect("refused").to_string();
    assert!(failed.ends_with("bootstrap data already found and encrypted with different token"), "{failed}");
}

#[tokio::test]
async fn a_database_and_its_token_restore_a_cluster_elsewhere() {
    let (old, new) = (Machine::new(VERSION), Machine::new(VERSION));
    let running = old.server("one", &["--token", "secret", "--disable-agent"]).await.expect("started");
    apply(&old.client(), MAP, "datahub", false, map()).await;
    running.stop().await;
    let database = "/var/lib/rancher/k3s/server/db/state.db";
    std::fs::create_dir_all(new.settings.path(database).parent().expect("a folder")).expect("made");
    for end in ["", "-wal", "-shm"] {
        // The write-ahead log is part of the database while it has something to tell.
        let name = format!("{database}{end}");
        let _ = std::fs::copy(old.settings.path(&name), new.settings.path(&name));
    }
    let _running = new.server("one", &["--token", "secret", "--disable-agent"]).await.expect("restored");
    assert_eq!(get(&new.client(), MAP).await["data"]["x"], "1");
    let ca = "/var/lib/rancher/k3s/server/tls/server-ca.crt";
    assert_eq!(new.read(ca), old.read(ca));
}

#[tokio::test]
async fn snapshots_are_saved_and_restored() {
    use crate::lab::k3s::client::Call;
    use crate::lab::k3s::failure::Failure;

    let machine = Machine::new(VERSION);
    let line = ["--cluster-init", "--token", "secret", "--disable-agent"];
    let running = machine.server("one", &line).await.expect("started");
    apply(&machine.client(), MAP, "datahub", false, map()).await;
    let post = Call::json(hyper::Method::POST, "/db/snapshot?name=before", &json!({}));
    let saved = machine.client().send(&post).await.expect("an answer").value();
    let name = saved["created"][0].as_str().expect("a name").to_owned();
    send(&machine.client(), hyper::Method::DELETE, MAP, json!({})).await;
    running.stop().await;
    let path = machine.settings.path(format!("/var/lib/rancher/k3s/server/db/snapshots/{name}"));
    let path = path.display().to_string();
    let reset =
        ["--cluster-init", "--token", "secret", "--cluster-reset", "--cluster-reset-restore-path", &path];
    assert!(matches!(machine.server("one", &reset).await, Err(Failure::Reset)));
    let _running = machine.server("one", &line).await.expect("started again");
    assert_eq!(get(&machine.client(), MAP).await["data"]["x"], "1");
}

#[tokio::test]
async fn manifests_are_applied_and_components_disabled() {
    let machine = Machine::new(VERSION);
    let folder = "/var/lib/rancher/k3s/server/manifests";
    let text = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\ndata:\n  x: \"{value}\"\n"
        )
    };
    machine.write(&format!("{folder}/kept.yaml"), &text("kept", "1"));
    machine.write(&format!("{folder}/left.yaml"), &text("left", "1"));
    machine.write(&format!("{folder}/left.yaml.skip"), "");
    let _running = machine.server("one", &["--disable", "traefik,metrics-server"]).await.expect("started");
    let client = machine.client();
    until(&client, MAP, |seen| seen["data"]["x"] == "1").await;
    machine.write(&format!("{folder}/kept.yaml"), &text("kept", "2"));
    until(&client, MAP, |seen| seen["data"]["x"] == "2").await;
    assert_eq!(get(&client, "/api/v1/namespaces/default/configmaps/left").await["code"], 404);
    assert_eq!(
        get(&client, "/apis/k3s.cattle.io/v1/namespaces/kube-system/addons/kept").await["kind"],
        "Addon"
    );
    assert_eq!(
        get(&client, "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/traefik").await["code"],
        404
    );
    let coredns = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    until(&client, coredns, |seen| seen["status"]["readyReplicas"] == 1).await;
}

#[tokio::test]
async fn a_server_reads_its_configuration_file() {
    use std::os::unix::fs::PermissionsExt as _;

    let machine = Machine::new(VERSION);
    machine.write("/etc/rancher/k3s/config.yaml", "write-kubeconfig-mode: \"0640\"\nnode-label: [a=1]\n");
    machine.write("/etc/rancher/k3s/config.yaml.d/10.yaml", "node-label+: [b=2]\ncluster-init: true\n");
    let _running = machine.server("one", &[]).await.expect("started");
    let mode = std::fs::metadata(machine.settings.path("/etc/rancher/k3s/k3s.yaml"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(machine.settings.path("/var/lib/rancher/k3s/server/db/etcd").is_dir());
    let node = until(&machine.client(), "/api/v1/nodes/one", object::is_ready).await;
    assert_eq!((object::label(&node, "a"), object::label(&node, "b")), (Some("1"), Some("2")));
}

#[tokio::test]
async fn an_upgrade_shows_in_the_node_and_keeps_the_cluster() {
    let mut machine = Machine::new(VERSION);
    let running = machine.server("one", &["--token", "secret"]).await.expect("started");
    let before = until(&machine.client(), "/api/v1/nodes/one", object::is_ready).await;
    apply(&machine.client(), MAP, "datahub", false, map()).await;
    running.stop().await;
    machine.settings.version = "v1.36.4+k3s1".to_owned();
    let _running = machine.server("one", &["--token", "secret"]).await.expect("started");
    let client = machine.client();
    let after = until(&client, "/api/v1/nodes/one", |node| {
        node["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.4+k3s1" && object::is_ready(node)
    })
    .await;
    assert_eq!(object::uid(&before), object::uid(&after));
    assert_eq!(get(&client, "/version").await["gitVersion"], "v1.36.4+k3s1");
    assert_eq!(get(&client, MAP).await["data"]["x"], "1");
}
