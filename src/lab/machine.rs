//! A machine of a lab: what the inventory wants of it, what is recorded, and how it is now.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::inventory::{Inventory, Node};

/// What a machine is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// systemd-nspawn on this computer's kernel: no md, no NFS server, no kernel modules, and sysctls outside
    /// of `net.*` cannot be set.
    #[default]
    Container,
}

/// A Debian release there are base images of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    Bookworm,
    Trixie,
}

impl Release {
    /// As in an inventory's `os`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "debian-12",
            Self::Trixie => "debian-13",
        }
    }

    pub fn codename(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The release that stands in for an inventory's `os`: itself, or the newest.
    fn for_os(os: &str) -> Self {
        if os == Self::Bookworm.name() { Self::Bookworm } else { Self::Trixie }
    }
}

/// A machine as it is at the moment it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub node: String,
    pub kind: Kind,
    pub hostname: String,
    /// IPv4, numeric.
    pub address: String,
    /// The login the inventory means; root can log in too.
    pub user: String,
    /// `debian-13`.
    pub release: String,
    /// How it differs from what the inventory claims.
    pub note: Option<String>,
    pub running: bool,
    /// Its process 1, as this computer numbers it. `None` also for a moment after it was started.
    pub pid: Option<u32>,
}

/// What the inventory wants a machine to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub node: String,
    pub hostname: String,
    pub user: String,
    pub release: Release,
    pub note: Option<String>,
}

/// What is kept of a machine in the lab's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub node: String,
    pub kind: Kind,
    /// The last part of its address, and unique in the lab.
    pub number: u8,
    pub hostname: String,
    pub user: String,
    pub release: Release,
    /// The folder name of its base image; not known before the image is there.
    pub image: Option<String>,
    pub note: Option<String>,
}

impl Record {
    /// Whether the machine is what the inventory wants today.
    pub fn is(&self, want: &Wanted) -> bool {
        (&self.hostname, &self.user, self.release) == (&want.hostname, &want.user, want.release)
    }

    /// The inventory's `arch` and `os` of what the machine really is.
    pub fn claims(&self) -> (&'static str, &'static str) {
        (host_arch(), self.release.name())
    }
}

/// What the named nodes want, in the order named, each once.
pub fn wanted(inventory: &Inventory, nodes: &[String]) -> Result<Vec<Wanted>, Error> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for name in nodes {
        let node = inventory.nodes.get(name).ok_or_else(|| Error::NoNode {
            node: name.clone(),
            known: inventory.nodes.keys().cloned().collect(),
        })?;
        if !wanted.iter().any(|want| want.node == node.name) {
            wanted.push(of_node(node)?);
        }
    }
    Ok(wanted)
}

fn of_node(node: &Node) -> Result<Wanted, Error> {
    let user = node.ssh.user.clone().unwrap_or_else(|| "root".to_owned());
    if let Some(why) = refused_user(&user) {
        return Err(Error::BadUser { node: node.name.clone(), user, why });
    }
    let release = Release::for_os(&node.os);
    Ok(Wanted {
        node: node.name.clone(),
        hostname: node.hostname.clone(),
        user,
        release,
        note: note(node, host_arch(), release),
    })
}

/// What of the inventory's claims does not hold for the stand-in, in one phrase.
fn note(node: &Node, arch: &str, release: Release) -> Option<String> {
    let claims = [(arch, node.arch.as_str()), (release.name(), node.os.as_str())];
    let differ: Vec<String> = claims
        .iter()
        .filter(|(is, claimed)| is != claimed)
        .map(|(is, claimed)| format!("{is} in place of {claimed}"))
        .collect();
    (!differ.is_empty()).then(|| differ.join(", "))
}

/// Why no account of this name can be made. The pattern is that of useradd(8).
fn refused_user(user: &str) -> Option<&'static str> {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let inner = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    if user.starts_with(first) && user.chars().all(inner) && user.len() <= 32 {
        return None;
    }
    Some("a user name has small letters, digits, hyphens and underscores, and starts with a letter")
}

/// This computer's architecture by Debian's name: all machines of a lab have it.
pub fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "armhf",
        "x86" => "i386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stand_in_cannot_be_is_noted() {
        let node = |arch: &str, os: &str| Node { arch: arch.into(), os: os.into(), ..Node::default() };
        let cases = [
            (node("amd64", "debian-13"), Release::Trixie, None),
            (node("amd64", "debian-12"), Release::Bookworm, None),
            (node("arm64", "debian-13"), Release::Trixie, Some("amd64 in place of arm64")),
            (
                node("arm64", "ubuntu-24.04"),
                Release::Trixie,
                Some("amd64 in place of arm64, debian-13 in place of ubuntu-24.04"),
            ),
        ];
        for (node, release, expected) in cases {
            assert_eq!(Release::for_os(&node.os), release);
            assert_eq!(note(&node, "amd64", release).as_deref(), expected);
        }
    }

    #[test]
    fn nodes_are_wanted_once_and_strange_logins_are_refused() {
        let mut node = Node { name: "a".into(), hostname: "host-a".into(), ..Node::default() };
        let mut inventory = Inventory::empty();
        inventory.nodes.insert("a".into(), node.clone());
        let twice = wanted(&inventory, &["a".into(), "a".into()]).expect("known");
        assert_eq!(twice.len(), 1);
        assert_eq!((twice[0].user.as_str(), twice[0].hostname.as_str()), ("root", "host-a"));
        assert!(matches!(wanted(&inventory, &["b".into()]), Err(Error::NoNode { .. })));
        for user in ["", "Root", "a:b", "../x", "-a", "a\n"] {
            node.ssh.user = Some(user.into());
            inventory.nodes.insert("a".into(), node.clone());
            assert!(matches!(wanted(&inventory, &["a".into()]), Err(Error::BadUser { .. })), "{user}");
        }
    }
}
