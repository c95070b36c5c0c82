//! The simulated K3s refuses to start where no lab is.
#![cfg(feature = "lab")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

#[test]
fn the_simulation_refuses_machines_outside_of_the_lab() {
    assert!(!std::path::Path::new("/etc/datahub-lab").exists(), "this machine carries the lab's marker");
    for name in ["k3s", "/usr/local/bin/k3s", "kubectl"] {
        let output = Command::new(env!("CARGO_BIN_EXE_datahub"))
            .arg0(name)
            .arg("--version")
            .output()
            .expect("started");
        assert!(!output.status.success(), "{name}");
        assert!(output.stdout.is_empty(), "{name}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("SIMULATION") && said.contains("/etc/datahub-lab"), "{said}");
    }
}

#[test]
fn under_its_own_name_the_binary_is_datahub() {
    let output = Command::new(env!("CARGO_BIN_EXE_datahub")).arg("--version").output().expect("started");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("datahub "));
}
