//! Where one simulated node lives and how fast its clocks go.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that marks a machine of the lab. Without it the simulation does not start.
pub const MARKER: &str = "/etc/datahub-lab";
/// While this file is there, a server or an agent of this node never gets ready.
pub const NEVER_READY: &str = "/etc/datahub-lab.d/k3s-never-ready";

/// A node's surroundings. `Settings::machine` for a real start; tests choose a folder of their own.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Put before every absolute path: `/` on a machine.
    pub root: PathBuf,
    /// `v1.36.3+k3s1`.
    pub version: String,
    /// How often an agent renews its lease.
    pub heartbeat: Duration,
    /// How long after its last heartbeat a node is NotReady. Kubernetes waits 50 s (40 s before 1.32).
    pub grace: Duration,
    /// How long a container takes to start.
    pub pod_start: Duration,
    /// How long those take who react to what others made: a definition to be established, an application to be
    /// compared, synced, healthy.
    pub moment: Duration,
    /// How long a node that was refused waits before it asks again. K3s: 2 s, and 5 to 10 s for its certificates.
    pub retry: Duration,
    /// How often the manifests folder is looked at. K3s: 15 s.
    pub manifests: Duration,
}

impl Settings {
    /// This machine.
    pub fn machine(version: &str) -> Self {
        Self {
            root: PathBuf::from("/"),
            version: version.to_owned(),
            heartbeat: Duration::from_secs(3),
            grace: Duration::from_secs(10),
            pod_start: Duration::from_millis(700),
            moment: Duration::from_millis(500),
            retry: Duration::from_secs(2),
            manifests: Duration::from_secs(2),
        }
    }

    /// An absolute path of the node.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether someone asked for a node that never gets ready.
    pub fn never_ready(&self) -> bool {
        self.path(NEVER_READY).exists()
    }
}
