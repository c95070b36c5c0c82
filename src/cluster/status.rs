//! How the cluster is: every member's readiness, version and drift from the API, its disk and memory from the machine,
//! and the applications that Argo CD follows.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::{Access, Error, Member};
use crate::kube::argo::Application;
use crate::kube::node::Node;
use crate::shell::quote;

/// How long a machine may take to say how full it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of something there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Use {
    pub used: u64,
    pub total: u64,
}

impl std::fmt::Display for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = (self.used * 100).checked_div(self.total).unwrap_or_default();
        write!(f, "{percent} % of {}", crate::artifact::size(self.total))
    }
}

/// What a machine says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Of the file system that holds K3s's data.
    pub disk: Option<Use>,
    pub memory: Option<Use>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub node: String,
    pub role: &'static str,
    /// `Ready`, `NotReady: …`, `not joined`, `cordoned`.
    pub state: String,
    pub healthy: bool,
    /// `v1.36.3+k3s1`.
    pub version: Option<String>,
    /// `containerd://2.3.2-k3s1`.
    pub runtime: Option<String>,
    /// Labels, taints and annotations that are not as the inventory says; `None` if it cannot be told.
    pub drift: Option<Vec<String>>,
    #[serde(flatten)]
    pub machine: Machine,
    /// Why the machine could not be asked.
    pub unreachable: Option<String>,
}

/// The names of what differs between a node (its object in the API's JSON) and the inventory.
pub type Drift<'a> = &'a (dyn Fn(&Member, &serde_json::Value) -> Option<Vec<String>> + Send + Sync);

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// Every member, in their order.
    pub nodes: Vec<Row>,
    /// What Argo CD follows; none where there is no Argo CD.
    pub applications: Vec<Application>,
}

impl Picture {
    /// Every node Ready and reached, every application as Git says.
    pub fn is_well(&self) -> bool {
        self.nodes.iter().all(|row| row.healthy && row.unreachable.is_none())
            && self.applications.iter().all(|application| application.message.is_none())
    }
}

/// How the cluster is. Fails only if the API cannot be asked.
pub async fn look(access: &Access, drift: Drift<'_>) -> Result<Picture, Error> {
    let applications = async { Ok(access.api().await?.applications().await?.unwrap_or_default()) };
    let (nodes, applications) = tokio::try_join!(rows(access, drift), applications)?;
    Ok(Picture { nodes, applications })
}

async fn rows(access: &Access, drift: Drift<'_>) -> Result<Vec<Row>, Error> {
    let (rows, mut machines) = tokio::join!(in_cluster(access, drift), machines(access));
    let mut rows = rows?;
    for row in &mut rows {
        match machines.remove(&row.node) {
            Some(Ok(machine)) => row.machine = machine,
            Some(Err(error)) => row.unreachable = Some(error.message),
            None => {}
        }
    }
    Ok(rows)
}

/// What the API knows of every member.
async fn in_cluster(access: &Access, drift: Drift<'_>) -> Result<Vec<Row>, Error> {
    let api = access.api().await?;
    let mut rows = Vec::new();
    for member in &access.members.0 {
        let object = api.raw_node(&member.name).await?;
        // A Node always has a JSON form.
        let differing = object.as_ref().and_then(|node| serde_json::to_value(node).ok());
        let differing = differing.and_then(|object| drift(member, &object));
        rows.push(row(member, object.as_ref().map(Node::from), differing));
    }
    Ok(rows)
}

fn row(member: &Member, node: Option<Node>, drift: Option<Vec<String>>) -> Row {
    let state = match &node {
        None => "not joined".to_owned(),
        Some(node) if !node.ready && node.why.is_empty() => "NotReady".to_owned(),
        Some(node) if !node.ready => format!("NotReady: {}", node.why),
        Some(node) if node.unschedulable => "Ready, cordoned".to_owned(),
        Some(node) if !node.pressure.is_empty() => format!("Ready, {}", node.pressure.join(", ")),
        Some(_) => "Ready".to_owned(),
    };
    let healthy = node.as_ref().is_some_and(|node| node.ready && node.pressure.is_empty());
    let (version, runtime) = node.map(|node| (node.kubelet_version, node.container_runtime)).unzip();
    Row {
        node: member.node.clone(),
        role: if member.server { "server" } else { "agent" },
        state,
        healthy,
        version,
        runtime,
        drift,
        machine: Machine::default(),
        unreachable: None,
    }
}

async fn machines(access: &Access) -> BTreeMap<String, Result<Machine, Error>> {
    let asking = access.members.0.iter().map(|member| async move {
        let said = access.sh(&member.node, "ask how full it is", &figures(&member.data_dir), PATIENCE).await;
        (member.node.clone(), said.map(|said| read(&said)))
    });
    join_all(asking).await.into_iter().collect()
}

fn figures(data_dir: &str) -> String {
    format!(
        "d={dir}; while [ ! -d \"$d\" ]; do d=${{d%/*}}; d=${{d:-/}}; done\n\
         LC_ALL=C df -P -B1 -- \"$d\" | sed -n '2s/^[^ ]* */disk /p'\n\
         sed -n 's/^MemTotal: *\\([0-9]*\\) kB/total \\1/p; s/^MemAvailable: *\\([0-9]*\\) kB/available \\1/p' /proc/meminfo",
        dir = quote(data_dir)
    )
}

fn read(text: &str) -> Machine {
    let numbers = |word: &str| -> Option<Vec<u64>> {
        let line = text.lines().find_map(|line| line.strip_prefix(word))?;
        Some(line.split_whitespace().map_while(|number| number.parse().ok()).collect())
    };
    let disk = numbers("disk ").and_then(|n| Some(Use { total: *n.first()?, used: *n.get(1)? }));
    let kib = |word: &str| numbers(word)?.first().map(|kib| kib * 1024);
    let memory = kib("total ")
        .zip(kib("available "))
        .map(|(total, available)| Use { total, used: total.saturating_sub(available) });
    Machine { disk, memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_how_full_it_is() {
        let shell = figures("/no/such/folder");
        let output = std::process::Command::new("sh").args(["-c", &shell]).output().expect("sh runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let machine = read(&said);
        let (disk, memory) = (machine.disk.expect("a disk"), machine.memory.expect("memory"));
        assert!(disk.total > disk.used && memory.total > memory.used && memory.used > 0, "{said}");
        assert_eq!(read("rubbish"), Machine::default());
        assert_eq!(Use { used: 1 << 30, total: 1 << 32 }.to_string(), "25 % of 4.0 GiB");
    }

    #[test]
    fn states() {
        let member = Member { node: "n".into(), name: "n".into(), server: false, data_dir: "/d".into() };
        let ready = Node { ready: true, ..Node::default() };
        for (node, state, healthy) in [
            (None, "not joined", false),
            (
                Some(Node { why: "KubeletNotReady: x".into(), ..Node::default() }),
                "NotReady: KubeletNotReady: x",
                false,
            ),
            (Some(Node { unschedulable: true, ..ready.clone() }), "Ready, cordoned", true),
            (
                Some(Node { pressure: vec!["DiskPressure".into()], ..ready.clone() }),
                "Ready, DiskPressure",
                false,
            ),
            (Some(ready), "Ready", true),
        ] {
            let row = row(&member, node, None);
            assert_eq!((row.state.as_str(), row.healthy), (state, healthy));
        }
    }
}
