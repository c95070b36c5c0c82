//! Throw-away machines on this computer.

pub mod k3s;
