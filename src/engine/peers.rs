//! The other nodes that a node's run has to ask: the servers of its cluster. One connection to each for the whole
//! run, opened when first needed.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::Connecting;
use crate::kube::{self, Cluster};
use crate::transport::{self, Transport};

/// Connects to a node of the inventory, by its name.
pub type Connector = Arc<dyn Fn(&str) -> Connecting + Send + Sync>;

/// Connections to nodes by name, and whose turn it is to be out of service.
pub struct Peers {
    connect: Connector,
    open: Mutex<HashMap<String, Peer>>,
    out_at_once: u32,
    places: Semaphore,
}

#[derive(Clone)]
struct Peer {
    transport: Arc<dyn Transport>,
    cluster: Option<Cluster>,
}

impl Peers {
    pub fn new(connect: Connector) -> Self {
        Self::with_places(connect, 1)
    }

    /// `out_at_once`: how many nodes may be out of service at the same time.
    pub fn with_places(connect: Connector, out_at_once: usize) -> Self {
        let out_at_once = u32::try_from(out_at_once.max(1)).unwrap_or(u32::MAX);
        let places = Semaphore::new(out_at_once as usize);
        Self { connect, open: Mutex::default(), out_at_once, places }
    }

    /// Held while a node of the cluster is out of service. `alone`: no other one may be, as for a server. `None` once
    /// the run is over.
    pub async fn turn(&self, alone: bool) -> Option<SemaphorePermit<'_>> {
        self.places.acquire_many(if alone { self.out_at_once } else { 1 }).await.ok()
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
