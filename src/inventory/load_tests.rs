//! The texts of mistakes in an inventory, and what a good one becomes.

use super::*;
use crate::inventory::document::plain;

fn report(text: &str) -> String {
    match parse(Source::new("datahub.toml", text), PathBuf::new()) {
        Ok(_) => "valid".to_owned(),
        Err(errors) => plain(&errors),
    }
}

#[test]
fn the_shipped_inventory_is_the_seven_machines() {
    let inventory = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory")).expect("valid");
    let seen: Vec<_> = inventory
        .nodes
        .values()
        .map(|n| (n.name.as_str(), n.hostname.as_str(), n.arch.as_str(), n.os.as_str(), n.roles.join(" ")))
        .collect();
    let row = |name, hostname, arch, os, roles: &str| (name, hostname, arch, os, roles.to_owned());
    assert_eq!(
        seen,
        [
            row("orpi-0", "datahublocal-orpi-0", "arm64", "debian-13", "base sbc k3s-server"),
            row("orpi-1", "datahublocal-orpi-1", "arm64", "debian-13", "base sbc k3s-agent"),
            row("orpi-2", "datahublocal-orpi-2", "arm64", "debian-13", "base sbc k3s-agent"),
            row("orpi-3", "datahublocal-orpi-3", "arm64", "debian-13", "base sbc k3s-agent"),
            row("amd-1", "datahublocal-amd-1", "amd64", "debian-13", "base k3s-agent"),
            row("nas", "datahublocal-nas", "amd64", "debian-12", "base k3s-agent"),
            row("laptop", "datahublocal-legion-laptop", "amd64", "ubuntu-24.04", "base k3s-agent"),
        ]
    );
    assert!(inventory.nodes.values().all(|n| n.host == format!("{}.home.arpa", n.hostname)));
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = r#"
[cluster]
name = "home"
nmae = "x"

[ssh]
port = "22"
host_keys = "strikt"

[groups.workers]
roles = "base"

[nodes.orpi-1]
host = "one.home.arpa"
hostname = "one"
arch = "arm46"
os = "debian-13"
groups = ["worker"]

[nodes.Orpi_2]
host = "one.home.arpa"
hostname = "one"
arch = "arm64"
os = "trixie"

[nodes.c]
hots = "c.home.arpa"
arch = "amd64"
os = "debian-13"
ssh.port = 70000
"#;
    assert_eq!(
        report(text),
        "\
datahub.toml:4:1: unknown key `nmae` in [cluster]
 ^ not a key here
 ? did you mean `name`?
datahub.toml:7:8: `port` must be a whole number, not a string
 ^ this is a string
datahub.toml:8:13: unknown host key policy `strikt`
 ^ no such host key policy
 ? did you mean `strict`?
datahub.toml:11:9: `roles` must be a list of strings, not a string
 ^ this is a string
datahub.toml:16:8: unknown arch `arm46`
 ^ no such arch
 ? did you mean `arm64`?
datahub.toml:18:11: unknown group `worker`
 ^ no such group
 ? did you mean `workers`?
datahub.toml:20:8: `Orpi_2` is not a node name
 ^ not a DNS label
 ? use small letters, digits and inner hyphens, at most 63: the name is used in Kubernetes
datahub.toml:21:8: the host `one.home.arpa` is already that of node `orpi-1` (datahub.toml:14)
 ^ second use of this host
 ? every node needs its own host
datahub.toml:22:12: the hostname `one` is already that of node `orpi-1` (datahub.toml:15)
 ^ second use of this hostname
 ? every node needs its own hostname
datahub.toml:24:6: `trixie` is not an os
 ^ not NAME-VERSION
 ? write name and version as in /etc/os-release: \"debian-13\", \"ubuntu-24.04\"
datahub.toml:26:8: node `c` has no `host`
 ^ `host` is missing
 ? add a line like: host = \"machine.home.arpa\"
datahub.toml:27:1: unknown key `hots` in node `c`
 ^ not a key here
 ? did you mean `host`?
datahub.toml:30:12: `port` must be between 1 and 65535
 ^ not a port
"
    );
}

#[test]
fn syntax_errors_come_alone_and_together() {
    assert_eq!(
        report("[cluster]\nname = \nport = 1 2\n"),
        "\
datahub.toml:2:8: not valid TOML: string values must be quoted, expected literal string
 ^ here
datahub.toml:3:8: not valid TOML: string values must be quoted, expected literal string
 ^ here
"
    );
}

/// A node that says no host name has its own name for one.
#[test]
fn host_names_are_unique_whether_written_or_not() {
    let text = "[cluster]\nname = \"a/b\"\n\n[nodes.first]\nhost = \"one.home.arpa\"\narch = \"arm64\"\n\
                os = \"debian-13\"\nhostname = \"second\"\n\n[nodes.second]\nhost = \"two.home.arpa\"\n\
                arch = \"arm64\"\nos = \"debian-13\"\n\n[nodes.third]\nhost = \"three.home.arpa\"\n\
                arch = \"arm64\"\nos = \"debian-13\"\nhostname = \"first\"\n";
    assert_eq!(
        report(text),
        "\
datahub.toml:2:8: `a/b` is not a cluster's name
 ^ not a plain name
 ? use letters, digits, inner hyphens and dots: backups and the kubeconfig's context are named after it
datahub.toml:10:8: the hostname `second` is already that of node `first` (datahub.toml:8)
 ^ second use of this hostname
 ? every node needs its own hostname
"
    );
}

#[test]
fn a_node_lays_its_ssh_over_the_common_one() {
    let text = r#"
[cluster]
name = "home"
[ssh]
user = "ops"
host_keys = "accept-new"
[nodes.a]
host = "a.home.arpa"
arch = "arm64"
os = "debian-13"
ssh = { port = 2222, host_key = "ssh-ed25519 AAAA" }
"#;
    let inventory = parse(Source::new("datahub.toml", text), PathBuf::new()).expect("valid");
    let expected = Ssh {
        user: Some("ops".into()),
        port: Some(2222),
        host_keys: HostKeys::AcceptNew,
        host_key: Some("ssh-ed25519 AAAA".into()),
        ..Ssh::default()
    };
    assert_eq!(inventory.nodes["a"].ssh, expected);
    assert_eq!(inventory.nodes["a"].hostname, "a");
}
