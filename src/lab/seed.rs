//! What makes a fresh machine this one: name, address, keys and accounts, laid over the base image.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::keys::Keys;
use super::machine::Record;
use super::{Error, network};

/// The account a person makes when installing Debian has this id, as user and as group.
const USER_ID: u32 = 1000;

/// Only machines of a lab have it: what must never run on a real one looks for it.
pub const MARKER: &str = "etc/datahub-lab";

/// A file of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Below the machine's root, without a leading slash.
    pub path: PathBuf,
    pub mode: u32,
    /// User and group.
    pub owner: u32,
    pub text: String,
}

fn seed(path: impl Into<PathBuf>, mode: u32, owner: u32, text: impl Into<String>) -> Seed {
    Seed { path: path.into(), mode, owner, text: text.into() }
}

/// The machine's identity and network.
pub fn identity(
    record: &Record,
    subnet: network::Subnet,
    keys: &Keys,
    resolv_conf: &str,
    id: &str,
) -> Vec<Seed> {
    let hostname = &record.hostname;
    let short = hostname.split('.').next().unwrap_or_default();
    let alias = if short == hostname { String::new() } else { format!(" {short}") };
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}{alias}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    let network = format!(
        "[Match]\nName=host0\n\n[Network]\nAddress={}/25\nGateway={}\nLLDP=no\n",
        subnet.machine(record.number),
        subnet.gateway()
    );
    vec![
        seed("etc/hostname", 0o644, 0, format!("{hostname}\n")),
        seed("etc/hosts", 0o644, 0, hosts),
        seed(MARKER, 0o644, 0, "This machine is a throw-away machine of a datahub lab.\n"),
        seed("etc/machine-id", 0o444, 0, format!("{id}\n")),
        seed("etc/resolv.conf", 0o644, 0, resolv_conf),
        seed("etc/systemd/network/10-lab.network", 0o644, 0, network),
        seed("etc/ssh/ssh_host_ed25519_key", 0o600, 0, &keys.host),
        seed("etc/ssh/ssh_host_ed25519_key.pub", 0o644, 0, &keys.host_public),
        seed("root/.ssh/authorized_keys", 0o600, 0, &keys.login_public),
    ]
}

