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
#[path = "provision/stretch.rs"]
mod stretch;

/// The machines of the shipped inventory without their cluster, which has tests of its own: these runs are of one
/// machine alone, or of many that depend on each other in nothing.
fn machines() -> String {
    let mut text = include_str!("../inventory/datahub.toml").to_owned();
    for cluster in ["roles = [\"k3s-server\"]", "roles = [\"k3s-agent\"]", "vars.longhorn = true"] {
        assert_eq!(text.matches(cluster).count(), 1, "{cluster}");
        text = text.replace(cluster, "");
    }
    // The components, and their variables.
    for (begin, end) in [("components = [", "]\n"), ("# Of the components.", "\n\n")] {
        let (before, rest) = text.split_once(begin).expect(begin);
        let (_, after) = rest.split_once(end).expect(end);
        text = format!("{before}\n{after}");
    }
    text
}
