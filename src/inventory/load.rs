//! datahub.toml → [`Inventory`]. All mistakes are found in one go, each with its place and what to write instead.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::document::{Reader, Table, Text};
use super::k3s::k3s;
use super::{Cluster, Group, HostKeys, Inventory, Node, SecretSources, Ssh};
use crate::artifact::lock::Lock;
use crate::artifact::release::is_file_name;
use crate::diagnostic::{Diagnostic, Diagnostics, Source};

const TOP: &[&str] = &["cluster", "k3s", "ssh", "secrets", "groups", "nodes"];
const SSH: &[&str] = &["user", "port", "identity_file", "proxy_jump", "host_keys"];
const NODE_SSH: &[&str] = &["user", "port", "identity_file", "proxy_jump", "host_keys", "host_key"];
const NODE: &[&str] = &[
    "host", "address", "hostname", "arch", "os", "roles", "groups", "labels", "taints", "disks", "vars",
    "ssh", "hardware",
];
/// What no two nodes may have in common.
const UNIQUE: &[&str] = &["host", "address", "hostname"];
/// The group every node is in without saying so, when it is defined.
const ALL: &str = "all";

/// Reads `datahub.toml` in a folder, or the file itself.
pub fn load(path: &Path) -> Result<Inventory, Diagnostics> {
    let file = if path.is_dir() { path.join("datahub.toml") } else { path.to_owned() };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no inventory {}", file.display()),
            _ => format!("cannot read the inventory {}: {error}", file.display()),
        };
        Diagnostics(vec![
            Diagnostic::new(message)
                .help("name the folder that holds datahub.toml, or the file: --inventory PATH"),
        ])
    })?;
    let dir = file.parent().map(Path::to_owned).unwrap_or_default();
    let inventory = parse(Source::new(file, text), dir)?;
    let lock = Lock::load(&inventory.dir).map_err(|error| Diagnostics(vec![error]))?;
    Ok(Inventory { lock, ..inventory })
}

/// Reads an inventory from its text; `dir` is the folder its other files are looked for in.
pub(crate) fn parse(source: Arc<Source>, dir: PathBuf) -> Result<Inventory, Diagnostics> {
    let mut reader = Reader::new(&source);
    let Some(document) = reader.parse() else { return Err(Diagnostics(reader.errors)) };
    let top = Table::new("the inventory", "", 0..0, document.get_ref());
    reader.known(&top, TOP);

    let cluster = cluster(&mut reader, &top);
    let ssh = match reader.section(&top, "ssh", "[ssh]") {
        Some(table) => ssh(&mut reader, &table, SSH, &Ssh::default()),
        None => Ssh::default(),
    };
    let secrets = secrets(&mut reader, &top);
    let k3s = k3s(&mut reader, &top, &dir);
    let groups = groups(&mut reader, &top);
    let nodes = nodes(&mut reader, &top, &ssh, &groups);

    let (mut errors, spans) = (reader.errors, reader.spans);
    if errors.is_empty() {
        let lock = Lock::default();
        return Ok(Inventory { source, dir, cluster, ssh, groups, nodes, secrets, k3s, lock, spans });
    }
    errors.sort_by_key(|error| error.place.as_ref().map(|place| place.span.start));
    Err(Diagnostics(errors))
}

fn cluster<'d>(reader: &mut Reader<'d>, top: &Table<'d>) -> Cluster {
    let Some(table) = reader.section(top, "cluster", "[cluster]") else {
        if top.get("cluster").is_none() {
            reader.error(0..0, "the inventory has no [cluster]", "", "add: [cluster] and name = \"home\"");
        }
        return Cluster::default();
    };
    reader.known(&table, &["name", "components", "vars"]);
    let name = reader.required(&table, "name", "\"home\"");
    if let Some((name, span)) = name.as_ref().filter(|(name, _)| !is_file_name(name)) {
        let help = "use letters, digits, inner hyphens and dots: backups and the kubeconfig's context are named after it";
        reader.error(span.clone(), format!("`{name}` is not a cluster's name"), "not a plain name", help);
    }
    let name = name.map(|(name, _)| name).unwrap_or_default();
    let components = list(reader, &table, "components").into_iter().map(|(role, _)| role).collect();
    Cluster { name, components, vars: reader.vars(&table, "[cluster.vars]") }
}

