//! The agent: joins through a supervisor, registers its node, sends heartbeats, and stands in for the kubelet.
//!
//! Kept: the order of checks and the words of failures; a refused node does not end but asks again, so that its
//! unit stays `activating`. Labels are applied at every start, taints at registration only. Left out: containerd
//! and everything that runs in it (`kubelet`), the tunnel, load balancing between servers.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::{self, Call, Client};
use super::config::Values;
use super::kubelet::Kubelet;
use super::pki::Pair;
use super::settings::Settings;
use super::token::{self, Token};
use super::{Failure, files, kubeconfig, log, machine, object, runtime};

/// The embedded containerd of K3s's 1.36 line.
const RUNTIME: &str = "containerd://2.3.2-k3s1";

/// What a node is configured to say of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub name: String,
    /// The first one is the node's own; at least one.
    pub addresses: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub taints: Vec<Value>,
}

impl NodeConfig {
    pub fn new(settings: &Settings, values: &Values) -> Result<Self, Failure> {
        let mut name = values.text("node-name").map_or_else(machine::hostname, str::to_lowercase);
        if values.on("with-node-id") {
            name = format!("{name}-{}", node_id(settings)?);
        }
        let mut addresses = values.list("node-ip");
        if addresses.is_empty() {
            addresses.push(machine::address()?.to_string());
        }
        let labels = values
            .list("node-label")
            .iter()
            .map(|label| {
                let (key, value) = label.split_once('=').unwrap_or((label, ""));
                (key.to_owned(), value.to_owned())
            })
            .collect();
        let taints = values.list("node-taint").iter().map(|text| taint(text)).collect::<Result<_, _>>()?;
        Ok(Self { name, addresses, labels, taints })
    }
}

fn node_id(settings: &Settings) -> Result<String, Failure> {
    let path = settings.path("/etc/rancher/node/id");
    if !path.exists() {
        files::make_parent(&path, 0o755)?;
        files::write(&path, &format!("{}\n", token::random_hex(4)), 0o644)?;
    }
    Ok(files::read(&path)?.trim().to_owned())
}

/// Reads `key=value:Effect` or `key:Effect`.
fn taint(text: &str) -> Result<Value, Failure> {
    let invalid = || Failure::said(format!("invalid taint spec: {text}"));
    let (pair, effect) = text.rsplit_once(':').ok_or_else(invalid)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(Failure::said(format!("invalid taint effect: {effect}, unsupported taint effect")));
    }
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = json!(value);
    }
    Ok(taint)
}

/// An agent that has not joined yet.
pub struct Agent {
    settings: Settings,
    node: NodeConfig,
    url: String,
    token: String,
    data: PathBuf,
    /// Whether the node is a server, and whether of etcd.
    server: Option<bool>,
    runtime: String,
    max_pods: Option<u64>,
}

impl Agent {
    /// Prepares the agent of a node; the address and the token are a server's.
    pub fn new(
        settings: &Settings,
        values: &Values,
        node: NodeConfig,
        url: &str,
        token: &str,
        server: Option<bool>,
    ) -> Result<Self, Failure> {
        let data = settings.path(values.text("data-dir").unwrap_or("/var/lib/rancher/k3s"));
        let docker = values.on("docker").then_some("docker://simulated");
        let external = values.text("container-runtime-endpoint").map(|_| "external://simulated");
        let arguments = values.list("kubelet-arg");
        let max_pods = arguments.iter().find_map(|argument| argument.strip_prefix("max-pods="));
        Ok(Self {
            settings: settings.clone(),
            node,
            url: url.to_owned(),
            token: token.to_owned(),
            server,
            runtime: docker.or(external).unwrap_or(RUNTIME).to_owned(),
            max_pods: max_pods.and_then(|number| number.parse().ok()).or(drop_in_max_pods(&data)?),
            data,
        })
    }

