//! The fixture of every test that needs machines: a lab of its own, gone when the test ends.
//!
//! ```ignore
//! let Some(mut lab) = support::lab("names") else { return };
//! lab.up(INVENTORY, &["a", "b"]);
//! lab.datahub(&["provision", "--all"]).assert().success();
//! assert_eq!(lab.sh("a", "hostname"), "a");
//! ```
//! The inventory the binary is run with is that of the machines, written out: no `--lab` is needed, and no real
//! host is in it. What a machine is like is asked with plain `ssh` ([`Fixture::sh`]), not with what is tested.
#![allow(dead_code, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use datahub::inventory::Inventory;
use datahub::lab::{self, Format, Lab, Machine};

/// Labs of tests are named `test-PID-COUNT`, so that those of a test that was killed are known.
const PREFIX: &str = "test-";

/// A lab and a folder for the files of a test.
pub struct Fixture {
    pub name: String,
    dir: tempfile::TempDir,
    lab: Option<Lab>,
}

/// A fixture without machines yet. `None`, with the reason on stderr, where no lab can run; with
/// DATAHUB_LAB=require that is a failure.
pub fn lab(test: &str) -> Option<Fixture> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if let Err(reason) = lab::available() {
        let required = std::env::var_os("DATAHUB_LAB").is_some_and(|value| value == "require");
        assert!(!required, "{test}: {reason}");
        eprintln!("{test} skipped: {reason}");
        return None;
    }
    remove_abandoned();
    let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    Some(Fixture { name, dir: tempfile::tempdir().expect("a folder"), lab: None })
}

/// Removes the labs of test processes that are gone.
fn remove_abandoned() {
    for name in Lab::list().unwrap_or_default() {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Lab::down(&name, &|_| ());
        }
    }
}

/// An inventory of machines that differ in little: each with its name, release and roles.
pub fn inventory(user: &str, nodes: &[(&str, &str, &[&str])]) -> String {
    let mut text = format!("[cluster]\nname = \"test\"\n\n[ssh]\nuser = \"{user}\"\n");
    for (node, os, roles) in nodes {
        text.push_str(&format!(
            "\n[nodes.{node}]\nhost = \"{node}.home.arpa\"\narch = \"amd64\"\nos = \"{os}\"\nroles = {roles:?}\n"
        ));
    }
    text
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(&self.name, &|_| ()) {
            eprintln!("the lab {} is not gone: {error}", self.name);
        }
    }
}

impl Fixture {
    /// The folder `--inventory` means: its datahub.toml is written by [`Fixture::up`].
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file below [`Fixture::dir`]: a role, a template, a secret.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir().join(path);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Brings up machines for nodes of an inventory, and writes the inventory that means them.
    pub fn up(&mut self, inventory: &str, nodes: &[&str]) -> &Lab {
        let real = self.inventory(inventory);
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        let lab = Lab::up(&self.name, &real, &nodes, &|progress| eprintln!("{progress}"));
        let lab = lab.unwrap_or_else(|error| panic!("the lab does not come up: {error}"));
        let text = lab.inventory(&real, Format::Toml).expect("written out");
        self.write("datahub.toml", &text);
        self.lab.insert(lab)
    }

    /// Takes up the lab that the binary itself has brought up with `--lab=NAME`.
    pub fn adopt(&mut self) -> &Lab {
        self.lab.insert(Lab::open(&self.name).expect("the binary brought it up"))
    }

    /// Reads an inventory of real hosts, which is kept where the binary does not look for it.
    pub fn inventory(&self, text: &str) -> Inventory {
        let path = self.write("real/datahub.toml", text);
        datahub::inventory::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
    }

    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("up comes first")
    }

    pub fn machine(&self, node: &str) -> Machine {
        let machines = self.lab().machines().expect("readable");
        machines.into_iter().find(|machine| machine.node == node).expect("a machine of that node")
    }

    /// The numeric address of a machine.
    pub fn address(&self, node: &str) -> String {
        self.machine(node).address
    }

    /// Runs shell on a machine as root, by plain ssh. What it prints, without the last newline.
    #[track_caller]
    pub fn sh(&self, node: &str, script: &str) -> String {
        let output = self.sh_output(node, "root", script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{node}: {script}\n{}\n{said}", output.status);
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Runs shell on a machine as some user, by plain ssh, however it ends.
    pub fn sh_output(&self, node: &str, user: &str, script: &str) -> Output {
        let mut ssh = self.lab().ssh_command(node, Some(user)).expect("a machine of that node");
        ssh.args(["-o", "BatchMode=yes", "--", script]).output().expect("ssh runs")
    }

    /// The built binary, to be run against the machines. A home of its own keeps this computer's SSH
    /// configuration, agent and records out of the test.
    pub fn datahub(&self, args: &[&str]) -> assert_cmd::Command {
        assert_cmd::Command::from_std(self.command(args))
    }

    /// The same, to be started and not waited for.
    pub fn command(&self, args: &[&str]) -> Command {
        let home = self.dir().join("home");
        std::fs::create_dir_all(&home).expect("made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_datahub"));
        command.arg("--inventory").arg(self.dir()).args(args).current_dir(self.dir());
        command.env("DATAHUB_ROLES", self.dir()).env("HOME", home).env_remove("SSH_AUTH_SOCK");
        for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(variable);
        }
        command
    }
}
