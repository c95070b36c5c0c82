//! The main job from end to end: the built binary, the shipped inventory and roles, real machines.
#![cfg(feature = "lab")]

mod support;

#[path = "provision/boards.rs"]
mod boards;
#[path = "provision/engine.rs"]
mod engine;
#[path = "provision/fleet.rs"]
mod fleet;
#[path = "provision/lock_out.rs"]
mod lock_out;
#[path = "provision/main_job.rs"]
mod main_job;
#[path = "provision/run.rs"]
mod run;

/// The inventory that is shipped.
const SHIPPED: &str = include_str!("../inventory/datahub.toml");
