//! A lab's network: a bridge in a network namespace of its own, joined to this computer by a veth pair.
//!
//! ```text
//! machines 10.77.N.10…126 ── br0 10.77.N.1/25 │ lab's namespace │ up0 10.77.N.254 ── dhlabN 10.77.N.253 │ this computer
//! ```
//! The namespace is held by one sleeping process in the lab's control group: when that has ended, the kernel
//! removes the namespace with the bridge, both ends of the pair, and the route. What is left on this computer is
//! an nftables table `datahub-lab-NAME`, which [`remove`] deletes.
//!
//! Outwards the machines reach DNS, HTTP, HTTPS and the ports of this computer's package archives, translated
//! to this computer's address; everything else is refused, so that a lab node can never reach a real host's
//! SSH, NFS or Kubernetes. Inwards nothing but this computer itself reaches them.
//!
//! **What is changed on this computer while a lab is up**: packets are forwarded that arrive by the interfaces
//! of the default route (`net.ipv4.conf.IF.forwarding`; `ip_forward` itself is left alone). The last lab to go
//! sets back what the first one set, unless somebody has turned on `ip_forward` in the meantime.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::apt::Apt;
use super::cgroup::Group;
use super::state::{self, Folder, State};
use super::{Error, Progress, Report, command, firewall, wait};
use crate::shell;

/// The highest last part of a machine's address.
pub const LAST_MACHINE: u8 = 126;
pub const BRIDGE: &str = "br0";
/// The names of interfaces whose forwarding was turned on by a lab, one a line.
const FORWARDING: &str = "forwarding";
const LIST_ROUTES: &str = "list this computer's routes";
/// For the kernel to set up or take apart a namespace.
const SETTLE: Duration = Duration::from_secs(15);

/// A lab's share of 10.77.0.0/16: `10.77.N.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet(pub u8);

impl Subnet {
    fn host(self, last: u8) -> String {
        format!("10.77.{}.{last}", self.0)
    }

    pub fn machine(self, number: u8) -> String {
        self.host(number)
    }

    pub fn gateway(self) -> String {
        self.host(1)
    }

    /// The machines' part, in CIDR notation.
    pub fn machines(self) -> String {
        format!("{}/25", self.host(0))
    }

    /// This computer's end of the pair.
    pub fn link(self) -> String {
        format!("dhlab{}", self.0)
    }

    /// Whether a route covers any of it; `default` does not count.
    pub fn overlaps(self, route: &str) -> bool {
        let (address, bits) = route.split_once('/').unwrap_or((route, "32"));
        let (Ok(address), Ok(bits)) = (address.parse::<std::net::Ipv4Addr>(), bits.parse::<u32>()) else {
            return false;
        };
        let own = u32::from(std::net::Ipv4Addr::new(10, 77, self.0, 0));
        let shift = 32 - bits.min(24);
        bits > 0 && (u64::from(own) >> shift) == (u64::from(u32::from(address)) >> shift)
    }
}

/// Makes the network, or what of it is missing.
pub fn ensure(folder: &Folder, state: &State, report: Report<'_>) -> Result<(), Error> {
    let subnet = Subnet(state.number);
    if !is_whole(&folder.name, subnet)? {
        // Machines that outlived their network have none: they start again.
        let group = Group::of_lab(&folder.name)?;
        group.kill()?;
        wait_gone(subnet)?;
        let holder = hold_namespace(&folder.name)?;
        in_namespace(holder, &inner_script(subnet))?;
        host_script(&outer_script(subnet, holder))?;
        report(Progress::Network { subnet: subnet.machines() });
    }
    firewall::install(&folder.name, subnet, &Apt::of_this_computer().ports())?;
    start_forwarding(subnet, report)
}

/// Removes what the end of the lab's processes has not removed; works without a state file.
pub fn remove(lab: &str) -> Result<(), Error> {
    let number = Folder::new(lab)?.read().ok().flatten().map(|state| state.number);
    if let Some(number) = number {
        wait_gone(Subnet(number))?;
    }
    firewall::remove(lab)
}

