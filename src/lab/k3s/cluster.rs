//! What a running server knows: the store, the authorities, the credentials, and whether it is ready.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::pki::Pki;
use super::settings::Settings;
use super::store::Store;
use super::tls::Serving;
use super::{Failure, files};

/// The passwords that let nodes join.
#[derive(Clone)]
pub struct Credentials {
    /// Servers and agents.
    pub server: String,
    /// Agents only; the server's where none is set.
    pub agent: String,
}

/// A server's state, shared by everything that runs in it.
pub struct Cluster {
    pub settings: Settings,
    pub store: Store,
    pub pki: Pki,
    pub credentials: Credentials,
    /// `/var/lib/rancher/k3s`
    pub data: PathBuf,
    pub node_name: String,
    /// The first address of the node.
    pub node_address: String,
    pub port: u16,
    /// Whether the database stands for embedded etcd.
    pub is_etcd: bool,
    /// What `/v1-k3s/config` tells agents.
    pub for_agents: Value,
    pub serving: Arc<Serving>,
    /// The names of the serving certificate.
    pub names: Mutex<BTreeSet<String>>,
    pub ready: AtomicBool,
}

impl Cluster {
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !self.settings.never_ready()
    }

    /// `<address>:<port>`
    pub fn address(&self) -> String {
        format!("{}:{}", self.node_address, self.port)
    }

    /// Adds names to the serving certificate; it is signed again where one is new.
    pub fn serve_as(&self, more: BTreeSet<String>) -> Result<(), Failure> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let before = names.len();
        names.extend(more);
        if names.len() == before && self.serving.is_set() {
            return Ok(());
        }
        let pair = self.pki.serving("kube-apiserver", &names)?;
        let tls = self.data.join("server/tls");
        files::write(&tls.join("serving-kube-apiserver.crt"), &pair.certificate, 0o600)?;
        files::write(&tls.join("serving-kube-apiserver.key"), &pair.key, 0o600)?;
        self.serving.set(&pair)
    }
}
