//! The lab itself, with real machines.
#![allow(clippy::print_stderr)]

mod support;

#[test]
fn it_comes_up() {
    let Some(mut lab) = support::lab("up") else { return };
    lab.up(INVENTORY, &["alpha", "beta"]);
    eprintln!("{:?}", lab.lab().machines());
    eprintln!(
        "{}",
        lab.sh(
            "alpha",
            "hostname; systemctl is-system-running --wait; systemctl --failed; apt-get install -y hello"
        )
    );
}

const INVENTORY: &str = r#"
[cluster]
name = "test"

[ssh]
user = "kim"

[nodes.alpha]
host = "alpha.home.arpa"
hostname = "host-alpha"
arch = "amd64"
os = "debian-13"

[nodes.beta]
host = "beta.home.arpa"
hostname = "host-beta"
arch = "arm64"
os = "debian-12"
"#;
