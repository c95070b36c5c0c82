//! The cluster's own controllers: each looks at the store and takes one step towards what is wanted.
//!
//! A pass runs all of them, in order; passes follow each other until nothing changes. Not kept: autoscaling, cron
//! jobs, quotas, endpoints, volumes (claims stay Pending and pods do not wait for them), preemption.

mod daemon_set;
mod deployment;
pub mod disruption;
mod garbage;
mod helm;
mod job;
mod namespace;
mod node;
mod pods;
mod replica_set;
mod scheduler;
mod service;
mod stateful_set;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::ApiError;
use super::cluster::Cluster;
use super::objects::{CONTROLLER, DeleteOptions, Writer};
use super::resources::{self, Resource};
use super::settings::Settings;
use super::store::{Key, Object, Store};
use super::{Failure, log, object};

/// What happens at once is looked at once.
const BURST: Duration = Duration::from_millis(20);
/// Time passes, too: leases and tolerations run out.
const TICK: Duration = Duration::from_secs(1);

/// Which of K3s's own controllers run.
#[derive(Debug, Clone, Copy)]
pub struct Enabled {
    pub helm: bool,
    pub service_lb: bool,
}

/// Runs the controllers whenever something changes.
pub async fn run(cluster: Arc<Cluster>, enabled: Enabled) -> Result<(), Failure> {
    let tools = Tools { store: &cluster.store, settings: &cluster.settings, since: Instant::now() };
    let mut changed = cluster.store.subscribe();
    loop {
        pass(&tools, enabled, &cluster.pki.server_ca.certificate);
        tokio::select! {
            news = changed.changed() => if news.is_err() { return Ok(()) },
            () = tokio::time::sleep(TICK) => {}
        }
        tokio::time::sleep(BURST).await;
    }
}

fn pass(tools: &Tools<'_>, enabled: Enabled, ca: &str) {
    namespace::step(tools, ca);
    node::step(tools);
    if enabled.helm {
        helm::step(tools);
    }
    deployment::step(tools);
    replica_set::step(tools);
    stateful_set::step(tools);
    daemon_set::step(tools);
    job::step(tools);
    scheduler::step(tools);
    disruption::step(tools);
    if enabled.service_lb {
        service::step(tools);
    }
    garbage::step(tools);
}

/// What a controller works with.
pub struct Tools<'a> {
    store: &'a Store,
    settings: &'a Settings,
    /// When the controllers started.
    since: Instant,
}

impl Tools<'_> {
    /// The objects of a resource (`pods`, `deployments.apps`), in every namespace.
    fn list(&self, id: &str) -> Vec<Object> {
        self.store.list(id, "").0
    }

    fn get(&self, id: &str, namespace: &str, name: &str) -> Option<Object> {
        self.store.get(&Key::new(id, namespace, name))
    }

    fn create(&self, id: &str, namespace: &str, wanted: Value) {
        let name = object::name(&wanted).to_owned();
        self.write(id, namespace, &name, "", |writer| writer.create(wanted).map(drop));
    }

    /// Changes an object; what does not change it writes nothing.
    fn modify(&self, id: &str, object: &Value, change: impl FnOnce(&mut Value)) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        self.write(id, namespace, name, "", |writer| writer.modify(change).map(drop));
    }

    /// Changes an object's status.
    fn modify_status(&self, id: &str, object: &Value, change: impl FnOnce(&mut Value)) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        self.write(id, namespace, name, "status", |writer| writer.modify(change).map(drop));
    }

    /// Deletes an object as a client would: a running pod goes when its node has stopped it.
    fn delete(&self, id: &str, object: &Value) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        let options = DeleteOptions { uid: Some(object::uid(object).to_owned()), ..DeleteOptions::default() };
        self.write(id, namespace, name, "", |writer| writer.delete(&options).map(drop));
    }

    /// Takes an object away without waiting for anybody.
    fn remove(&self, id: &str, object: &Value) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        self.write(id, namespace, name, "", |writer| writer.remove());
    }

    fn write(
        &self,
        id: &str,
        namespace: &str,
        name: &str,
        subresource: &str,
        action: impl FnOnce(&Writer<'_>) -> Result<(), ApiError>,
    ) {
        let Some(resource) = self.resource(id) else { return };
        let writer = Writer {
            store: self.store,
            resource: &resource,
            namespace,
            name,
            subresource,
            manager: CONTROLLER,
            dry_run: false,
        };
        match action(&writer) {
            Ok(()) => {}
            // Someone else was quicker; the next pass sees it.
            Err(error) if matches!(error.code, 403 | 404 | 409) => {}
            Err(error) => log::error(format!("error syncing {id} {namespace}/{name}: {}", error.message)),
        }
    }

    fn resource(&self, id: &str) -> Option<Resource> {
        let (plural, group) = id.split_once('.').unwrap_or((id, ""));
        let version = if group == "autoscaling" { "v2" } else { "v1" };
        resources::find(self.store, group, version, plural)
    }
}