fn ssh<'d>(reader: &mut Reader<'d>, table: &Table<'d>, keys: &[&str], outer: &Ssh) -> Ssh {
    reader.known(table, keys);
    let text = |reader: &mut Reader<'d>, key| reader.string(table, key).map(|(text, _)| text);
    let host_keys = match reader.string(table, "host_keys") {
        None => outer.host_keys,
        Some((word, _)) if word == "strict" => HostKeys::Strict,
        Some((word, _)) if word == "accept-new" => HostKeys::AcceptNew,
        Some((word, span)) => {
            reader.unknown(span, "host key policy", &word, &["strict", "accept-new"]);
            outer.host_keys
        }
    };
    Ssh {
        user: text(reader, "user").or_else(|| outer.user.clone()),
        port: reader.port(table, "port").or(outer.port),
        identity_file: text(reader, "identity_file")
            .map(PathBuf::from)
            .or_else(|| outer.identity_file.clone()),
        proxy_jump: text(reader, "proxy_jump").or_else(|| outer.proxy_jump.clone()),
        host_keys,
        host_key: text(reader, "host_key"),
    }
}

fn secrets<'d>(reader: &mut Reader<'d>, top: &Table<'d>) -> SecretSources {
    let Some(table) = reader.section(top, "secrets", "[secrets]") else { return SecretSources::default() };
    reader.known(&table, &["identity", "command"]);
    SecretSources {
        identity: reader.string(&table, "identity").map(|(path, _)| path.into()),
        command: reader.strings(&table, "command").into_iter().map(|(word, _)| word).collect(),
    }
}

fn groups<'d>(reader: &mut Reader<'d>, top: &Table<'d>) -> IndexMap<String, Group> {
    let Some(table) = reader.section(top, "groups", "[groups]") else { return IndexMap::new() };
    let mut groups = IndexMap::new();
    for field in &table.fields {
        let Some(group) = reader.table(field, format!("group `{}`", field.key)) else { continue };
        reader.known(&group, &["roles", "vars"]);
        let roles = list(reader, &group, "roles").into_iter().map(|(role, _)| role).collect();
        groups.insert(field.key.to_owned(), Group { roles, vars: reader.vars(&group, "vars") });
    }
    groups
}

fn nodes<'d>(
    reader: &mut Reader<'d>,
    top: &Table<'d>,
    outer: &Ssh,
    groups: &IndexMap<String, Group>,
) -> IndexMap<String, Node> {
    let Some(table) = reader.section(top, "nodes", "[nodes]") else { return IndexMap::new() };
    let mut nodes: IndexMap<String, Node> = IndexMap::new();
    for field in &table.fields {
        let what = format!("node `{}`", field.key);
        if !is_label(field.key) {
            let message = format!("`{}` is not a node name", field.key);
            let help =
                "use small letters, digits and inner hyphens, at most 63: the name is used in Kubernetes";
            reader.error(field.key_span.clone(), message, "not a DNS label", help);
        }
        let Some(table) = reader.table(field, what) else { continue };
        reader.note(field);
        let node = node(reader, field.key, &table, outer, groups, &nodes);
        nodes.insert(field.key.to_owned(), node);
    }
    nodes
}