/// The process that holds a lab's namespace; its path is `/proc/PID/ns/net`.
pub fn holder(lab: &str) -> Result<Option<u32>, Error> {
    Ok(Group::of_network(lab)?.processes().first().copied())
}

/// The IPv4 destinations this computer has routes for.
pub fn routes() -> Result<Vec<String>, Error> {
    route_field("dst", &["table", "all"])
}

/// One field of the IPv4 routes that `ip route show` lists.
fn route_field(field: &str, which: &[&str]) -> Result<Vec<String>, Error> {
    let mut ip = command::tool("ip");
    let text = command::output(ip.args(["-json", "-4", "route", "show"]).args(which), LIST_ROUTES)?;
    let routes: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|error| Error::Command {
        doing: LIST_ROUTES.to_owned(),
        program: "ip".to_owned(),
        how: format!("printed something else: {error}"),
        said: text.clone(),
    })?;
    Ok(routes.iter().filter_map(|route| route[field].as_str().map(str::to_owned)).collect())
}

/// The route is what is made last.
fn is_whole(lab: &str, subnet: Subnet) -> Result<bool, Error> {
    Ok(holder(lab)?.is_some() && routes()?.contains(&subnet.machines()))
}

/// Starts the process that keeps the namespace, and returns its id once the namespace is there.
fn hold_namespace(lab: &str) -> Result<u32, Error> {
    let group = Group::of_network(lab)?;
    group.remove()?;
    group.create()?;
    // The group is entered last: who is in it has its new namespace.
    let join: String = group.paths().collect::<Vec<_>>().into_iter().rev().map(join_group).collect();
    let mut holder = command::tool("setsid");
    holder.args(["--fork", "unshare", "--net", "sh", "-c", &format!("{join}exec sleep infinity")]);
    holder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command::output(&mut holder, "make a network namespace")?;
    let mut pid = None;
    wait::until(SETTLE, || {
        pid = group.processes().first().copied();
        pid.is_some()
    });
    pid.ok_or_else(|| Error::StillThere {
        what: "making a network namespace".into(),
        seconds: SETTLE.as_secs(),
    })
}

/// Shell that moves the shell itself into a control group.
pub fn join_group(group: &Path) -> String {
    format!("echo 0 >{}/cgroup.procs || exit 1\n", shell::quote(&group.to_string_lossy()))
}

/// What to run in the namespace.
fn inner_script(subnet: Subnet) -> String {
    format!(
        "set -e\n\
         ip link set lo up\n\
         ip link add {BRIDGE} type bridge\n\
         ip addr add {}/25 dev {BRIDGE}\n\
         ip link set {BRIDGE} up\n\
         echo 1 >/proc/sys/net/ipv4/ip_forward\n",
        subnet.gateway()
    )
}

/// What to run on this computer: the pair, one end of which is born in the namespace.
fn outer_script(subnet: Subnet, holder: u32) -> String {
    let (link, near, far) = (subnet.link(), subnet.host(253), subnet.host(254));
    let inside = format!("nsenter --net=/proc/{holder}/ns/net");
    format!(
        "set -e\n\
         ip link add {link} type veth peer name up0 netns /proc/{holder}/ns/net\n\
         {inside} ip addr add {far}/30 dev up0\n\
         {inside} ip link set up0 up\n\
         {inside} ip route add default via {near}\n\
         ip addr add {near}/30 dev {link}\n\
         ip link set {link} up\n\
         echo 1 >/proc/sys/net/ipv4/conf/{link}/forwarding\n\
         ip route add {} via {far} dev {link}\n",
        subnet.machines()
    )
}

fn in_namespace(holder: u32, script: &str) -> Result<(), Error> {
    let mut shell = command::tool("nsenter");
    shell.args([&format!("--net=/proc/{holder}/ns/net"), "sh", "-c", script]);
    command::output(&mut shell, "make the lab's bridge").map(drop)
}

fn host_script(script: &str) -> Result<(), Error> {
    command::output(command::tool("sh").args(["-c", script]), "join the lab's network to this computer")
        .map(drop)
}

