//! A **simulated K3s** for rehearsals in the lab, where the real release cannot be downloaded.
//!
//! It keeps K3s's *outward contract*, so that everything done to a real cluster runs unchanged against it. It says
//! that it is a simulation in its version, its log and on every Node, and starts only on a machine that carries the
//! lab's marker, [`MARKER`]. It is no evidence that the real K3s works on a machine: it needs no cgroups, no kernel
//! modules, no images, and runs no container.
//!
//! | | kept | not kept |
//! |---|---|---|
//! | artifact | one file, a checksum a version, `k3s --version`, `kubectl`, `crictl`, `ctr` by link | one file for each architecture: this binary's only |
//! | configuration | flags, `config.yaml` and drop-ins, merging, unknown keys | flags without an outward effect are accepted and ignored; `protect-kernel-defaults` checks nothing |
//! | systemd | `READY=1` when it serves, `STOPPING=1`, exit codes, log lines | watchdog |
//! | data directory | tokens, CAs, certificates, kubeconfig, manifests, kine's SQLite table, node password, kubelet and containerd files | embedded etcd: `server/db/etcd` holds SQLite; encryption of the bootstrap row and of secrets; images |
//! | joining | token forms, CA check, node password, bootstrap tokens, re-imaged nodes, a newer kubelet (stricter than K3s) | tunnel, load balancer; more servers pass on to the first: no quorum, no failover |
//! | API | get, list, watch, create, update, three patches, server-side apply with field managers, delete with propagation and finalizers, dry run, status, eviction, scale, discovery, custom resources once they are established, Kubernetes's errors | RBAC (administrators and nodes may do everything), validation, admission, conversion, tables, OpenAPI, exec; `log` is one line |
//! | controllers | Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, budgets, taints, scheduling by node, garbage, namespaces, definitions, load balancer addresses | see `controllers` |
//! | Helm | HelmChart and HelmChartConfig: conditions, Jobs, failure policies, values from everywhere, release records, the workloads and definitions of the charts in `controllers/helm/charts.toml` with Helm's marks | charts themselves, hooks, Services; an unknown chart installs one Deployment |
//! | Argo CD | once its chart is up: projects, applications with their syncs, health, conditions and refreshes, sets of list generators, watched namespaces | repositories: applications have the same two resources, which nobody makes; see `controllers/argo` |
//! | times | a silent node is NotReady after 10 s; retries come sooner | 50 s in Kubernetes; minutes |
//!
//! Levers for rehearsals, which are files and names, not flags: see [`levers`].
//!
//! The way through: `cli` starts a `server` or an `agent`; `listen` → `api` → `objects` → `store` for requests;
//! `controllers` and the agents' `kubelet` react to the store's changes.

mod agent;
mod api;
mod apply;
mod artifact;
mod bootstrap;
mod cli;
mod client;
mod cluster;
mod config;
mod controllers;
mod defaults;
mod failure;
mod fields;
mod files;
mod glob;
mod kubeconfig;
mod kubectl;
mod kubelet;
pub mod levers;
mod listen;
mod lists;
mod log;
mod machine;
mod manifests;
mod node_password;
mod notify;
mod object;
mod objects;
mod patch;
mod pki;
mod resources;
mod runtime;
mod selector;
mod server;
mod settings;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod yaml;

pub use artifact::{artifact, version_of};
pub use cli::{is_called, main};
pub use failure::Failure;
pub use settings::{MARKER, NEVER_READY};

/// How nodes present themselves to the supervisor.
fn user_agent(version: &str) -> String {
    format!("k3s/{version} (linux/{}) simulated", machine::architecture())
}
