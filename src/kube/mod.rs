//! The K3s cluster's API, reached through the SSH connection to one of its servers.
//!
//! No kubectl, no Helm, no open port: every connection is a channel of the SSH session to the address the
//! server's own admin kubeconfig names. Everything here is idempotent, so what an API server that restarts or
//! a connection that drops has cut off is done again, for as long as [`Options::patience`] says.

pub mod argo;
pub mod client;
pub mod drain;
pub mod error;
pub mod helm_history;
pub mod kubeconfig;
pub mod kubeconfig_file;
mod kubeconfig_text;
pub mod maintenance;
pub mod node;
pub mod node_settings;
pub mod object;
mod release;
pub mod secret;
pub mod settle;
#[cfg(all(test, feature = "lab"))]
mod simulated_tests;
pub mod wait;
mod watch;

pub use client::{Cluster, Options, Readyz};
pub use error::Error;
pub use node_settings::NodeWanted;
pub use secret::{SecretSeen, SecretWanted};
pub use settle::{Expectation, ObjectSeen, ObjectWanted};

/// The field manager everything is applied under, also the owner of what a later run may remove again.
pub const MANAGER: &str = "datahub";