/// Waits until the kernel has taken a namespace apart; a pair that is left for another reason is deleted.
fn wait_gone(subnet: Subnet) -> Result<(), Error> {
    let link = PathBuf::from(format!("/sys/class/net/{}", subnet.link()));
    if wait::until(Duration::from_secs(2), || !link.exists()) {
        return Ok(());
    }
    let _ = command::tool("ip").args(["link", "delete", &subnet.link()]).output();
    if wait::until(SETTLE, || !link.exists()) {
        return Ok(());
    }
    Err(Error::StillThere { what: format!("the interface {}", subnet.link()), seconds: SETTLE.as_secs() })
}

/// Lets packets through that arrive by the default route's interfaces, which the answers do.
fn start_forwarding(subnet: Subnet, report: Report<'_>) -> Result<(), Error> {
    let _lock = state::lock_all()?;
    let uplinks = route_field("dev", &["default"])?;
    if uplinks.is_empty() {
        let text =
            "this computer has no default route: the machines reach nothing outside the lab".to_owned();
        report(Progress::Note { node: None, text });
    }
    let mut ours = forwarded();
    for uplink in uplinks.into_iter().filter(|uplink| *uplink != subnet.link()) {
        if read_flag(&switch(&uplink)) == Some(false) {
            ours.insert(uplink.clone());
            // Written down first: a crash in between leaves nothing turned on that is not known of.
            write_forwarded(&ours)?;
            let switch = switch(&uplink);
            std::fs::write(&switch, "1").map_err(Error::io("turn on forwarding in", &switch))?;
        }
    }
    Ok(())
}

/// Sets back what [`start_forwarding`] has set, when no lab is left.
pub fn stop_forwarding_when_unused() -> Result<(), Error> {
    let _lock = state::lock_all()?;
    if !state::names()?.is_empty() {
        return Ok(());
    }
    let wanted_by_others = read_flag(Path::new("/proc/sys/net/ipv4/ip_forward")) == Some(true);
    for uplink in forwarded().iter().filter(|_| !wanted_by_others) {
        // An interface that is gone has nothing to set back.
        let _ = std::fs::write(switch(uplink), "0");
    }
    write_forwarded(&BTreeSet::new())?;
    // Whoever is about to use it makes it again.
    let _ = std::fs::remove_dir(state::ROOT);
    Ok(())
}

fn switch(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"))
}

fn read_flag(path: &Path) -> Option<bool> {
    Some(std::fs::read_to_string(path).ok()?.trim() != "0")
}

fn forwarded() -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(state::ROOT).join(FORWARDING)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn write_forwarded(interfaces: &BTreeSet<String>) -> Result<(), Error> {
    let file = Path::new(state::ROOT).join(FORWARDING);
    if interfaces.is_empty() {
        return match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &file)(error))
            }
            _ => Ok(()),
        };
    }
    let text: String = interfaces.iter().map(|interface| format!("{interface}\n")).collect();
    state::replace(&file, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_labs_do_not_meet() {
        let subnet = Subnet(7);
        assert_eq!(subnet.machines(), "10.77.7.0/25");
        assert_eq!(subnet.machine(10), "10.77.7.10");
        assert!(Subnet(255).link().len() <= 15);
        let cases = [
            ("default", false),
            ("0.0.0.0/0", false),
            ("10.0.0.0/8", true),
            ("10.77.7.0/25", true),
            ("10.77.7.253", true),
            ("10.77.7.252/30", true),
            ("10.77.8.0/24", false),
            ("10.77.6.0/23", true),
            ("192.168.1.0/24", false),
            ("nonsense/x", false),
        ];
        for (route, expected) in cases {
            assert_eq!(subnet.overlaps(route), expected, "{route}");
        }
    }

    #[test]
    fn the_pair_is_born_with_one_end_in_the_namespace() {
        let script = outer_script(Subnet(7), 42);
        assert!(
            script.contains("ip link add dhlab7 type veth peer name up0 netns /proc/42/ns/net\n"),
            "{script}"
        );
        assert!(script.ends_with("ip route add 10.77.7.0/25 via 10.77.7.254 dev dhlab7\n"), "{script}");
    }
}
