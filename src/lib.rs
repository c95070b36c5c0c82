//! datahub: an inventory of machines in TOML, converged over SSH.
//!
//! Data flows one way: inventory and roles → plan → questions → one probe a node → diff → apply → events.
//! Each layer imports only those below it: cli → engine → role, inventory → resource → probe → transport.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod artifact;
pub mod checksum;
pub mod cli;
pub mod cluster;
pub mod diagnostic;
pub mod engine;
pub mod inventory;
pub mod kube;
#[cfg(feature = "lab")]
pub mod lab;
pub mod printable;
pub mod probe;
pub mod resource;
pub mod role;
pub mod secret;
pub mod shell;
pub mod template;
pub mod transport;
pub mod ui;
