//! A K3s cluster from end to end: the built binary, its roles and commands, real machines. K3s itself is the
//! simulation, or the executable that DATAHUB_LAB_K3S names.
#![cfg(feature = "lab")]

mod support;

#[path = "cluster/airgap.rs"]
mod airgap;
#[path = "cluster/bootstrap.rs"]
mod bootstrap;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/life.rs"]
mod life;
#[path = "provision/run.rs"]
mod run;
#[path = "cluster/servers.rs"]
mod servers;
#[path = "cluster/shipped.rs"]
mod shipped;
#[path = "components/table.rs"]
mod table;
#[path = "cluster/upgrade.rs"]
mod upgrade;
#[path = "support/web.rs"]
mod web;

use std::path::PathBuf;

use datahub::lab::k3s;
use run::Run;
use support::Fixture;

/// Names an executable that is taken for K3s's in the lab.
const GIVEN: &str = "DATAHUB_LAB_K3S";
const OLD: &str = "v1.35.4+k3s1";
const NEW: &str = "v1.36.3+k3s1";

/// A cluster of one server and two agents, and the lab it lives in.
struct Cluster {
    lab: Fixture,
    /// More lines of `[k3s]`. With a `source` its releases are the real ones; without, the lab has to help itself.
    k3s: String,
}

impl Cluster {
    /// Machines without a cluster yet.
    fn new(test: &str, version: &str) -> Option<Self> {
        Self::with(test, version, String::new())
    }

    /// The same with more lines of `[k3s]`.
    fn with(test: &str, version: &str, k3s: String) -> Option<Self> {
        let lab = support::lab(test)?;
        let mut cluster = Self { lab, k3s };
        cluster.describe(version, "");
        cluster.lab.command(&["lab", "up", "--name", &cluster.lab.name]).status().expect("the binary runs");
        cluster.lab.adopt();
        Some(cluster)
    }

    /// Writes the inventory. `more` goes to the agents' group.
    fn describe(&self, version: &str, more: &str) {
        let k3s = &self.k3s;
        let text = format!(
            r#"
[cluster]
name = "rehearsal"
[ssh]
user = "ops"
[k3s]
version = "{version}"
{k3s}
[groups.servers]
roles = ["k3s-server"]
[groups.agents]
roles = ["k3s-agent"]
{more}
[nodes.s]
host = "s.home.arpa"
arch = "amd64"
os = "debian-13"
groups = ["servers"]
[nodes.a]
host = "a.home.arpa"
arch = "amd64"
os = "debian-13"
groups = ["agents"]
labels = {{ "datahub.local/role" = "storage" }}
taints = ["dedicated=storage:PreferNoSchedule"]
[nodes.b]
host = "b.home.arpa"
arch = "amd64"
os = "debian-13"
groups = ["agents"]
"#
        );
        self.lab.write("datahub.toml", &text);
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let lab = format!("--lab={}", self.lab.name);
        args.iter().map(|arg| (*arg).to_owned()).chain([lab]).collect()
    }

    /// Runs datahub in the lab.
    fn command(&self, args: &[&str]) -> std::process::Command {
        let args = self.args(args);
        let mut command = self.lab.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        if self.k3s.contains("source") {
            command.env_remove(GIVEN);
        }
        command
    }

    /// A run of the engine, read from its events.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Run {
        let output = self.command(&[args, &["--format", "json"]].concat()).output().expect("the binary runs");
        run::read(&output)
    }

    /// A command of which only the end counts; what it said, both streams.
    #[track_caller]
    fn says(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.command(args).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let (code, said) = self.says(args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        said
    }

    /// A Node object as the cluster has it.
    #[track_caller]
    fn node(&self, node: &str) -> serde_json::Value {
        self.get(&format!("node {node}"))
    }

    /// What kubectl has, in JSON.
    #[track_caller]
    fn get(&self, what: &str) -> serde_json::Value {
        let text = self.lab.sh("s", &format!("k3s kubectl get {what} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    fn is_ready(&self, node: &str) -> bool {
        let object = self.node(node);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    }

    /// When K3s was last started on a node, and in which incarnation.
    #[track_caller]
    fn started(&self, node: &str) -> String {
        let unit = if node == "s" { "k3s" } else { "k3s-agent" };
        self.lab.sh(node, &format!("systemctl show -p InvocationID -p ActiveEnterTimestampMonotonic {unit}"))
    }

    #[track_caller]
    fn started_all(&self) -> Vec<String> {
        ["s", "a", "b"].map(|node| self.started(node)).into()
    }

    /// Sends a request to the API server as its administrator, from the server itself.
    #[track_caller]
    fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> String {
        self.lab.sh(
            "s",
            &format!(
                "cd /root && for f in client-admin.crt client-admin.key server-ca.crt; do cp /var/lib/rancher/k3s/server/tls/$f . || exit 1; done\n\
                 curl -sSf --cacert server-ca.crt --cert client-admin.crt --key client-admin.key -X {method} \
                 -H 'Content-Type: {kind}' -d '{body}' 'https://127.0.0.1:6443{path}'"
            ),
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }
}

/// Where a web server has a file of a release.
fn at(version: &str, file: &str) -> String {
    format!("/{}/{file}", version.replace('+', "%2B"))
}

/// The K3s of a release: the given one, or the simulation.
fn program(version: &str) -> Vec<u8> {
    if let Some(given) = std::env::var_os(GIVEN) {
        return std::fs::read(given).expect("DATAHUB_LAB_K3S names a file");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (small, made) = (folder.path().join("small"), folder.path().join("made"));
    // It goes to every node: without its symbols it is a quarter as large.
    let stripped =
        std::process::Command::new("strip").arg("-o").arg(&small).arg(env!("CARGO_BIN_EXE_datahub")).status();
    let binary = match stripped {
        Ok(status) if status.success() => small.as_path(),
        _ => std::path::Path::new(env!("CARGO_BIN_EXE_datahub")),
    };
    k3s::artifact(version, Some(binary), &made).expect("made");
    std::fs::read(made).expect("read")
}