    /// Joins, then works until the task is dropped. `ready` is called once the node has registered.
    pub async fn run(&self, ready: impl FnOnce()) -> Result<(), Failure> {
        let token = Token::parse(&self.token)?;
        let password = self.password()?;
        let ca = self.validated_ca(&token).await;
        let own = self.certificates(&token, &ca, &password).await?;
        let name = super::user_agent(&self.settings.version);
        let api = Client::new(&self.url, Some(&ca), Some(&own), &name)?;
        log::info(format!("Running kubelet (simulated) for node {}", self.node.name));
        while let Err(failure) = self.register(&api).await {
            log::info(format!("Waiting to register node {}: {failure}", self.node.name));
            tokio::time::sleep(self.settings.retry).await;
        }
        while self.settings.never_ready() {
            tokio::time::sleep(self.settings.retry).await;
        }
        self.beat(&api).await;
        log::info(format!("Annotations and labels have been set successfully on node: {}", self.node.name));
        ready();
        let kubelet = Kubelet::new(&self.settings, &self.node, &api);
        tokio::select! {
            () = self.keep_alive(&api) => {}
            () = kubelet.run() => {}
        }
        Ok(())
    }

    /// Asks until the server answers and its CA is the token's.
    async fn validated_ca(&self, token: &Token) -> String {
        let name = super::user_agent(&self.settings.version);
        loop {
            match client::fetch_ca(&self.url, token, &name).await {
                Ok(ca) => return ca,
                Err(failure) => {
                    log::error(format!(
                        "Failed to validate connection to cluster at {}: {failure}",
                        self.url
                    ));
                    tokio::time::sleep(self.settings.retry).await;
                }
            }
        }
    }

    /// Asks until the server gives this node its certificates.
    async fn certificates(&self, token: &Token, ca: &str, password: &str) -> Result<Pair, Failure> {
        let name = super::user_agent(&self.settings.version);
        let supervisor = Client::new(&self.url, Some(ca), None, &name)?.with_token(token, "node");
        loop {
            match self.configuration(&supervisor, password).await {
                Ok(own) => return Ok(own),
                Err(failure) => {
                    log::info(format!(
                        "Waiting to retrieve agent configuration; server is not ready: {failure}"
                    ));
                    tokio::time::sleep(self.settings.retry).await;
                }
            }
        }
    }

    async fn configuration(&self, supervisor: &Client, password: &str) -> Result<Pair, Failure> {
        let config = supervisor.send(&Call::get("/v1-k3s/config")).await?;
        if !config.is_success() {
            return Err(Failure::said(format!(
                "failed to retrieve configuration from server: {}/v1-k3s/config: {}",
                self.url,
                status(config.code)
            )));
        }
        let folder = self.data.join("agent");
        files::make_folder(&folder, 0o700)?;
        for name in ["client-ca.crt", "server-ca.crt"] {
            let path = format!("/v1-k3s/{name}");
            files::write(&folder.join(name), &supervisor.send(&Call::get(&path)).await?.text(), 0o600)?;
        }
        self.node_pair(supervisor, "serving-kubelet", password).await?;
        let own = self.node_pair(supervisor, "client-kubelet", password).await?;
        runtime::write(&self.settings, &self.data)?;
        let ca = files::read(&folder.join("server-ca.crt"))?;
        kubeconfig::write(&folder.join("kubelet.kubeconfig"), &self.url, &ca, &own, 0o600)?;
        Ok(own)
    }

