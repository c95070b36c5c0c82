//! A **simulated K3s** for rehearsals in the lab, where the real release cannot be downloaded.

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
mod kubeconfig;
mod kubectl;
mod kubelet;
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
