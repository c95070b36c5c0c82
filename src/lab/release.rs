//! The K3s of a lab: the real release where it can be had, a program of the user's choice, or the simulation.
//!
//! What stands in for the release lies in the lab's folder in the form of a folder of releases, `k3s/VERSION/FILE`
//! with lists of checksums, so that everything else works as with any other source. Once a lab has the simulation of
//! a version it keeps it: its nodes would otherwise be changed by a network that comes and goes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{self, tool};
use super::machine::host_arch;
use super::state::{Folder, make_dir, replace};
use super::{Error, Progress, Report, k3s};
use crate::artifact::Artifact;
use crate::artifact::download::{Client, Patience};
use crate::artifact::lock::Files;
use crate::artifact::pins;
use crate::artifact::release::{Location, Source, names};
use crate::checksum::Hasher;
use crate::inventory::{ARCHES, Inventory, K3s, Transfer};

/// Names an executable that is taken for the release's.
pub const GIVEN: &str = "DATAHUB_LAB_K3S";

/// Whether the user's cache holds a file.
pub type Cached<'a> = &'a dyn Fn(&Artifact) -> bool;

/// The inventory with the lab's releases in place of those it names; as it is if it names none, or if the real ones
/// can be had.
pub fn stand_in(
    folder: &Folder,
    mut inventory: Inventory,
    cached: Cached<'_>,
    report: Report<'_>,
) -> Result<Inventory, Error> {
    let Some(k3s) = inventory.k3s.clone() else { return Ok(inventory) };
    let releases = folder.join("k3s");
    let release = releases.join(&k3s.version);
    match std::env::var_os(GIVEN).map(PathBuf::from) {
        Some(given) => {
            make(&release, |to| fs::copy(&given, to).map(drop).map_err(Error::io("copy", &given)))?;
            report(Progress::K3s { version: k3s.version.clone(), from: format!("is {}", given.display()) });
        }
        None => {
            if !release.join("k3s").exists() {
                match real(&mut inventory, &k3s, cached) {
                    Ok(()) => return Ok(inventory),
                    Err(why) => {
                        make(&release, |to| simulation(&k3s.version, to))?;
                        report(Progress::Note {
                            node: None,
                            text: format!("K3s {} cannot be had: {why}", k3s.version),
                        });
                    }
                }
            }
            let from = "is a SIMULATION in this lab: it keeps K3s's outward contract and runs no container";
            report(Progress::K3s { version: k3s.version.clone(), from: from.to_owned() });
        }
    }
    for (version, files) in listed(&releases)? {
        inventory.lock.update(&version, files);
    }
    inventory.k3s =
        Some(K3s { source: Source::Folder(releases), transfer: Transfer::Push, airgap: false, ..k3s });
    Ok(inventory)
}

/// Whether the real release can be had, quickly found out. What is not pinned yet is pinned for this run.
fn real(inventory: &mut Inventory, k3s: &K3s, cached: Cached<'_>) -> Result<(), String> {
    let quick = Patience {
        answer: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        retries: 0,
        pause: Duration::ZERO,
    };
    let client = Client::new(quick);
    let machine = host_arch();
    let binary = names(machine).map(|names| names.binary).ok_or("there is none for this computer")?;
    if inventory.lock.artifact(&k3s.version, binary).is_none() {
        let wanted: BTreeSet<&str> =
            inventory.nodes.values().map(|node| node.arch.as_str()).chain([machine]).collect();
        let files = pins::of_release(&client, &k3s.source, &k3s.version, wanted, &inventory.dir);
        inventory.lock.update(&k3s.version, files.map_err(|error| error.to_string())?);
    }
    let pinned = inventory.lock.artifact(&k3s.version, binary).ok_or("it is not pinned")?;
    let location = k3s.source.locate(&k3s.version, binary);
    let there = match &location {
        Location::File(path) => path.is_file(),
        Location::Url(_) => client.size(&location).is_some(),
    };
    match there || cached(&pinned) {
        true => Ok(()),
        false => Err(format!("{location} does not answer")),
    }
}

/// This very program, as the simulation of a version. Without its symbols, where they can be taken away: it goes to
/// every node.
fn simulation(version: &str, to: &Path) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(Error::io("find", Path::new("this program")))?;
    let small = to.with_extension("small");
    let stripped = command::find("strip").is_some()
        && command::output(tool("strip").arg("-o").arg(&small).arg(&own), "strip this program").is_ok();
    let made = k3s::artifact(version, stripped.then_some(small.as_path()), to);
    let _ = fs::remove_file(&small);
    made.map_err(Error::io("write", to))
}

/// Makes a release of one program under the names of all architectures, with its lists. A release that is whole has
/// its lists: they are written last.
fn make(release: &Path, program: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    make_dir(release)?;
    let path = release.join("k3s");
    let fresh = release.join("k3s.new");
    program(&fresh)?;
    fs::rename(&fresh, &path).map_err(Error::io("write", &path))?;
    let mut hasher = Hasher::default();
    let file = fs::File::open(&path).map_err(Error::io("read", &path))?;
    hasher.add_all(file).map_err(Error::io("read", &path))?;
    let sum = hasher.finish();
    for names in ARCHES.iter().filter_map(|arch| names(arch)) {
        let other = release.join(names.binary);
        if other != path {
            let _ = fs::remove_file(&other);
            fs::hard_link(&path, &other).map_err(Error::io("write", &other))?;
        }
        replace(&release.join(names.list), &format!("{sum}  {}\n", names.binary))?;
    }
    Ok(())
}

/// What the lists of all releases of this lab say: a node may still have an earlier one.
fn listed(releases: &Path) -> Result<Vec<(String, Files)>, Error> {
    let source = Source::Folder(releases.to_owned());
    let client = Client::new(Patience::default());
    let mut found = Vec::new();
    for entry in fs::read_dir(releases).map_err(Error::io("read", releases))?.flatten() {
        let Ok(version) = entry.file_name().into_string() else { continue };
        let files = pins::of_release(&client, &source, &version, ARCHES.iter().copied(), releases);
        // One that was cut off while it was made is made anew when it is wanted.
        found.extend(files.ok().map(|files| (version, files)));
    }
    Ok(found)
}
