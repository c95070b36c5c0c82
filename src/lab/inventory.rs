//! A lab as an inventory: in memory for `--lab`, as text for datahub and for other tools.

use std::fmt::Write as _;
use std::process::Command;

use super::machine::Record;
use super::state::{Folder, State};
use super::{Error, keys};
use crate::artifact::release::Source;
use crate::inventory::{HostKeys, Inventory, K3s, Node, Ssh};

/// A form an inventory is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// datahub's own: the inventory with the machines in place of the hosts. `arch` and `os` are the
    /// machines', so that it holds without `--lab`.
    Toml,
    /// An Ansible inventory in INI form. The machines have no Python until a playbook installs it.
    Ansible,
    /// An ssh_config(5) with the nodes' names as hosts.
    SshConfig,
}

/// See [`super::Lab::stand_in`].
pub fn stand_in(folder: &Folder, state: &State, inventory: &Inventory) -> Inventory {
    let nodes = inventory.nodes.values().filter_map(|node| {
        let record = state.machines.get(&node.name)?;
        let note = record.note.as_deref().unwrap_or("as the inventory says");
        let stand_in = Node {
            host: state.address(record),
            address: state.address(record).parse().ok(),
            ssh: Ssh {
                user: Some(record.user.clone()),
                port: Some(22),
                identity_file: Some(keys::login(folder)),
                proxy_jump: Some("none".to_owned()),
                host_keys: HostKeys::Strict,
                host_key: Some(keys::host_public(folder, record)),
            },
            stand_in: Some(format!("a container of the lab {}: {note}", folder.name)),
            ..node.clone()
        };
        Some((node.name.clone(), stand_in))
    });
    Inventory { nodes: nodes.collect(), ..inventory.clone() }
}

/// See [`super::Lab::inventory`].
pub fn render(
    folder: &Folder,
    state: &State,
    inventory: &Inventory,
    format: Format,
) -> Result<String, Error> {
    match format {
        Format::Toml => toml(folder, state, inventory),
        Format::Ansible => Ok(ansible(folder, state, inventory)),
        Format::SshConfig => Ok(ssh_config(folder, state)),
    }
}

/// See [`super::Lab::ssh_command`].
pub fn ssh_command(folder: &Folder, state: &State, record: &Record, user: Option<&str>) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none"]);
    for (option, value) in options(folder) {
        ssh.arg("-o").arg(format!("{option}={value}"));
    }
    ssh.arg(format!("{}@{}", user.unwrap_or(&record.user), state.address(record)));
    ssh
}

/// The machines' keys as a known_hosts file.
pub fn known_hosts(folder: &Folder, state: &State) -> String {
    let lines = state.machines.values().map(|record| {
        format!("{},{} {}\n", state.address(record), record.node, keys::host_public(folder, record))
    });
    lines.collect()
}

