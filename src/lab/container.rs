//! A machine as a container: systemd-nspawn on an overlay over the base image.
//!
//! It runs below a small script of its own (`start.sh`), which starts it again when it reboots and does not
//! depend on the process that started it. The script has a mount namespace of its own: the overlay is mounted
//! there only, and is gone when the machine is.
//!
//! Of nspawn's usual capabilities a machine has all but CAP_MKNOD: without a rule for devices, which only a
//! systemd that rules this computer would set, it could make a node for this computer's disk and write to it.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::cgroup::Group;
use super::error::tail;
use super::machine::Record;
use super::network::{self, Subnet};
use super::state::{self, Folder, State};
use super::{Error, Progress, Report, Stop, command, image, keys, seed, wait};
use crate::shell;

/// For a machine to take logins. Seven at once need a few seconds on two cores.
const BOOT: Duration = Duration::from_secs(120);
/// For the script to enter its control group.
const ENTER: Duration = Duration::from_secs(10);
/// For a machine to end its services in order.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// systemd-nspawn's status when the machine asked for a reboot.
const REBOOT: i32 = 133;

/// Whether the machine is on, or on its way up, down or through a reboot.
pub fn is_running(lab: &str, node: &str) -> Result<bool, Error> {
    Ok(Group::of_node(lab, node)?.is_populated())
}

/// The machine's process 1 as this computer numbers it.
pub fn leader(lab: &str, node: &str) -> Result<Option<u32>, Error> {
    let init = Group::of_node(lab, node)?.child("run").child("payload").child("init.scope");
    Ok(init.processes().into_iter().min())
}

/// Makes the machine's disk if it has none. It appears in one step, so that it is never half made.
pub fn create(folder: &Folder, state: &State, record: &Record) -> Result<(), Error> {
    let node = folder.node(&record.node);
    if node.join("disk").exists() {
        return Ok(());
    }
    let new = node.join("disk.new");
    state::remove_dir(&new)?;
    for name in ["root", "disk.new", "disk.new/upper", "disk.new/work"] {
        state::make_dir(&node.join(name))?;
    }
    let lower = image::folder(record)?;
    let keys = keys::read(folder, record)?;
    let read_image = |path: &str| read(&lower.join(path));
    let mut seeds = seed::identity(record, Subnet(state.number), &keys, &resolv_conf()?, &machine_id()?);
    seeds.extend(seed::account(record, &keys.login_public, read_image)?);
    seed::write(&new.join("upper"), &lower, &seeds)?;
    // An overlay's root has the mode of its upper folder, whatever the image says.
    seed::open_to_all(&new.join("upper"))?;
    std::fs::rename(&new, node.join("disk")).map_err(Error::io("put in place", &new))
}

/// Removes the machine's disk; its host key stays.
pub fn erase(folder: &Folder, node: &str) -> Result<(), Error> {
    state::remove_dir(&folder.node(node).join("disk"))
}

/// Starts a machine that is off. Returns before it has booted.
pub fn start(folder: &Folder, state: &State, record: &Record) -> Result<(), Error> {
    let group = Group::of_node(&folder.name, &record.node)?;
    group.remove()?;
    for part in ["watch", "run"] {
        group.child(part).create()?;
    }
    let node = folder.node(&record.node);
    let script = node.join("start.sh");
    state::replace(
        &script,
        &start_script(&group, &node, &image::folder(record)?, Subnet(state.number), record),
    )?;
    let log = node.join("console.log");
    let console = File::create(&log).map_err(Error::io("write", &log))?;
    let errors = console.try_clone().map_err(Error::io("write", &log))?;
    let holder =
        network::holder(&folder.name)?.ok_or_else(|| Error::NoNetwork { lab: folder.name.clone() })?;
    let mut start = command::tool("setsid");
    start
        .args(["--fork", "nsenter", &format!("--net=/proc/{holder}/ns/net")])
        .args(["unshare", "--mount", "--propagation", "slave", "sh"])
        .arg(&script)
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(errors);
    let started =
        start.status().map_err(|error| command::not_started(&start, "start the machine", &error))?;
    if !started.success() {
        return Err(command::failed(&start, "start the machine", started, ""));
    }
    if wait::until(ENTER, || group.is_populated()) {
        return Ok(());
    }
    let (log, last) = self::console(folder, &record.node);
    Err(Error::Died { log, last })
}

/// Switches a machine off. Off already: only what a crash has left of it is removed.
pub fn stop(lab: &str, node: &str, how: Stop) -> Result<(), Error> {
    let group = Group::of_node(lab, node)?;
    if how == Stop::Clean {
        for pid in group.child("run").child("supervisor").processes() {
            terminate(pid);
        }
        wait::until(SHUTDOWN, || !group.is_populated());
    }
    group.remove()
}

