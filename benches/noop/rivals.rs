//! The other tools, from PyPI, each in a virtual environment that is made here and kept below `target`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use datahub::lab::{Format, Machine};

use super::mix::{self, Item};
use super::support::Fixture;

/// Raised by hand, so that figures of different days speak of the same programs.
const ANSIBLE: &str = "ansible-core==2.19.14";
const MITOGEN: &str = "mitogen==0.3.54";
const PYINFRA: &str = "pyinfra==3.10.0";

/// A tool, ready to be run against the node.
pub struct Rival {
    pub name: String,
    pub goal: Option<f64>,
    make: Box<dyn Fn(usize) -> Command>,
    /// Whether what it printed says that it found nothing to do.
    idle: fn(&str) -> bool,
}

impl Rival {
    /// A cold run: nothing of an earlier one is used again. `turn` differs between runs.
    pub fn command(&self, turn: usize) -> Command {
        (self.make)(turn)
    }

    /// Runs it until it finds nothing to do. The error says how it ended instead.
    pub fn settle(&self) -> Result<(), String> {
        let mut said = String::new();
        for turn in 0..2 {
            let output = self.command(1000 + turn).output().map_err(|error| error.to_string())?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            if !output.status.success() {
                return Err(format!("it failed:\n{said}"));
            }
            if (self.idle)(&said) {
                return Ok(());
            }
        }
        Err(format!("its second run still changes something:\n{said}"))
    }
}

/// All that can be had here; what cannot is told, with the reason.
pub fn ready(lab: &Fixture, inventory: &str, machine: &Machine, items: &[Item]) -> Vec<Rival> {
    let ansible = |name: &str, goal, packages: &[&str], strategy: &str| {
        let bin = environment(&format!("{name}-env"), packages)?;
        let config = write_ansible(lab, inventory, name, items, strategy, &bin);
        let (dir, node) = (lab.dir().join(name), machine.node.clone());
        Ok(Rival {
            name: packages.join(" with ").replace("==", " "),
            goal,
            make: Box::new(move |turn| {
                let mut command = Command::new(bin.join("ansible-playbook"));
                command.args(["-l", &node, "playbook.yml"]).current_dir(&dir).stdin(Stdio::null());
                command.env("ANSIBLE_CONFIG", &config).env("ANSIBLE_HOME", dir.join("home"));
                // A connection that an earlier run has left open would not be cold.
                command.env("ANSIBLE_SSH_CONTROL_PATH_DIR", dir.join(format!("cp{turn}")));
                command.env("ANSIBLE_NOCOLOR", "1").env_remove("SSH_AUTH_SOCK");
                command
            }),
            idle: |said| said.contains(" changed=0 ") && said.contains(" failed=0 "),
        })
    };
    let all: [Result<Rival, String>; 3] = [
        ansible("ansible", Some(200.0), &[ANSIBLE], ""),
        ansible("mitogen", None, &[ANSIBLE, MITOGEN], "mitogen_linear"),
        pyinfra(lab, machine, items),
    ];
    all.into_iter()
        .filter_map(|rival| rival.inspect_err(|why| println!("not measured: {why}")).ok())
        .collect()
}

/// Writes what ansible-playbook needs; returns the path of its configuration.
fn write_ansible(
    lab: &Fixture,
    inventory: &str,
    name: &str,
    items: &[Item],
    strategy: &str,
    bin: &Path,
) -> PathBuf {
    let real = lab.inventory(inventory);
    let hosts = lab.lab().inventory(&real, Format::Ansible).expect("written out");
    lab.write(&format!("{name}/hosts"), &hosts);
    lab.write(&format!("{name}/playbook.yml"), &mix::playbook(items));
    lab.write(&format!("{name}/templates/bench/service.j2"), mix::TEMPLATE);
    let strategy = match strategy {
        "" => String::new(),
        strategy => {
            let plugins = find(&bin.join("../lib"), "ansible_mitogen/plugins/strategy");
            format!("strategy = {strategy}\nstrategy_plugins = {}\n", plugins.display())
        }
    };
    lab.write(
        &format!("{name}/ansible.cfg"),
        &format!(
            "[defaults]\ninventory = hosts\ninterpreter_python = /usr/bin/python3\n{strategy}\n\
             [ssh_connection]\npipelining = True\n"
        ),
    )
}

fn pyinfra(lab: &Fixture, machine: &Machine, items: &[Item]) -> Result<Rival, String> {
    let bin = environment("pyinfra-env", &[PYINFRA])?;
    lab.write("pyinfra/deploy.py", &mix::deploy(items));
    lab.write("pyinfra/templates/bench/service.j2", mix::TEMPLATE);
    let (key, known_hosts) = login_files(lab, machine);
    let host = serde_json::json!({
        "ssh_user": machine.user,
        "ssh_key": key,
        "ssh_known_hosts_file": known_hosts,
        "ssh_strict_host_key_checking": "yes",
    });
    let host = host.to_string();
    let host = host.strip_suffix('}').expect("an object");
    lab.write(
        "pyinfra/inventory.py",
        &format!("hosts = [(\"{}\", {host}, \"_sudo\": True}})]\n", machine.address),
    );
    let dir = lab.dir().join("pyinfra");
    Ok(Rival {
        name: PYINFRA.replace("==", " "),
        goal: Some(40.0),
        make: Box::new(move |_| {
            let mut command = Command::new(bin.join("pyinfra"));
            command.args(["-y", "inventory.py", "deploy.py"]).current_dir(&dir).stdin(Stdio::null());
            command.env("HOME", &dir).env_remove("SSH_AUTH_SOCK");
            command
        }),
        // Operations, and how many of them changed something, failed, and changed nothing.
        idle: |said| {
            let total = said.lines().find(|line| line.trim_start().starts_with("Grand total"));
            let columns: Vec<&str> = total.unwrap_or_default().split_whitespace().skip(2).collect();
            matches!(columns.as_slice(), [all, "-", "-", same] if all == same)
        },
    })
}

/// The key and the known hosts that plain ssh is given for a machine.
fn login_files(lab: &Fixture, machine: &Machine) -> (String, String) {
    let ssh = lab.lab().ssh_command(&machine.node, None).expect("a machine of that node");
    let option = |name: &str| {
        ssh.get_args()
            .find_map(|arg| arg.to_str()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
            .unwrap_or_else(|| panic!("ssh is given no {name}"))
    };
    (option("IdentityFile"), option("UserKnownHostsFile"))
}

/// A virtual environment with these packages; its `bin`.
fn environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (bin, made) = (dir.join("bin"), dir.join("packages"));
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&made).is_ok_and(|there| there == wanted) {
        return Ok(bin);
    }
    println!("installing {} …", packages.join(", "));
    quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    quietly(Command::new(bin.join("pip")).args(["install", "--quiet"]).args(packages))?;
    std::fs::write(&made, wanted).map_err(|error| error.to_string())?;
    Ok(bin)
}

fn quietly(command: &mut Command) -> Result<(), String> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{what}: {}", said.trim()))
}

/// The folder of this name in a Python library, whatever that version's folder is called.
fn find(lib: &Path, name: &str) -> PathBuf {
    let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten();
    pythons
        .map(|python| python.path().join("site-packages").join(name))
        .find(|path| path.exists())
        .unwrap_or_default()
}
