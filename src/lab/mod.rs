//! Throw-away machines on this computer: one for every node of an inventory, used in place of the real hosts.
//!
//! A lab is a named set of machines with a network of their own. Each machine is a container
//! (systemd-nspawn on overlayfs) with a real systemd, sshd and apt, an address, a host name and a pinned
//! host key. [`Lab::up`] brings it to life, [`Lab::stand_in`] turns the inventory into one of its machines,
//! [`Lab::down`] leaves nothing of it but the cached base images.
//!
//! What a lab is made of:
//! * `/var/lib/datahub-lab/NAME/`: its state, keys, overlays and logs, for root only ([`state`]).
//! * A control group `datahub-lab/NAME` that every process of the lab is in ([`cgroup`]). Its network
//!   namespace and all its mounts are held by those processes alone: when they end, the kernel removes the rest.
//! * One veth pair and one nftables table on the host ([`network`]).
//! * `/var/cache/datahub-lab/`: a base image per Debian release, shared by all labs ([`image`]).
//!
//! The library never prints; what happens is told to a [`Report`] callback.

mod apt;
mod cgroup;
mod command;
mod container;
mod error;
mod firewall;
mod image;
mod inventory;
pub mod k3s;
mod keys;
mod machine;
mod network;
mod progress;
mod release;
mod requirements;
mod seed;
mod state;
mod wait;

use std::process::Command;

pub use error::{Error, Unavailable};
pub use inventory::Format;
pub use machine::{Kind, Machine};
pub use progress::{Progress, Report};
pub use requirements::available;

use crate::inventory::Inventory;
use cgroup::Group;
use machine::{Record, Wanted};
use state::{Folder, State};

/// The lab's name when none is given.
pub const DEFAULT: &str = "default";

/// How a machine is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As by its power button: services end in order; forced when that takes over 20 s.
    Clean,
    /// As by pulling the plug.
    PowerCut,
}

/// A lab that exists: what its state file says, and the machines as they are now.
#[derive(Debug, Clone)]
pub struct Lab {
    folder: Folder,
    state: State,
}

impl Lab {
    /// Brings up the machines of `nodes`, side by side; returns when each takes SSH logins.
    ///
    /// Machines that run are kept, stopped ones are started with their files, missing ones are made; also
    /// after a crash in the middle of an earlier call or a reboot of this computer. Missing tools are
    /// installed. When some machines fail the others stay up, and the error names each that failed.
    pub fn up(
        name: &str,
        inventory: &Inventory,
        nodes: &[String],
        report: Report<'_>,
    ) -> Result<Self, Error> {
        let folder = Folder::new(name)?;
        let wanted = machine::wanted(inventory, nodes)?;
        requirements::ensure(report)?;
        let _lock = folder.lock(report)?;
        let mut state = folder.allocate(&wanted)?;
        note_changed(&state, &wanted, report);
        requirements::raise_limits(report)?;
        keys::ensure(&folder, &state)?;
        image::ensure(&folder, &mut state, report)?;
        network::ensure(&folder, &state, report)?;
        let records: Vec<&Record> = wanted.iter().filter_map(|want| state.machines.get(&want.node)).collect();
        on_each(&records, |record| bring_up(&folder, &state, record, report))?;
        Ok(Self { folder, state })
    }

    /// The lab of this name, [`Error::NoLab`] when there is none.
    pub fn open(name: &str) -> Result<Self, Error> {
        let folder = Folder::new(name)?;
        let state = folder.read()?.ok_or_else(|| Error::NoLab { name: name.to_owned() })?;
        Ok(Self { folder, state })
    }

    /// The names of all labs, also of those that only partly came up, sorted.
    pub fn list() -> Result<Vec<String>, Error> {
        state::names()
    }

    /// Stops all machines at once and removes everything of the lab. Done already: nothing happens.
    ///
    /// Needs no state file: after a crash it works from what it finds.
    pub fn down(name: &str, report: Report<'_>) -> Result<(), Error> {
        let folder = Folder::new(name)?;
        requirements::root()?;
        let lock = folder.lock(report)?;
        let group = Group::of_lab(name)?;
        if group.exists() || folder.read().is_ok_and(|state| state.is_some()) {
            report(Progress::Stopping { lab: name.to_owned() });
        }
        group.remove()?;
        network::remove(name)?;
        folder.remove(lock)?;
        network::stop_forwarding_when_unused()
    }

    pub fn name(&self) -> &str {
        &self.folder.name
    }

    /// The machines in the inventory's order as of when they were added, as they are at this moment.
    pub fn machines(&self) -> Result<Vec<Machine>, Error> {
        self.state
            .machines
            .values()
            .map(|record| {
                Ok(Machine {
                    node: record.node.clone(),
                    kind: record.kind,
                    hostname: record.hostname.clone(),
                    address: self.state.address(record),
                    user: record.user.clone(),
                    release: record.release.name().to_owned(),
                    note: record.note.clone(),
                    running: container::is_running(self.name(), &record.node)?,
                    pid: container::leader(self.name(), &record.node)?,
                })
            })
            .collect()
    }