/// Waits until the machine takes logins, also those of users that are not root.
pub fn wait_ready(folder: &Folder, state: &State, record: &Record, report: Report<'_>) -> Result<(), Error> {
    let (lab, node) = (&folder.name, &record.node);
    let address = state.address(record);
    let group = Group::of_node(lab, node)?;
    let mut greeted = false;
    let mut died = false;
    let ready = wait::until(BOOT, || {
        died = !group.is_populated();
        greeted = greeted || greets(&address);
        died || (greeted && logins_allowed(lab, node))
    });
    if ready && !died {
        report(Progress::Ready { node: node.clone(), address });
        return Ok(());
    }
    let (log, last) = console(folder, node);
    Err(if died { Error::Died { log, last } } else { Error::NotReady { seconds: BOOT.as_secs(), log, last } })
}

/// Where the machine's console is written, and the end of it.
fn console(folder: &Folder, node: &str) -> (PathBuf, String) {
    let log = folder.node(node).join("console.log");
    let bytes = std::fs::read(&log).unwrap_or_default();
    let last = tail(&String::from_utf8_lossy(&bytes), 8);
    (log, last)
}

/// Whether an SSH server answers. It says who it is before anything is asked of it, RFC 4253, section 4.2.
fn greets(address: &str) -> bool {
    let Ok(address) = address.parse::<Ipv4Addr>() else { return false };
    let address = SocketAddr::from((address, 22));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
        return false;
    };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && greeting == *b"SSH-"
}

/// While a machine boots or shuts down only root may log in, pam_nologin(8).
fn logins_allowed(lab: &str, node: &str) -> bool {
    let leader = leader(lab, node).ok().flatten();
    leader.is_some_and(|pid| {
        let run = PathBuf::from(format!("/proc/{pid}/root/run"));
        run.join("systemd").exists() && !run.join("nologin").exists()
    })
}

fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already: nothing is left to do.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// What runs the machine. All words in it are of a kind that needs no quoting, and quoted nevertheless.
fn start_script(group: &Group, node: &Path, lower: &Path, subnet: Subnet, record: &Record) -> String {
    let quoted = |path: PathBuf| shell::quote(&path.to_string_lossy());
    let enter = |part: &str| -> String { group.child(part).paths().map(network::join_group).collect() };
    let run: Vec<String> = group.child("run").paths().map(|path| quoted(path.to_owned())).collect();
    let run = run.join(" ");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        node.join("disk/upper").display(),
        node.join("disk/work").display()
    );
    format!(
        r#"# Runs the machine {name}, and again after each reboot. The mounts are this script's own.
{watch}mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 lab /run/systemd/nspawn || exit 1
mount -t overlay -o {options} lab {root} || exit 1
while :; do
  # Groups left of the last run would make this one hang.
  find {run} -depth -type d -exec rmdir {{}} + 2>/dev/null
  mkdir -p {run}
  (
{run_group}export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --boot --register=no --keep-unit --drop-capability=CAP_MKNOD \
  --directory={root} --machine={link}-{number} --hostname={hostname} --network-bridge={bridge} \
  --resolv-conf=off --timezone=off --link-journal=no --console=pipe </dev/null
  )
  status=$?
  [ "$status" -eq {REBOOT} ] || exit "$status"
done
"#,
        name = record.node,
        watch = enter("watch"),
        options = shell::quote(&options),
        root = quoted(node.join("root")),
        run_group = enter("run"),
        link = subnet.link(),
        number = record.number,
        hostname = shell::quote(&record.hostname),
        bridge = network::BRIDGE,
    )
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

/// A random id, machine-id(5).
fn machine_id() -> Result<String, Error> {
    Ok(read(Path::new("/proc/sys/kernel/random/uuid"))?.trim().replace('-', ""))
}

fn resolv_conf() -> Result<String, Error> {
    let resolved = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    Ok(seed::resolv_conf(&read(Path::new("/etc/resolv.conf"))?, resolved.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::machine::{Kind, Release};

    #[test]
    fn the_script_is_shell_and_gives_a_machine_no_more_than_it_needs() {
        let record = Record {
            node: "alpha".into(),
            kind: Kind::Container,
            number: 10,
            hostname: "host-alpha".into(),
            user: "kim".into(),
            release: Release::Trixie,
            image: Some("trixie-x".into()),
            note: None,
        };
        let group = Group::in_hierarchies("/sys/fs/cgroup".into(), None).child("node-alpha");
        let script =
            start_script(&group, Path::new("/lab/nodes/alpha"), Path::new("/cache/x"), Subnet(7), &record);
        crate::shell::assert_parses(&script);
        for needed in [
            "--machine=dhlab7-10 --hostname=host-alpha --network-bridge=br0 ",
            "lowerdir=/cache/x,upperdir=/lab/nodes/alpha/disk/upper,workdir=/lab/nodes/alpha/disk/work",
            "--drop-capability=CAP_MKNOD",
            "[ \"$status\" -eq 133 ] || exit",
        ] {
            assert!(script.contains(needed), "{needed}\n{script}");
        }
        assert!(!script.contains("--capability"), "{script}");
    }
}
