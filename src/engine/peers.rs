//! The other nodes that a node's run has to ask: the servers of its cluster. One connection to each for the whole
//! run, opened when first needed.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::Connecting;
use crate::kube::{self, Cluster};
use crate::transport::{self, Transport};

/// Connects to a node of the inventory, by its name.
pub type Connector = Arc<dyn Fn(&str) -> Connecting + Send + Sync>;

pub(super) struct Peers {
    connect: Connector,
    open: Mutex<HashMap<String, Peer>>,
    turn: Mutex<()>,
}

#[derive(Clone)]
struct Peer {
    transport: Arc<dyn Transport>,
    cluster: Option<Cluster>,
}

impl Peers {
    pub fn new(connect: Connector) -> Self {
        Self { connect, open: Mutex::default(), turn: Mutex::new(()) }
    }

    /// Held while a node of the cluster is taken out of service: one after another.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub async fn transport(&self, node: &str) -> Result<Arc<dyn Transport>, transport::Error> {
        let mut open = self.open.lock().await;
        Ok(self.peer(&mut open, node).await?.transport.clone())
    }

    /// The API of the cluster that `server` is a server of.
    pub async fn cluster(&self, server: &str) -> Result<Cluster, kube::Error> {
        let mut open = self.open.lock().await;
        let peer = self.peer(&mut open, server).await?;
        if let Some(cluster) = &peer.cluster {
            return Ok(cluster.clone());
        }
        let cluster = Cluster::connect(peer.transport.clone(), kube::Options::default()).await?;
        peer.cluster = Some(cluster.clone());
        Ok(cluster)
    }

    async fn peer<'a>(
        &self,
        open: &'a mut HashMap<String, Peer>,
        node: &str,
    ) -> Result<&'a mut Peer, transport::Error> {
        use std::collections::hash_map::Entry;
        match open.entry(node.to_owned()) {
            Entry::Occupied(peer) => Ok(peer.into_mut()),
            Entry::Vacant(place) => {
                let transport = (self.connect)(node).await?;
                Ok(place.insert(Peer { transport, cluster: None }))
            }
        }
    }
}