    /// Fetches a certificate that is bound to the node's name and password.
    async fn node_pair(&self, supervisor: &Client, name: &str, password: &str) -> Result<Pair, Failure> {
        let path = format!("/v1-k3s/{name}.crt");
        let headers = [
            ("k3s-node-name", self.node.name.clone()),
            ("k3s-node-password", password.to_owned()),
            ("k3s-node-ip", self.node.addresses.join(",")),
        ];
        let answer = supervisor.send(&Call { headers: &headers, ..Call::get(&path) }).await?;
        match answer.code {
            200 => {}
            403 => {
                return Err(Failure::said(
                    "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not \
                     match server node-passwd entry, try enabling a unique node name with the --with-node-id flag",
                ));
            }
            400 => return Err(Failure::said(answer.text())),
            code => return Err(Failure::said(format!("{}{path}: {}", self.url, status(code)))),
        }
        let text = answer.text();
        let (certificate, key) = text.split_at(text.find("-----BEGIN PRIVATE KEY").unwrap_or(text.len()));
        let pair = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
        let folder = self.data.join("agent");
        files::write(&folder.join(format!("{name}.crt")), &pair.certificate, 0o600)?;
        files::write(&folder.join(format!("{name}.key")), &pair.key, 0o600)?;
        Ok(pair)
    }

    /// The node's password, made at its first start.
    fn password(&self) -> Result<String, Failure> {
        let path = self.settings.path("/etc/rancher/node/password");
        if !path.exists() {
            files::make_parent(&path, 0o755)?;
            files::write(&path, &format!("{}\n", token::random_hex(16)), 0o600)?;
        }
        Ok(files::read(&path)?.trim().to_owned())
    }

    /// Creates the Node, or brings the labels of the one that is there up to date.
    async fn register(&self, api: &Client) -> Result<(), Failure> {
        let path = format!("/api/v1/nodes/{}", self.node.name);
        let metadata = json!({"labels": self.labels(), "annotations": self.annotations()});
        let patch = Call {
            content_type: "application/merge-patch+json",
            ..Call::json(Method::PATCH, &path, &json!({"metadata": metadata}))
        };
        let answer = api.send(&patch).await?;
        if answer.is_success() {
            return self.post_status(api).await;
        }
        if answer.code != 404 {
            return Err(Failure::said(answer.value()["message"].as_str().unwrap_or("rejected")));
        }
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}, "status": self.status(),
        });
        node["metadata"]["name"] = json!(self.node.name);
        node["spec"]["providerID"] = json!(format!("k3s://{}", self.node.name));
        if !self.node.taints.is_empty() {
            node["spec"]["taints"] = json!(self.node.taints);
        }
        let answer = api.send(&Call::json(Method::POST, "/api/v1/nodes", &node)).await?;
        match answer.is_success() {
            true => Ok(()),
            false => Err(Failure::said(answer.value()["message"].as_str().unwrap_or("rejected"))),
        }
    }

    fn labels(&self) -> Map<String, Value> {
        let architecture = machine::architecture();
        let mut labels: Map<String, Value> = [
            ("kubernetes.io/hostname", self.node.name.as_str()),
            ("kubernetes.io/arch", architecture),
            ("kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture),
            ("beta.kubernetes.io/os", "linux"),
            ("node.kubernetes.io/instance-type", "k3s"),
            ("beta.kubernetes.io/instance-type", "k3s"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
        if let Some(etcd) = self.server {
            labels.insert("node-role.kubernetes.io/control-plane".into(), json!("true"));
            if etcd {
                labels.insert("node-role.kubernetes.io/etcd".into(), json!("true"));
            }
        }
        labels.extend(self.node.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        labels
    }

    fn annotations(&self) -> Value {
        json!({
            "k3s.io/hostname": self.node.name, "k3s.io/internal-ip": self.node.addresses.join(","),
            "lab.datahub/simulated": "this node runs no containers",
        })
    }

    fn status(&self) -> Value {
        let mut capacity = machine::capacity(&self.data);
        if let Some(pods) = self.max_pods {
            capacity["pods"] = json!(pods.to_string());
        }
        let mut addresses: Vec<Value> = self
            .node
            .addresses
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        addresses.push(json!({"type": "Hostname", "address": self.node.name}));
        let mut node = json!({"status": {
            "capacity": capacity, "allocatable": capacity, "addresses": addresses,
            "nodeInfo": machine::info(&self.settings.version, &self.runtime),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }});
        for (kind, reason, message) in [
            ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ] {
            object::set_condition(&mut node, kind, "False", reason, message);
        }
        let (status, reason, message) = match self.settings.never_ready() {
            false => ("True", "KubeletReady", "kubelet is posting ready status"),
            true => (
                "False",
                "KubeletNotReady",
                "container runtime network not ready: cni plugin not initialized",
            ),
        };
        object::set_condition(&mut node, "Ready", status, reason, message);
        for condition in object::list_mut(&mut node["status"], "conditions") {
            condition["lastHeartbeatTime"] = json!(object::now());
        }
        node["status"].take()
    }

    async fn post_status(&self, api: &Client) -> Result<(), Failure> {
        let path = format!("/api/v1/nodes/{}/status", self.node.name);
        let patch = Call {
            content_type: "application/strategic-merge-patch+json",
            ..Call::json(Method::PATCH, &path, &json!({"status": self.status()}))
        };
        let answer = api.send(&patch).await?;
        match answer.is_success() {
            true => Ok(()),
            false => Err(Failure::said(answer.value()["message"].as_str().unwrap_or("rejected"))),
        }
    }

    /// Renews the lease, and says what the node is where the server thinks otherwise.
    async fn keep_alive(&self, api: &Client) {
        loop {
            tokio::time::sleep(self.settings.heartbeat).await;
            self.beat(api).await;
        }
    }

    async fn beat(&self, api: &Client) {
        if let Err(failure) = self.try_beat(api).await {
            log::error(format!("Failed to update lease: {failure}"));
        }
    }

    async fn try_beat(&self, api: &Client) -> Result<(), Failure> {
        let node = api.send(&Call::get(&format!("/api/v1/nodes/{}", self.node.name))).await?;
        if !node.is_success() {
            return Err(Failure::said(format!("node {:?} not found", self.node.name)));
        }
        let path =
            format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", self.node.name);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "spec": {
                "holderIdentity": self.node.name, "leaseDurationSeconds": 40, "renewTime": object::now_micro(),
            },
        });
        let apply =
            Call { content_type: "application/apply-patch+yaml", ..Call::json(Method::PATCH, &path, &lease) };
        let path = format!("{path}?fieldManager=k3s&force=true");
        api.send(&Call { path: &path, ..apply }).await?;
        let wanted = if self.settings.never_ready() { "False" } else { "True" };
        match object::condition(&node.value(), "Ready") == Some(wanted) {
            true => Ok(()),
            false => self.post_status(api).await,
        }
    }
}