fn node<'d>(
    reader: &mut Reader<'d>,
    name: &str,
    table: &Table<'d>,
    outer: &Ssh,
    groups: &IndexMap<String, Group>,
    earlier: &IndexMap<String, Node>,
) -> Node {
    reader.known(table, NODE);
    // Where a second node claims the same, the first one's place is told too.
    for field in table.fields.iter().filter(|field| UNIQUE.contains(&field.key)) {
        reader.note(field);
    }
    reader.string(table, "hardware");
    let host = reader.required(table, "host", "\"machine.home.arpa\"");
    let ssh = match reader.section(table, "ssh", "ssh") {
        Some(inner) => ssh(reader, &inner, NODE_SSH, outer),
        None => outer.clone(),
    };
    if let Some((host, span)) = &host {
        // Two nodes behind one address are fine when their ports differ.
        let twin = earlier.values().find(|other| other.host == *host && other.ssh.port == ssh.port);
        taken(reader, span, "host", host, twin);
    }
    let address = address(reader, table, earlier).or_else(|| host.as_ref()?.0.parse().ok());
    let written = reader.string(table, "hostname");
    if let Some((hostname, span)) = written.as_ref().filter(|(name, _)| !name.split('.').all(is_label)) {
        let help = "use small letters, digits and inner hyphens";
        reader.error(span.clone(), format!("`{hostname}` is not a host name"), "not a host name", help);
    }
    let (hostname, span) = written.unwrap_or_else(|| (name.to_owned(), table.span.clone()));
    taken(reader, &span, "hostname", &hostname, earlier.values().find(|other| other.hostname == hostname));
    let arch = reader.required(table, "arch", "\"arm64\"");
    if let Some((arch, span)) = arch.as_ref().filter(|(arch, _)| !super::ARCHES.contains(&arch.as_str())) {
        reader.unknown(span.clone(), "arch", arch, super::ARCHES);
    }
    let os = reader.required(table, "os", "\"debian-13\"");
    if let Some((os, span)) = os.as_ref().filter(|(os, _)| !is_release(os)) {
        let help = "write name and version as in /etc/os-release: \"debian-13\", \"ubuntu-24.04\"";
        reader.error(span.clone(), format!("`{os}` is not an os"), "not NAME-VERSION", help);
    }

    let mut own_groups: Vec<String> = Vec::new();
    if groups.contains_key(ALL) {
        own_groups.push(ALL.to_owned());
    }
    let names: Vec<&str> = groups.keys().map(String::as_str).collect();
    for (group, span) in list(reader, table, "groups") {
        if !groups.contains_key(&group) {
            reader.unknown(span, "group", &group, &names);
        } else if !own_groups.contains(&group) {
            own_groups.push(group);
        }
    }
    let mut roles: Vec<String> = Vec::new();
    let own_roles = list(reader, table, "roles").into_iter().map(|(role, _)| role);
    let of_groups =
        own_groups.iter().filter_map(|group| groups.get(group)).flat_map(|group| group.roles.clone());
    for role in of_groups.chain(own_roles) {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }

    let disks = reader.elements(table, "disks", "a list of disks");
    Node {
        name: name.to_owned(),
        host: host.map(|(host, _)| host).unwrap_or_default(),
        address,
        hostname,
        arch: arch.map(|(arch, _)| arch).unwrap_or_default(),
        os: os.map(|(os, _)| os).unwrap_or_default(),
        roles,
        groups: own_groups,
        labels: reader.string_map(table, "labels", "labels"),
        taints: reader.strings(table, "taints").into_iter().map(|(taint, _)| taint).collect(),
        disks: disks.iter().map(|disk| reader.value(disk)).collect(),
        vars: reader.vars(table, "vars"),
        ssh,
        stand_in: None,
    }
}

fn address<'d>(
    reader: &mut Reader<'d>,
    table: &Table<'d>,
    earlier: &IndexMap<String, Node>,
) -> Option<IpAddr> {
    let (text, span) = reader.string(table, "address")?;
    let Ok(address) = text.parse() else {
        let help = "write a numeric IPv4 or IPv6 address, without a prefix length";
        reader.error(span, format!("`{text}` is not an address"), "not numeric", help);
        return None;
    };
    taken(reader, &span, "address", &text, earlier.values().find(|other| other.address == Some(address)));
    Some(address)
}

/// A list of names whose places are kept for later checks.
fn list<'d>(reader: &mut Reader<'d>, table: &Table<'d>, key: &str) -> Vec<Text> {
    if let Some(field) = table.get(key) {
        reader.value(field);
    }
    reader.strings(table, key)
}

fn taken(
    reader: &mut Reader<'_>,
    span: &std::ops::Range<usize>,
    key: &str,
    value: &str,
    twin: Option<&Node>,
) {
    let Some(twin) = twin else { return };
    let first = reader.spans.nearest(&format!("nodes.{}.{key}", twin.name));
    let first = first.map(|span| format!(" ({})", reader.place(span.key.clone()))).unwrap_or_default();
    reader.error(
        span.clone(),
        format!("the {key} `{value}` is already that of node `{}`{first}", twin.name),
        format!("second use of this {key}"),
        format!("every node needs its own {key}"),
    );
}

/// A DNS label: what Kubernetes and /etc/hosts accept as a name.
pub(crate) fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_release(os: &str) -> bool {
    os.split_once('-')
        .is_some_and(|(name, version)| !name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
