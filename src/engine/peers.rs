//! The other nodes that a node's run has to ask: the servers of its cluster. One connection to each for the whole
//! run, opened when first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::Connecting;
use crate::kube::{self, Cluster};
use crate::transport::{self, Transport};

/// Connects to a node of the inventory, by its name.
pub type Connector = Arc<dyn Fn(&str) -> Connecting + Send + Sync>;

/// Connections to nodes by name, and whose turn it is to be out of service.
pub struct Peers {
    connect: Connector,
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    out_at_once: u32,
    places: Semaphore,
}

/// What has been opened to one node. What failed is tried again by whoever asks next.
#[derive(Default)]
struct Peer {
    transport: OnceCell<Arc<dyn Transport>>,
    cluster: OnceCell<Cluster>,
}

impl Peers {
    pub fn new(connect: Connector) -> Self {
        Self::with_places(connect, 1)
    }

    /// `out_at_once`: how many nodes may be out of service at the same time.
    pub fn with_places(connect: Connector, out_at_once: usize) -> Self {
        let out_at_once = u32::try_from(out_at_once.max(1)).unwrap_or(u32::MAX);
        let places = Semaphore::new(out_at_once as usize);
        Self { connect, peers: Mutex::default(), out_at_once, places }
    }

    /// Held while a node of the cluster is out of service. `alone`: no other one may be, as for a server. `None` once
    /// the run is over.
    pub async fn turn(&self, alone: bool) -> Option<SemaphorePermit<'_>> {
        self.places.acquire_many(if alone { self.out_at_once } else { 1 }).await.ok()
    }

    /// The connection to a node. A node that takes long to answer holds up nobody who asks for another one.
    pub async fn transport(&self, node: &str) -> Result<Arc<dyn Transport>, transport::Error> {
        let peer = self.peer(node);
        Ok(peer.transport.get_or_try_init(|| (self.connect)(node)).await?.clone())
    }

    /// The API of the cluster that `server` is a server of.
    pub async fn cluster(&self, server: &str) -> Result<Cluster, kube::Error> {
        let peer = self.peer(server);
        let connecting = || async {
            let transport = self.transport(server).await?;
            Cluster::connect(transport, kube::Options::default()).await
        };
        Ok(peer.cluster.get_or_try_init(connecting).await?.clone())
    }

    fn peer(&self, node: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry(node.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::local::Local;
    use crate::transport::prompt::NoPrompts;

    #[tokio::test]
    async fn a_node_that_does_not_answer_holds_up_no_other_one() {
        let connections = Arc::new(Mutex::new(Vec::new()));
        let noted = connections.clone();
        let connector: Connector = Arc::new(move |node| {
            noted.lock().unwrap().push(node.to_owned());
            let silent = node == "silent";
            Box::pin(async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                Ok(Arc::new(Local::new(Arc::new(NoPrompts), None)) as Arc<dyn Transport>)
            })
        });
        let peers = Arc::new(Peers::new(connector));
        let waiting = peers.clone();
        let silent = tokio::spawn(async move { waiting.transport("silent").await.map(drop) });
        let (first, second) = tokio::join!(peers.transport("a"), peers.transport("a"));
        assert!(first.is_ok() && second.is_ok() && !silent.is_finished());
        assert_eq!(connections.lock().unwrap().iter().filter(|node| *node == "a").count(), 1);
        silent.abort();
    }
}
