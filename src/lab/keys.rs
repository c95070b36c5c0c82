//! The SSH keys of a lab: one login for all its machines, and a host key for each, made before it first boots
//! so that it can be pinned.

use std::path::{Path, PathBuf};

use super::machine::Record;
use super::state::{self, Folder, State};
use super::{Error, command, inventory};

/// The keys of a machine, in OpenSSH's formats.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub host: String,
    pub host_public: String,
    /// Whose holder may log in.
    pub login_public: String,
}

/// Makes the keys that are missing and writes the lab's known_hosts.
pub fn ensure(folder: &Folder, state: &State) -> Result<(), Error> {
    make(&login(folder))?;
    for record in state.machines.values() {
        make(&host(folder, record))?;
    }
    state::replace(&folder.join("known_hosts"), &inventory::known_hosts(folder, state))
}

/// The private key to log in with; the public one is beside it, with `.pub`.
pub fn login(folder: &Folder) -> PathBuf {
    folder.join("key")
}

fn host(folder: &Folder, record: &Record) -> PathBuf {
    folder.node(&record.node).join("host_key")
}

pub fn read(folder: &Folder, record: &Record) -> Result<Keys, Error> {
    let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(Error::io("read", &path));
    let host = host(folder, record);
    Ok(Keys {
        host_public: read(host.with_extension("pub"))?,
        host: read(host)?,
        login_public: read(login(folder).with_extension("pub"))?,
    })
}

/// A machine's public host key, algorithm and key without the comment; empty before it was made.
pub fn host_public(folder: &Folder, record: &Record) -> String {
    let text = std::fs::read_to_string(host(folder, record).with_extension("pub")).unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Makes an ed25519 key pair unless it is there.
fn make(path: &Path) -> Result<(), Error> {
    if path.with_extension("pub").exists() {
        return Ok(());
    }
    // The public half is written last: without it the other may be half a key.
    let _ = std::fs::remove_file(path);
    if let Some(folder) = path.parent() {
        state::make_dir(folder)?;
    }
    let mut keygen = command::tool("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "datahub-lab", "-f"]).arg(path);
    command::output(&mut keygen, "make an SSH key").map(drop)
}
