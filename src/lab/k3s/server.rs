//! `k3s server`: prepares the data directory, opens the port, starts the controllers and the node's own agent.
//!
//! A joining server (`server:` set) keeps no store of its own: it passes connections on to the first one. So the
//! cluster does not survive the loss of its first server, and has no quorum: the outward contract of joining is
//! kept, high availability is not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::agent::{Agent, NodeConfig};
use super::client::{self, Call, Client};
use super::cluster::{Cluster, Credentials};
use super::config::Values;
use super::pki::{self, Pki};
use super::settings::Settings;
use super::store::Store;
use super::tls::Serving;
use super::token::{self, Token};
use super::{Failure, bootstrap, controllers, files, kubeconfig, listen, log, machine, manifests};

/// A server that runs until this is dropped.
pub struct Running {
    /// `None` for a joined server.
    pub cluster: Option<Arc<Cluster>>,
    settings: Settings,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Running {
    /// Waits until the node serves.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let (cluster, settings) = (self.cluster.clone(), self.settings.clone());
        async move {
            while !cluster.as_ref().map_or_else(|| !settings.never_ready(), |cluster| cluster.is_ready()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Ends the server; when it returns the database is closed.
    pub async fn stop(mut self) {
        /// How long connections may take to notice.
        const PATIENCE: u32 = 100;
        self.tasks.shutdown().await;
        let Some(cluster) = self.cluster.take() else { return };
        for _ in 0..PATIENCE {
            if Arc::strong_count(&cluster) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends with the first task that fails.
    pub async fn failed(&mut self) -> Failure {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(failure))) => return failure,
                Some(Err(error)) if error.is_panic() => return Failure::said(error.to_string()),
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Where a server keeps what.
struct Places {
    data: PathBuf,
    tls: PathBuf,
    database: PathBuf,
    is_etcd: bool,
}

impl Places {
    fn of(settings: &Settings, values: &Values) -> Result<Self, Failure> {
        let data = settings.path(values.text("data-dir").unwrap_or("/var/lib/rancher/k3s"));
        let etcd = data.join("server/db/etcd");
        // A server joins another one's etcd only.
        let joins = values.text("server").is_some();
        let is_etcd = joins || values.on("cluster-init") || values.on("cluster-reset") || etcd.exists();
        let database = match is_etcd {
            // etcd's own file is a bbolt database; this one is SQLite in its place.
            true => etcd.join("member/snap/db"),
            false => data.join("server/db/state.db"),
        };
        for folder in ["server/manifests", "server/cred", "server/static", "agent", "data"] {
            files::make_folder(&data.join(folder), 0o700)?;
        }
        files::make_parent(&database, 0o700)?;
        files::make_folder(&settings.path("/run/k3s"), 0o711)?;
        Ok(Self { tls: data.join("server/tls"), data, database, is_etcd })
    }
}

/// Starts a server. It returns as soon as the port is open; see `Running::ready`.
pub async fn start(settings: &Settings, values: &Values) -> Result<Running, Failure> {
    let preparing = |failure: Failure| match failure {
        Failure::Reset => failure,
        failure => Failure::said(format!("starting kubernetes: preparing server: {failure}")),
    };
    match values.text("server") {
        Some(url) => join(settings, values, url).await.map_err(preparing),
        None => first(settings, values).await.map_err(preparing),
    }
}

async fn first(settings: &Settings, values: &Values) -> Result<Running, Failure> {
    let places = Places::of(settings, values)?;
    reset(values, &places)?;
    let store = Store::open(&places.database)?;
    let credentials = credentials(settings, values, &places)?;
    reconcile(&store, &places, &credentials.server)?;
    let pki = Pki::open(&places.tls)?;
    if let Some(given) = given_token(settings, values, "token")? {
        Token::parse(&given)?
            .check_ca(&pki.server_ca.certificate)
            .map_err(|error| Failure::said(format!("failed to validate token: {error}")))?;
    }
    keep_tokens(&places.data, &pki, &credentials)?;
    let port = values.port("https-listen-port", 6443)?;
    let bind = values.text("bind-address").unwrap_or("0.0.0.0");
    let listener = listen_on(bind, port).await?;
    let port = listener.local_addr().map_or(port, |address| address.port());
    let node = NodeConfig::new(settings, values)?;
    let cluster = Arc::new(Cluster {
        settings: settings.clone(),
        store,
        for_agents: for_agents(settings, values, port),
        pki,
        credentials: credentials.clone(),
        data: places.data.clone(),
        node_name: node.name.clone(),
        node_address: node.addresses[0].clone(),
        port,
        is_etcd: places.is_etcd,
        serving: Arc::new(Serving::default()),
        names: Mutex::default(),
        ready: AtomicBool::new(false),
    });
    cluster.serve_as(serving_names(values, &node))?;
    write_kubeconfig(settings, values, &cluster)?;
    bootstrap::objects(&cluster.store)?;
    manifests::write_packaged(&cluster.data, &values.list("disable"))?;

    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(cluster.clone(), listener));
    let disabled = values.list("disable");
    let enabled = controllers::Enabled {
        helm: !values.on("disable-helm-controller"),
        service_lb: !disabled.iter().any(|name| name == "servicelb"),
    };
    tasks.spawn(controllers::run(cluster.clone(), enabled));
    tasks.spawn(manifests::watch(cluster.clone(), disabled));
    if !values.on("disable-agent") {
        let token = token::secure(&cluster.pki.server_ca.certificate, &format!("node:{}", credentials.agent));
        let agent = Agent::new(
            settings,
            values,
            node,
            &format!("https://127.0.0.1:{port}"),
            &token,
            Some(cluster.is_etcd),
        )?;
        tasks.spawn(async move { agent.run(|| ()).await });
    }
    cluster.ready.store(true, std::sync::atomic::Ordering::Relaxed);
    Ok(Running { cluster: Some(cluster), settings: settings.clone(), tasks })
}

/// Joins the cluster of another server.
async fn join(settings: &Settings, values: &Values, url: &str) -> Result<Running, Failure> {
    let places = Places::of(settings, values)?;
    let given = given_token(settings, values, "token")?
        .ok_or_else(|| Failure::said("K3S_TOKEN is required to join a cluster"))?;
    let token = Token::parse(&given)?;
    let agent_name = super::user_agent(&settings.version);
    let ca = client::fetch_ca(url, &token, &agent_name)
        .await
        .map_err(|error| Failure::said(format!("failed to validate token: {error}")))?;
    let node = NodeConfig::new(settings, values)?;
    let client = Client::new(url, Some(&ca), None, &agent_name)?.with_token(&token, "server");
    let names: BTreeSet<String> = serving_names(values, &node);
    let names: Vec<String> = names.into_iter().collect();
    let headers = [("k3s-node-name", node.name.clone()), ("k3s-node-ip", names.join(","))];
    let path = "/v1-k3s/server-bootstrap";
    let answer = client.send(&Call { headers: &headers, ..Call::get(path) }).await?;
    if !answer.is_success() {
        return Err(Failure::said(format!("failed to bootstrap cluster data: {url}{path}: {}", answer.code)));
    }
    let bootstrap = answer.value();
    let files = serde_json::from_value(bootstrap["files"].clone()).map_err(Failure::request)?;
    pki::write_files(&places.tls, &files)?;
    let pki = Pki::open(&places.tls)?;
    let password = token.password().unwrap_or_default().to_owned();
    let agent = bootstrap["agentToken"].as_str().unwrap_or(&password).to_owned();
    keep_tokens(&places.data, &pki, &Credentials { server: password, agent: agent.clone() })?;

    let port = values.port("https-listen-port", 6443)?;
    let listener = listen_on(values.text("bind-address").unwrap_or("0.0.0.0"), port).await?;
    let port = listener.local_addr().map_or(port, |address| address.port());
    let admin = pki::keep(&places.tls, "client-admin", || pki.client("system:admin", "system:masters"))?;
    let path = settings.path(values.text("write-kubeconfig").unwrap_or("/etc/rancher/k3s/k3s.yaml"));
    let server = format!("https://127.0.0.1:{port}");
    kubeconfig::write(&path, &server, &pki.server_ca.certificate, &admin, kubeconfig_mode(values))?;
    let mut tasks = JoinSet::new();
    let upstream = url.trim_start_matches("https://").trim_end_matches('/').to_owned();
    tasks.spawn(forward(listener, upstream));
    if !values.on("disable-agent") {
        let token = token::secure(&pki.server_ca.certificate, &format!("node:{agent}"));
        let agent = Agent::new(settings, values, node, &server, &token, Some(true))?;
        tasks.spawn(async move { agent.run(|| ()).await });
    }
    Ok(Running { cluster: None, settings: settings.clone(), tasks })
}

/// Passes connections on, TLS and all.
async fn forward(listener: TcpListener, upstream: String) -> Result<(), Failure> {
    loop {
        let Ok((mut from, _)) = listener.accept().await else { continue };
        let upstream = upstream.clone();
        tokio::spawn(async move {
            if let Ok(mut to) = tokio::net::TcpStream::connect(&upstream).await {
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

async fn listen_on(bind: &str, port: u16) -> Result<TcpListener, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::said(format!("listen tcp {bind}:{port}: {error}"));
    let address: SocketAddr = match bind.contains(':') {
        true => format!("[{}]:{port}", bind.trim_matches(['[', ']'])),
        false => format!("{bind}:{port}"),
    }
    .parse()
    .map_err(|error: std::net::AddrParseError| failed(&error))?;
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => failed(&"bind: address already in use"),
        _ => failed(&error),
    })
}

/// A token from its flag or the file its `-file` flag names.
pub fn given_token(settings: &Settings, values: &Values, name: &str) -> Result<Option<String>, Failure> {
    if let Some(path) = values.text(&format!("{name}-file")) {
        return Ok(Some(files::read(&settings.path(path))?.trim().to_owned()));
    }
    Ok(values.text(name).map(str::to_owned))
}

/// The passwords: configured, else those of the last start, else new ones.
fn credentials(settings: &Settings, values: &Values, places: &Places) -> Result<Credentials, Failure> {
    let password = |text: &str| -> Result<String, Failure> {
        let token = Token::parse(text)?;
        token.password().map(str::to_owned).ok_or_else(|| {
            Failure::said(
                "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>",
            )
        })
    };
    let kept = places.data.join("server/token");
    let server = match given_token(settings, values, "token")? {
        Some(given) => password(&given)?,
        None if kept.exists() => password(&files::read(&kept)?)?,
        None => token::random_hex(16),
    };
    let agent = match given_token(settings, values, "agent-token")? {
        Some(given) => password(&given)?,
        None => server.clone(),
    };
    Ok(Credentials { server, agent })
}

/// Compares disk and database: the authorities of a restored database are written back, another token is refused.
/// K3s encrypts this row with the token; here it is plain.
fn reconcile(store: &Store, places: &Places, password: &str) -> Result<(), Failure> {
    use sha2::{Digest as _, Sha256};

    let name = format!("/bootstrap/{}", &token::hex(&Sha256::digest(password.as_bytes()))[..12]);
    match store.row(&name)? {
        Some(row) if !pki::is_there(&places.tls) => {
            log::info("Reconciling bootstrap data between datastore and disk");
            let files = serde_json::from_str(&row).map_err(Failure::request)?;
            pki::write_files(&places.tls, &files)
        }
        Some(_) => Ok(()),
        None if store.row_names("/bootstrap/")?.is_empty() => {
            let files = json!(Pki::open(&places.tls)?.files());
            Ok(store.put_row(&name, &files.to_string())?)
        }
        None => Err(Failure::said(
            "failed to bootstrap cluster data: failed to reconcile with local datastore: bootstrap data already \
             found and encrypted with different token",
        )),
    }
}

/// Writes the token files and the password file.
fn keep_tokens(data: &Path, pki: &Pki, credentials: &Credentials) -> Result<(), Failure> {
    let folder = data.join("server");
    let ca = &pki.server_ca.certificate;
    let server = token::secure(ca, &format!("server:{}", credentials.server));
    files::write(&folder.join("token"), &(server + "\n"), 0o600)?;
    files::link(&folder.join("token"), &folder.join("node-token"))?;
    match credentials.agent == credentials.server {
        true => files::link(&folder.join("token"), &folder.join("agent-token"))?,
        false => {
            let agent = token::secure(ca, &format!("node:{}", credentials.agent));
            files::write(&folder.join("agent-token"), &(agent + "\n"), 0o600)?;
        }
    }
    let passwords = format!(
        "{},server,server,k3s:server\n{},node,node,k3s:agent\n",
        credentials.server, credentials.agent
    );
    files::make_folder(&folder.join("cred"), 0o700)?;
    files::write(&folder.join("cred/passwd"), &passwords, 0o600)
}

fn serving_names(values: &Values, node: &NodeConfig) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = [
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "10.43.0.1",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    names.insert(node.name.clone());
    names.extend(node.addresses.iter().cloned());
    names.extend(values.list("tls-san"));
    names.extend(values.text("advertise-address").map(str::to_owned));
    names
}

fn kubeconfig_mode(values: &Values) -> u32 {
    values.text("write-kubeconfig-mode").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o600)
}

fn write_kubeconfig(settings: &Settings, values: &Values, cluster: &Cluster) -> Result<(), Failure> {
    let tls = cluster.data.join("server/tls");
    let admin = pki::keep(&tls, "client-admin", || cluster.pki.client("system:admin", "system:masters"))?;
    let path = settings.path(values.text("write-kubeconfig").unwrap_or("/etc/rancher/k3s/k3s.yaml"));
    let server = format!("https://127.0.0.1:{}", cluster.port);
    let ca = &cluster.pki.server_ca.certificate;
    kubeconfig::write(&path, &server, ca, &admin, kubeconfig_mode(values))?;
    kubeconfig::write(&cluster.data.join("server/cred/admin.kubeconfig"), &server, ca, &admin, 0o600)
}

/// `/v1-k3s/config`, the part agents of the simulation read.
fn for_agents(settings: &Settings, values: &Values, port: u16) -> Value {
    let first = |name: &str, default: &str| values.list(name).first().cloned().unwrap_or(default.to_owned());
    json!({
        "ClusterIPRange": first("cluster-cidr", "10.42.0.0/16"),
        "ServiceIPRange": first("service-cidr", "10.43.0.0/16"),
        "ClusterDNS": first("cluster-dns", "10.43.0.10"),
        "ClusterDomain": values.text("cluster-domain").unwrap_or("cluster.local"),
        "FlannelBackend": values.text("flannel-backend").unwrap_or("vxlan"),
        "HTTPSPort": port, "SupervisorPort": port,
        "Version": settings.version, "Architecture": machine::architecture(),
    })
}

/// `--cluster-reset`: puts a snapshot in the database's place, says so, and ends, as K3s does.
fn reset(values: &Values, places: &Places) -> Result<(), Failure> {
    if !values.on("cluster-reset") {
        return Ok(());
    }
    if let Some(snapshot) = values.text("cluster-reset-restore-path") {
        for end in ["-wal", "-shm"] {
            let mut name = places.database.as_os_str().to_owned();
            name.push(end);
            // There is none after a clean stop.
            let _ = std::fs::remove_file(name);
        }
        std::fs::copy(snapshot, &places.database)
            .map_err(|error| Failure::file(Path::new(snapshot), error))?;
    }
    Err(Failure::Reset)
}