/// `maxPods` of the kubelet's drop-ins, `agent/etc/kubelet.conf.d/*.conf`, in name order; the last one wins.
fn drop_in_max_pods(data: &Path) -> Result<Option<u64>, Failure> {
    let folder = data.join("agent/etc/kubelet.conf.d");
    files::make_folder(&folder, 0o700)?;
    let entries = std::fs::read_dir(&folder).map_err(|error| Failure::file(&folder, error))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "conf"));
    files.sort();
    let mut found = None;
    for file in files {
        let text = files::read(&file)?;
        let config: Option<Value> = super::yaml::one(&text).map_err(|error| {
            Failure::said(format!(
                "failed to load kubelet config file, path: {}, error: {error}",
                file.display()
            ))
        })?;
        found = config.and_then(|config| config["maxPods"].as_u64()).or(found);
    }
    Ok(found)
}

/// `401 Unauthorized`
fn status(code: u16) -> String {
    let reason = hyper::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
    format!("{code} {}", reason.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints() {
        assert_eq!(
            taint("a=b:NoSchedule").expect("well formed"),
            json!({"key": "a", "value": "b", "effect": "NoSchedule"})
        );
        assert_eq!(
            taint("x/y:NoExecute").expect("well formed"),
            json!({"key": "x/y", "effect": "NoExecute"})
        );
        assert!(taint("a=b").is_err());
        assert!(taint("a=b:Never").is_err());
    }
}
