//! The cluster's own controllers: each looks at the store and takes one step towards what is wanted.
//!
//! A pass runs all of them, in order; passes follow each other until nothing changes. Not kept: autoscaling, cron
//! jobs, quotas, endpoints, volumes (claims stay Pending and pods do not wait for them), preemption.
//!
//! `helm` stands in for what K3s's Helm controller starts, `argo` and `longhorn` for what was installed so.

mod argo;
mod daemon_set;
mod definition;
mod deployment;
pub mod disruption;
mod garbage;
mod helm;
mod job;
mod longhorn;
mod namespace;
mod node;
mod pods;
mod replica_set;
mod scheduler;
mod service;
mod stateful_set;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::ApiError;
use super::cluster::Cluster;
use super::objects::{CONTROLLER, DeleteOptions, PatchKind, Writer};
use super::resources;
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
    let tools = Tools::new(&cluster.store, &cluster.settings);
    let mut changed = cluster.store.subscribe();
    loop {
        pass(&tools, enabled, &cluster.pki.server_ca.certificate);
        tokio::select! {
            news = changed.changed() => if news.is_err() { return Ok(()) },
            () = tokio::time::sleep(tools.rest()) => {}
        }
        tokio::time::sleep(BURST).await;
    }
}

fn pass(tools: &Tools<'_>, enabled: Enabled, ca: &str) {
    namespace::step(tools, ca);
    definition::step(tools);
    node::step(tools);
    if enabled.helm {
        helm::step(tools);
    }
    argo::step(tools);
    longhorn::step(tools);
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
    clock: Mutex<Clock>,
}

impl<'a> Tools<'a> {
    fn new(store: &'a Store, settings: &'a Settings) -> Self {
        let clock = Mutex::new(Clock { since: BTreeMap::new(), next: TICK });
        Self { store, settings, since: Instant::now(), clock }
    }

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
        let Some(resource) = resources::stored(self.store, id) else { return };
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

    /// Creates an object, or brings it into line as a manager's apply does.
    fn apply(&self, id: &str, namespace: &str, manager: &str, wanted: &Value) {
        let name = object::name(wanted);
        self.write(id, namespace, name, "", |writer| {
            let writer = Writer { manager, ..writer.clone() };
            writer.patch(PatchKind::Apply { force: true }, wanted).map(drop)
        });
    }

    /// Whether a while has passed since this was first asked under this name. If not, the next pass comes in time.
    fn has_passed(&self, wait: Duration, what: String) -> bool {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *clock.since.entry(what.clone()).or_insert_with(Instant::now);
        let left = wait.saturating_sub(since.elapsed());
        match left.is_zero() {
            true => drop(clock.since.remove(&what)),
            false => clock.next = clock.next.min(left),
        }
        left.is_zero()
    }

    /// How long nothing has to be looked at.
    fn rest(&self) -> Duration {
        std::mem::replace(&mut self.clock.lock().unwrap_or_else(PoisonError::into_inner).next, TICK)
    }
}

/// What the controllers wait for. Not kept: a restarted server waits anew.
struct Clock {
    since: BTreeMap<String, Instant>,
    next: Duration,
}
