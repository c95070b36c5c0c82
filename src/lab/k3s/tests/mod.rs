//! The simulation as its clients see it: real HTTPS requests to servers and agents on this machine.

mod api;
mod argo;
mod charts;
mod nodes;
mod state;
mod workloads;

const VERSION: &str = "v1.36.3+k3s1";