/// The account a person would have made: a login without a password, and sudo without being asked for one.
/// `read` gives a file of the base image.
pub fn account(
    record: &Record,
    login_public: &str,
    read: impl Fn(&str) -> Result<String, Error>,
) -> Result<Vec<Seed>, Error> {
    let user = record.user.as_str();
    if user == "root" {
        return Ok(Vec::new());
    }
    let lines = [
        ("etc/passwd", 0o644, format!("{user}:x:{USER_ID}:{USER_ID}::/home/{user}:/bin/bash\n")),
        ("etc/group", 0o644, format!("{user}:x:{USER_ID}:\n")),
        ("etc/shadow", 0o640, format!("{user}:!:20000:0:99999:7:::\n")),
        ("etc/gshadow", 0o640, format!("{user}:!::\n")),
    ];
    let mut seeds = Vec::new();
    for (path, mode, line) in lines {
        let before = read(path)?;
        if before.lines().any(|line| line.split(':').next() == Some(user)) {
            let why = "a fresh Debian has an account of that name for itself";
            return Err(Error::BadUser { node: record.node.clone(), user: record.user.clone(), why });
        }
        seeds.push(seed(path, mode, 0, before + &line));
    }
    seeds.push(seed(
        "etc/sudoers.d/90-datahub-lab",
        0o440,
        0,
        format!("{user} ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    ));
    seeds.push(seed(format!("home/{user}/.ssh/authorized_keys"), 0o600, USER_ID, login_public));
    Ok(seeds)
}

/// Writes the files into an overlay's upper folder. A folder that the base image has keeps its mode and owner,
/// and so does a file; a new folder belongs to the file's owner and is for it alone.
pub fn write(upper: &Path, lower: &Path, seeds: &[Seed]) -> Result<(), Error> {
    for seed in seeds {
        make_parents(upper, lower, seed)?;
        let path = upper.join(&seed.path);
        std::fs::write(&path, &seed.text).map_err(Error::io("write", &path))?;
        match std::fs::symlink_metadata(lower.join(&seed.path)).ok().filter(std::fs::Metadata::is_file) {
            Some(like) => set(&path, like.mode() & 0o7777, like.uid(), like.gid())?,
            None => set(&path, seed.mode, seed.owner, seed.owner)?,
        }
    }
    Ok(())
}

/// Gives the upper folder of an overlay, whose mode becomes that of the machine's `/`, its usual mode.
pub fn open_to_all(folder: &Path) -> Result<(), Error> {
    set(folder, 0o755, 0, 0)
}

fn make_parents(upper: &Path, lower: &Path, seed: &Seed) -> Result<(), Error> {
    let mut parents: Vec<&Path> = seed.path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents {
        let path = upper.join(parent);
        if path.exists() {
            continue;
        }
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("make the folder", &path))?;
        match std::fs::metadata(lower.join(parent)).ok() {
            Some(like) => set(&path, like.mode() & 0o7777, like.uid(), like.gid())?,
            None => set(&path, 0o700, seed.owner, seed.owner)?,
        }
    }
    Ok(())
}

fn set(path: &Path, mode: u32, user: u32, group: u32) -> Result<(), Error> {
    std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(Error::io("set the owner of", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", path))
}

/// What a machine asks for names: this computer's servers. A resolver on this computer's own loopback
/// address cannot be reached from a machine; systemd-resolved says in `resolved` whom it asks itself.
pub fn resolv_conf(own: &str, resolved: Option<&str>) -> String {
    let on_loopback = |line: &str| {
        let server = line.strip_prefix("nameserver").map(str::trim);
        server.is_some_and(|server| server.starts_with("127.") || server == "::1")
    };
    match resolved {
        Some(resolved) if own.lines().any(on_loopback) => resolved.to_owned(),
        _ => own.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::machine::{Kind, Release};

    fn record() -> Record {
        Record {
            node: "a".into(),
            kind: Kind::Container,
            number: 10,
            hostname: "host-a.home.arpa".into(),
            user: "kim".into(),
            release: Release::Trixie,
            image: None,
            note: None,
        }
    }

    fn text<'s>(seeds: &'s [Seed], path: &str) -> &'s str {
        &seeds.iter().find(|seed| seed.path == Path::new(path)).expect("seeded").text
    }

    #[test]
    fn a_machine_knows_its_name_and_address() {
        let seeds =
            identity(&record(), network::Subnet(7), &Keys::default(), "nameserver 192.0.2.53\n", "id");
        assert!(text(&seeds, "etc/hosts").contains("127.0.1.1\thost-a.home.arpa host-a\n"));
        let network = text(&seeds, "etc/systemd/network/10-lab.network");
        assert!(network.contains("Address=10.77.7.10/25\nGateway=10.77.7.1\n"), "{network}");
    }

    #[test]
    fn an_account_is_added_and_never_replaced() {
        let read = |path: &str| {
            let field = if path.ends_with("passwd") { ":x:0:0:root:/root:/bin/bash" } else { ":*:" };
            Ok(format!("root{field}\ndaemon{field}\n"))
        };
        let as_user = |user: &str| Record { user: user.into(), ..record() };
        let seeds = account(&record(), "ssh-ed25519 AAAA", read).expect("an account");
        assert!(text(&seeds, "etc/passwd").ends_with("\nkim:x:1000:1000::/home/kim:/bin/bash\n"));
        assert!(text(&seeds, "etc/shadow").ends_with("\nkim:!:20000:0:99999:7:::\n"));
        assert_eq!(text(&seeds, "home/kim/.ssh/authorized_keys"), "ssh-ed25519 AAAA");
        assert_eq!(account(&as_user("root"), "", read).expect("there already"), []);
        assert!(matches!(account(&as_user("daemon"), "", read), Err(Error::BadUser { .. })));
    }

    #[test]
    fn a_resolver_on_the_loopback_is_passed_by() {
        let own = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(resolv_conf(own, Some("nameserver 192.0.2.1\n")), "nameserver 192.0.2.1\n");
        assert_eq!(resolv_conf(own, None), own);
        let direct = "nameserver 192.0.2.2\n";
        assert_eq!(resolv_conf(direct, Some("nameserver 192.0.2.1\n")), direct);
    }
}