/// The options of ssh_config(5) that make a login independent of the user's own configuration.
fn options(folder: &Folder) -> [(&'static str, String); 6] {
    let path = |name: &str| folder.join(name).display().to_string();
    [
        ("IdentityFile", keys::login(folder).display().to_string()),
        ("IdentitiesOnly", "yes".to_owned()),
        ("UserKnownHostsFile", path("known_hosts")),
        ("GlobalKnownHostsFile", "none".to_owned()),
        ("StrictHostKeyChecking", "yes".to_owned()),
        ("LogLevel", "ERROR".to_owned()),
    ]
}

/// The inventory's own text with the nodes exchanged, so that nothing it says is lost.
fn toml(folder: &Folder, state: &State, inventory: &Inventory) -> Result<String, Error> {
    let bad = |why: String| Error::BadInventory { file: inventory.source.path.clone(), why };
    let mut document: toml::Table =
        inventory.source.text.parse().map_err(|error: toml::de::Error| bad(error.to_string()))?;
    if let (Some(toml::Value::Table(k3s)), Some(K3s { source: Source::Folder(folder), .. })) =
        (document.get_mut("k3s"), &inventory.k3s)
    {
        k3s.insert("source".to_owned(), folder.display().to_string().into());
        k3s.insert("transfer".to_owned(), "push".into());
        k3s.insert("airgap".to_owned(), false.into());
    }
    let mut nodes = match document.remove("nodes") {
        Some(toml::Value::Table(nodes)) => nodes,
        _ => toml::Table::new(),
    };
    let written = |table: &toml::Table| toml::to_string(table).map_err(|error| bad(error.to_string()));
    let mut text =
        format!("# The lab {}, in place of the real machines.\n\n{}", folder.name, written(&document)?);
    // One by one: a table would put them in the order of the alphabet.
    for node in stand_in(folder, state, inventory).nodes.values() {
        let (Some(record), Some(toml::Value::Table(mut table))) =
            (state.machines.get(&node.name), nodes.remove(&node.name))
        else {
            continue;
        };
        // The host's own counts: it is numeric.
        table.remove("address");
        let (arch, os) = record.claims();
        for (key, value) in [("host", node.host.as_str()), ("arch", arch), ("os", os)] {
            table.insert(key.to_owned(), value.into());
        }
        table.insert("ssh".to_owned(), toml::Value::Table(ssh_table(&node.ssh)));
        let named = toml::Table::from_iter([(node.name.clone(), toml::Value::Table(table))]);
        let nested = toml::Table::from_iter([("nodes".to_owned(), toml::Value::Table(named))]);
        let _ = write!(text, "\n{}", written(&nested)?);
    }
    Ok(text)
}

fn ssh_table(ssh: &Ssh) -> toml::Table {
    let strings = [
        ("user", ssh.user.clone()),
        ("identity_file", ssh.identity_file.as_ref().map(|path| path.display().to_string())),
        ("proxy_jump", ssh.proxy_jump.clone()),
        ("host_key", ssh.host_key.clone()),
        ("host_keys", Some("strict".to_owned())),
    ];
    let mut table: toml::Table =
        strings.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect();
    table.extend(ssh.port.map(|port| ("port".to_owned(), i64::from(port).into())));
    table
}

/// Node, address and user of each machine.
fn logins(state: &State) -> impl Iterator<Item = (&str, String, &str)> {
    state.machines.values().map(|record| (record.node.as_str(), state.address(record), record.user.as_str()))
}

fn ansible(folder: &Folder, state: &State, inventory: &Inventory) -> String {
    let mut text = "[all]\n".to_owned();
    for (node, address, user) in logins(state) {
        let _ = writeln!(text, "{node} ansible_host={address} ansible_user={user}");
    }
    let key = keys::login(folder);
    let common: Vec<String> = options(folder)
        .into_iter()
        .filter(|(option, _)| *option != "IdentityFile")
        .map(|(option, value)| format!("-o {option}={value}"))
        .collect();
    let _ = writeln!(
        text,
        "\n[all:vars]\nansible_ssh_private_key_file={}\nansible_ssh_common_args=-F none {}",
        key.display(),
        common.join(" ")
    );
    for group in inventory.groups.keys().filter(|group| *group != "all") {
        // Ansible takes only letters, digits and underscores in a group's name.
        let _ = writeln!(text, "\n[{}]", group.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        for node in inventory.nodes.values().filter(|node| node.groups.contains(group)) {
            if state.machines.contains_key(&node.name) {
                let _ = writeln!(text, "{}", node.name);
            }
        }
    }
    text
}

fn ssh_config(folder: &Folder, state: &State) -> String {
    let mut text = format!("# The machines of the lab {}: ssh -F THIS-FILE NODE\n", folder.name);
    for (node, address, user) in logins(state) {
        let _ = writeln!(text, "\nHost {node}\n  HostName {address}\n  User {user}");
        for (option, value) in options(folder) {
            let _ = writeln!(text, "  {option} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::diagnostic::Source;
    use crate::inventory::load;
    use crate::lab::machine;

    const TEXT: &str = "[cluster]\nname = \"home\"\nvars = { zone = \"Etc/UTC\" }\n\n[ssh]\nuser = \"kim\"\n\
                        proxy_jump = \"gate.home.arpa\"\n\n[groups.a-b]\nroles = [\"base\"]\n\n\
                        [nodes.z]\nhost = \"z.home.arpa\"\narch = \"riscv\"\nos = \"ubuntu-24.04\"\ngroups = [\"a-b\"]\n\
                        hardware = \"a board\"\ndisks = [{ id = \"x\" }]\nssh = { port = 2222 }\n\n\
                        [nodes.m]\nhost = \"m.home.arpa\"\narch = \"amd64\"\nos = \"debian-12\"\n\n\
                        [nodes.real]\nhost = \"real.home.arpa\"\narch = \"amd64\"\nos = \"debian-12\"\n";

    fn lab() -> (tempfile::TempDir, Folder, State, Inventory) {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder { name: "x".into(), path: dir.path().to_owned() };
        let text = TEXT.replace("riscv", "arm64");
        let inventory =
            load::parse(Source::new("datahub.toml", text), PathBuf::new()).expect("a good inventory");
        let wanted = machine::wanted(&inventory, &["z".into(), "m".into()]).expect("known");
        let mut state = State { number: 7, machines: indexmap::IndexMap::new() };
        state.add(&wanted).expect("room");
        for node in ["z", "m"] {
            std::fs::create_dir_all(folder.node(node)).expect("made");
            let key = format!("ssh-ed25519 AAAA{node} datahub-lab\n");
            std::fs::write(folder.node(node).join("host_key.pub"), key).expect("written");
        }
        (dir, folder, state, inventory)
    }

    #[test]
    fn real_hosts_are_out_of_reach() {
        let (_dir, folder, state, inventory) = lab();
        let lab = stand_in(&folder, &state, &inventory);
        let nodes: Vec<(&str, &str)> =
            lab.nodes.iter().map(|(name, node)| (name.as_str(), node.host.as_str())).collect();
        assert_eq!(nodes, [("z", "10.77.7.10"), ("m", "10.77.7.11")]);
        let ssh = &lab.nodes["z"].ssh;
        assert_eq!(ssh.proxy_jump.as_deref(), Some("none"));
        assert_eq!((ssh.user.as_deref(), ssh.port), (Some("kim"), Some(22)));
        assert_eq!(ssh.host_key.as_deref(), Some("ssh-ed25519 AAAAz"));
        assert!(lab.nodes.values().all(|node| node.stand_in.is_some()));
    }

    #[test]
    fn the_written_inventory_is_read_as_the_one_in_memory() {
        let (_dir, folder, state, inventory) = lab();
        let text = render(&folder, &state, &inventory, Format::Toml).expect("written");
        let read = load::parse(Source::new("datahub.toml", text), PathBuf::new()).expect("a good inventory");
        let expected = stand_in(&folder, &state, &inventory);
        assert_eq!(read.nodes.keys().collect::<Vec<_>>(), ["z", "m"]);
        assert_eq!(read.cluster.vars, inventory.cluster.vars);
        for (name, node) in &read.nodes {
            let other = &expected.nodes[name];
            assert_eq!((&node.host, &node.ssh), (&other.host, &other.ssh));
            assert_eq!((&node.roles, &node.groups, &node.disks), (&other.roles, &other.groups, &other.disks));
            assert_eq!((node.arch.as_str(), node.os.as_str()), state.machines[name].claims());
        }
    }

    #[test]
    fn other_tools_get_names_they_take() {
        let (_dir, folder, state, inventory) = lab();
        let ini = render(&folder, &state, &inventory, Format::Ansible).expect("written");
        assert!(ini.contains("z ansible_host=10.77.7.10 ansible_user=kim\n"), "{ini}");
        assert!(ini.ends_with("\n[a_b]\nz\n"), "{ini}");
        let config = render(&folder, &state, &inventory, Format::SshConfig).expect("written");
        assert!(config.contains("\nHost m\n  HostName 10.77.7.11\n  User kim\n"), "{config}");
        assert!(known_hosts(&folder, &state).contains("10.77.7.11,m ssh-ed25519 AAAAm\n"));
    }
}
