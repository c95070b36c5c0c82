//! Clusters for tests: nodes in temporary folders, on ports of their own, with quick clocks.

use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};

use super::agent::{Agent, NodeConfig};
use super::client::{Answer, Call, Client};
use super::config::{self, Role, Values};
use super::server::{self, Running};
use super::settings::Settings;
use super::{Failure, files, kubeconfig};

/// Patience of a test: long, so that a busy machine does not matter.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node's folder.
pub struct Machine {
    /// Removed with the machine.
    _folder: tempfile::TempDir,
    pub settings: Settings,
}

impl Machine {
    pub fn new(version: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings {
            root: folder.path().to_owned(),
            heartbeat: Duration::from_millis(200),
            grace: Duration::from_secs(2),
            pod_start: Duration::from_millis(50),
            moment: Duration::from_millis(50),
            retry: Duration::from_millis(100),
            manifests: Duration::from_millis(100),
            ..Settings::machine(version)
        };
        Self { _folder: folder, settings }
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.settings.path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    pub fn read(&self, path: &str) -> String {
        files::read(&self.settings.path(path)).expect("readable")
    }

    fn values(&self, role: Role, line: &[&str]) -> Values {
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let locate = |path: &Path| self.settings.path(path);
        config::read(role, &line, &|_| None, &locate).expect("accepted")
    }

    /// Starts a server on a free port of the loopback address.
    pub async fn server(&self, name: &str, line: &[&str]) -> Result<Running, Failure> {
        let common = ["--bind-address", "127.0.0.1", "--https-listen-port", "0", "--node-ip", "127.0.0.1"];
        let line: Vec<&str> =
            common.iter().chain(["--node-name", name].iter()).chain(line).copied().collect();
        server::start(&self.settings, &self.values(Role::Server, &line)).await
    }

    /// Starts an agent; it ends with the task.
    pub fn agent(&self, name: &str, url: &str, token: &str, line: &[&str]) -> tokio::task::JoinHandle<()> {
        let common = ["--node-ip", "127.0.0.1", "--node-name", name];
        let line: Vec<&str> = common.iter().chain(line).copied().collect();
        let values = self.values(Role::Agent, &line);
        let node = NodeConfig::new(&self.settings, &values).expect("a node");
        let agent = Agent::new(&self.settings, &values, node, url, token, None).expect("an agent");
        tokio::spawn(async move { agent.run(|| ()).await.expect("works on") })
    }

    /// The administrator's client.
    pub fn client(&self) -> Client {
        let access =
            kubeconfig::read(&self.settings.path("/etc/rancher/k3s/k3s.yaml")).expect("a kubeconfig");
        Client::new(&access.server, Some(&access.ca), Some(&access.own), "tests/1").expect("a client")
    }
}

pub fn url(running: &Running) -> String {
    format!("https://127.0.0.1:{}", running.cluster.as_ref().expect("a first server").port)
}

pub async fn send(client: &Client, method: Method, path: &str, body: Value) -> Answer {
    client.send(&Call::json(method, path, &body)).await.expect("an answer")
}

pub async fn get(client: &Client, path: &str) -> Value {
    client.send(&Call::get(path)).await.expect("an answer").value()
}

/// Applies an object under a manager's name.
pub async fn apply(client: &Client, path: &str, manager: &str, force: bool, body: Value) -> Answer {
    let path = format!("{path}?fieldManager={manager}&force={force}");
    let call =
        Call { content_type: "application/apply-patch+yaml", ..Call::json(Method::PATCH, &path, &body) };
    client.send(&call).await.expect("an answer")
}

/// Patches an object with a JSON merge patch.
pub async fn merge(client: &Client, path: &str, body: Value) -> Answer {
    let call =
        Call { content_type: "application/merge-patch+json", ..Call::json(Method::PATCH, path, &body) };
    client.send(&call).await.expect("an answer")
}

/// The events of a watch.
pub struct Lines {
    body: hyper::body::Incoming,
    read: Vec<u8>,
}

impl Lines {
    pub async fn open(client: &Client, path: &str) -> Self {
        Self { body: client.stream(path).await.expect("a stream").into_body(), read: Vec::new() }
    }

    pub async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("an event");
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("in time");
            let data = frame.expect("more").expect("well sent").into_data().expect("data");
            self.read.extend_from_slice(&data);
        }
    }
}

/// Asks until an object is as wanted.
pub async fn until(client: &Client, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let seen = get(client, path).await;
        if wanted(&seen) {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{path} stays {seen:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A Deployment of one container.
pub fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}