    /// Switches a machine off; its files stay. Already off: nothing happens.
    pub fn stop(&self, node: &str, how: Stop) -> Result<(), Error> {
        let record = self.record(node)?;
        let _lock = self.lock()?;
        container::stop(self.name(), &record.node, how)
    }

    /// Switches a machine on and waits for SSH. Already on: only waits.
    pub fn start(&self, node: &str) -> Result<(), Error> {
        let record = self.record(node)?;
        let _lock = self.lock()?;
        self.start_locked(record)
    }

    /// Replaces a machine by a fresh one: nothing of its files is left, the host key stays the pinned one.
    pub fn reset(&self, node: &str) -> Result<(), Error> {
        let record = self.record(node)?;
        let _lock = self.lock()?;
        container::stop(self.name(), &record.node, Stop::PowerCut)?;
        container::erase(&self.folder, &record.node)?;
        self.start_locked(record)
    }

    /// The lock on a lab that is still there.
    fn lock(&self) -> Result<state::Lock, Error> {
        Self::open(self.name())?;
        self.folder.lock(&|_| ())
    }

    fn start_locked(&self, record: &Record) -> Result<(), Error> {
        network::ensure(&self.folder, &self.state, &|_| ())?;
        bring_up(&self.folder, &self.state, record, &|_| ())
    }

    /// The inventory with the lab's machines in place of the real hosts: address, login, pinned host key.
    ///
    /// **Nodes without a machine are left out**, so that nothing run with it can reach a real host.
    pub fn stand_in(&self, inventory: &Inventory) -> Inventory {
        inventory::stand_in(&self.folder, &self.state, inventory)
    }

    /// The inventory with what stands in for the releases it names: K3s, real or simulated ([`release`]).
    pub fn release(
        &self,
        inventory: Inventory,
        cached: release::Cached<'_>,
        report: Report<'_>,
    ) -> Result<Inventory, Error> {
        let _lock = self.folder.lock(report)?;
        release::stand_in(&self.folder, inventory, cached, report)
    }

    /// The same as text for datahub itself or for other tools.
    pub fn inventory(&self, inventory: &Inventory, format: Format) -> Result<String, Error> {
        inventory::render(&self.folder, &self.state, inventory, format)
    }

    /// `ssh` to a machine, with nothing of the user's own SSH configuration; the command to run can be
    /// added as arguments. `user`: the inventory's unless said.
    pub fn ssh_command(&self, node: &str, user: Option<&str>) -> Result<Command, Error> {
        let record = self.record(node)?;
        Ok(inventory::ssh_command(&self.folder, &self.state, record, user))
    }

    fn record(&self, node: &str) -> Result<&Record, Error> {
        self.state.machines.get(node).ok_or_else(|| Error::NoMachine {
            lab: self.name().to_owned(),
            node: node.to_owned(),
            known: self.state.machines.keys().cloned().collect(),
        })
    }
}

/// Starts a machine that is off, and waits until it takes logins.
fn bring_up(folder: &Folder, state: &State, record: &Record, report: Report<'_>) -> Result<(), Error> {
    if !container::is_running(&folder.name, &record.node)? {
        let node = record.node.clone();
        if let Some(text) = record.note.clone() {
            report(Progress::Note { node: Some(node.clone()), text });
        }
        report(Progress::Starting { node, address: state.address(record) });
        container::create(folder, state, record)?;
        container::start(folder, state, record)?;
    }
    container::wait_ready(folder, state, record, report)
}

/// Says which machines are no longer what the inventory wants: they keep their files, and so what they are.
fn note_changed(state: &State, wanted: &[Wanted], report: Report<'_>) {
    let changed = |want: &&Wanted| state.machines.get(&want.node).is_some_and(|record| !record.is(want));
    for want in wanted.iter().filter(changed) {
        let text = "keeps the name, login and release it was made with, which are no longer the inventory's: \
                    take the lab down first to change them";
        report(Progress::Note { node: Some(want.node.clone()), text: text.to_owned() });
    }
}

/// Does the same for each machine, side by side, and keeps every error with its node.
fn on_each(records: &[&Record], work: impl Fn(&Record) -> Result<(), Error> + Sync) -> Result<(), Error> {
    let work = &work;
    let failed: Vec<(String, Error)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            records.iter().map(|record| (record, scope.spawn(move || work(record)))).collect();
        let results = threads.into_iter().map(|(record, thread)| {
            let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.err().map(|error| (record.node.clone(), error))
        });
        results.flatten().collect()
    });
    if failed.is_empty() { Ok(()) } else { Err(Error::Machines(failed)) }
}
