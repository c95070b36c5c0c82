//! The lab itself, with real machines: what they are, what switching them does, and what is left of them.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use datahub::inventory::check_claims;
use datahub::lab::{Error, Format, Lab, Stop};
use datahub::probe::Facts;
use support::Fixture;

const INVENTORY: &str = r#"
[cluster]
name = "test"

[ssh]
user = "kim"
proxy_jump = "gate.home.arpa"

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
ssh = { user = "root" }
"#;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// What each machine says, which must differ.
#[track_caller]
fn distinct(lab: &Fixture, script: &str) {
    let answers: BTreeSet<String> = ["alpha", "beta"].map(|node| lab.sh(node, script)).into();
    assert_eq!(answers.len(), 2, "{script}: {answers:?}");
}

/// Waits until a machine that was told to reboot has done so.
fn boots_anew(lab: &Fixture, node: &str, before: &str) {
    for _ in 0..300 {
        let output = lab.sh_output(node, "root", BOOT_ID);
        let id = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && id.trim() != before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{node} does not come back");
}

#[test]
fn machines_are_fresh_debian_servers_of_their_own() {
    let Some(mut lab) = support::lab("fresh") else { return };
    lab.up(INVENTORY, &["alpha", "beta"]);
    for (node, hostname, version) in [("alpha", "host-alpha", "13"), ("beta", "host-beta", "12")] {
        assert_eq!(lab.sh(node, "hostname"), hostname);
        assert_eq!(lab.sh(node, ". /etc/os-release; echo $VERSION_ID"), version);
        assert_eq!(
            lab.sh(node, "systemctl is-system-running --wait; systemctl --failed --plain --no-legend"),
            "running"
        );
        // The lists are there, and so is the way to the archive.
        lab.sh(node, "apt-get install -qq hello && hello && apt-get update -qq");
    }
    distinct(&lab, BOOT_ID);
    distinct(&lab, "cat /etc/machine-id");
    distinct(&lab, "cat /etc/ssh/ssh_host_ed25519_key.pub");
    distinct(&lab, "hostname -I");
    lab.sh("alpha", &format!("ping -c 1 -W 5 {}", lab.address("beta")));

    // The login of the inventory, with sudo; nobody else's.
    let output = lab.sh_output("alpha", "kim", "id -un; pwd; sudo -n id -un; stat -c '%U %a' . .ssh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kim\n/home/kim\nroot\nkim 700\nkim 700\n");
    assert!(!lab.sh_output("beta", "kim", "true").status.success());
    assert_eq!(
        lab.sh("alpha", "stat -c '%U %a %n' / /etc /root /etc/shadow /etc/ssh/ssh_host_ed25519_key"),
        "root 755 /\nroot 755 /etc\nroot 700 /root\nroot 640 /etc/shadow\nroot 600 /etc/ssh/ssh_host_ed25519_key"
    );
}

#[test]
fn the_lab_is_shut_off() {
    let Some(mut lab) = support::lab("shut off") else { return };
    lab.up(INVENTORY, &["alpha"]);
    // This computer's own end of the lab's network: its services are not the machines' business.
    let address = lab.address("alpha");
    let host = format!("{}.253", address.rsplit_once('.').expect("IPv4").0);
    let listener = TcpListener::bind((host.as_str(), 0)).expect("bound");
    let port = listener.local_addr().expect("bound").port();
    TcpStream::connect((host.as_str(), port)).expect("this computer reaches itself");
    let reach = format!("timeout 5 bash -c '</dev/tcp/{host}/{port}'");
    assert!(!lab.sh_output("alpha", "root", &reach).status.success());

    // And not the other lab's machines.
    let mut other = support::lab("other").expect("as the first");
    other.up(INVENTORY, &["alpha"]);
    assert_ne!(other.address("alpha"), address);
    let reach = format!("timeout 5 bash -c '</dev/tcp/{}/22'", other.address("alpha"));
    assert!(!lab.sh_output("alpha", "root", &reach).status.success());
    assert!(other.sh_output("alpha", "root", "true").status.success());

    // One going leaves the other alone.
    drop(lab);
    assert_eq!(other.sh("alpha", "apt-get update -qq; hostname"), "host-alpha");

    // Capabilities that would reach this computer are not given.
    for denied in ["timedatectl set-time 2001-01-01", "sysctl -w kernel.panic=1", "mknod /root/disk b 7 0"] {
        assert!(!other.sh_output("alpha", "root", denied).status.success(), "{denied}");
    }
}

#[test]
fn switching_keeps_files_and_a_reset_does_not() {
    let Some(mut lab) = support::lab("power") else { return };
    lab.up(INVENTORY, &["alpha"]);
    let first = lab.sh("alpha", &format!("touch /root/kept; {BOOT_ID}"));
    let machine_id = lab.sh("alpha", "cat /etc/machine-id");

    // From inside, in the way of the machine's own systemd.
    let _ = lab.sh_output("alpha", "root", "systemctl reboot");
    boots_anew(&lab, "alpha", &first);
    lab.sh("alpha", "test -e /root/kept");

    // Bringing up what is up changes nothing.
    let second = lab.sh("alpha", BOOT_ID);
    lab.up(INVENTORY, &["alpha"]);
    assert_eq!(lab.sh("alpha", BOOT_ID), second);

    for how in [Stop::Clean, Stop::PowerCut] {
        let before = lab.sh("alpha", BOOT_ID);
        lab.lab().stop("alpha", how).expect("stops");
        assert!(!lab.machine("alpha").running);
        lab.lab().stop("alpha", how).expect("is off already");
        lab.lab().start("alpha").expect("starts");
        assert!(lab.machine("alpha").running && lab.machine("alpha").pid.is_some());
        assert_ne!(lab.sh("alpha", BOOT_ID), before);
        assert_eq!(lab.sh("alpha", "ls /root; cat /etc/machine-id"), format!("kept\n{machine_id}"));
    }

    lab.lab().reset("alpha").expect("is made anew");
    // The pinned host key holds, or ssh would have refused.
    let fresh = lab.sh("alpha", "ls /root; cat /etc/machine-id");
    assert!(!fresh.contains("kept") && fresh != machine_id, "{fresh}");
    assert!(matches!(lab.lab().stop("nobody", Stop::Clean), Err(Error::NoMachine { .. })));
}

#[test]
fn the_stand_in_inventory_leads_to_the_machines() {
    let Some(mut lab) = support::lab("stand-in") else { return };
    lab.up(INVENTORY, &["beta"]);
    let real = lab.inventory(INVENTORY);
    let stand_in = lab.lab().stand_in(&real);
    assert_eq!(stand_in.nodes.keys().collect::<Vec<_>>(), ["beta"]);
    let beta = &stand_in.nodes["beta"];
    assert_eq!(beta.host, lab.address("beta"));
    let facts = Facts { hostname: lab.sh("beta", "hostname"), arch: "other".into(), ..Facts::default() };
    assert_eq!(check_claims(&stand_in, beta, &facts), Ok(()));

    // The transport of datahub itself accepts the pinned key and logs in.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let hostname = runtime.block_on(async {
        use datahub::transport::{Script, Transport as _, ssh};
        let target = ssh::Target {
            host: beta.host.clone(),
            user: beta.ssh.user.clone(),
            port: beta.ssh.port,
            identity_file: beta.ssh.identity_file.clone(),
            proxy_jump: beta.ssh.proxy_jump.clone(),
            host_key: beta.ssh.host_key.clone(),
            policy: ssh::Policy::Strict,
        };
        let options =
            ssh::Options { config: None, agent: None, known_hosts: Vec::new(), ..Default::default() };
        let node = ssh::Ssh::connect(&target, &options).await.expect("connects");
        node.run(&Script::new("hostname")).await.expect("runs").stdout
    });
    assert_eq!(hostname, b"host-beta\n");

    let config = lab.lab().inventory(&real, Format::SshConfig).expect("written out");
    let config = lab.write("ssh_config", &config);
    let ssh =
        Command::new("ssh").arg("-F").arg(config).args(["beta", "hostname"]).output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&ssh.stdout), "host-beta\n");
    let written = datahub::inventory::load(lab.dir()).expect("a good inventory");
    assert_eq!(written.nodes["beta"].ssh, beta.ssh);
}

/// Everything on this computer that is a lab's.
fn traces(name: &str, subnet: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |what: &str, text: &str, word: &str| {
        found.extend(text.lines().filter(|line| line.contains(word)).map(|line| format!("{what}: {line}")));
    };
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    look("route", &output("ip", &["-4", "route", "show", "table", "all"]), subnet);
    look("address", &output("ip", &["-4", "-o", "addr"]), subnet);
    look("packet filter", &output("nft", &["list", "ruleset"]), name);
    look("group", &output("find", &["/sys/fs/cgroup", "-type", "d", "-path", "*/datahub-lab/*"]), name);
    look("file", &output("find", &["/var/lib/datahub-lab", "/run/systemd/nspawn", "-maxdepth", "2"]), name);
    // One that has ended is only waiting for its parent to ask how.
    let ended = |process: &Path| {
        let status = read(&process.join("status"));
        status.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"))
    };
    let processes = std::fs::read_dir("/proc").expect("readable").flatten();
    for process in processes.filter(|process| !ended(&process.path())) {
        look("process", &read(&process.path().join("cgroup")), &format!("datahub-lab/{name}/"));
        look("mount", &read(&process.path().join("mounts")), &format!("datahub-lab/{name}/"));
    }
    found
}

#[test]
fn nothing_is_left_of_a_lab() {
    let Some(mut lab) = support::lab("traces") else { return };
    lab.up(INVENTORY, &["alpha"]);
    let address = lab.address("alpha");
    let subnet = format!("{}.", address.rsplit_once('.').expect("IPv4").0);
    let before = traces(&lab.name, &subnet);
    for kind in ["route", "address", "packet filter", "group", "file", "process", "mount"] {
        assert!(before.iter().any(|trace| trace.starts_with(kind)), "{kind} is not looked at: {before:#?}");
    }
    assert!(Lab::list().expect("readable").contains(&lab.name));
    for _ in 0..2 {
        Lab::down(&lab.name, &|_| ()).expect("goes, and is gone");
        assert_eq!(traces(&lab.name, &subnet), [""; 0]);
    }
    assert!(matches!(Lab::open(&lab.name), Err(Error::NoLab { .. })));
}

/// A killed `lab up` may have been about to start something: that comes while its lab is taken down.
#[test]
fn what_starts_while_a_lab_goes_goes_with_it() {
    let Some(mut lab) = support::lab("late") else { return };
    lab.up(INVENTORY, &["alpha"]);
    let mount = std::fs::read_to_string("/proc/mounts").expect("readable");
    let mount = mount.lines().find_map(|line| line.strip_prefix("cgroup2 ")).expect("mounted");
    let group = format!("{}/datahub-lab/{}/net", mount.split(' ').next().expect("a path"), lab.name);
    let late = "for at in 0 1 2 3 4 5 6 7 8 9; do (sleep 0.0$at; echo 0 >\"$0/cgroup.procs\" && exec sleep 60) & done";
    let mut late =
        Command::new("sh").args(["-c", late, &group]).stderr(Stdio::null()).spawn().expect("starts");
    Lab::down(&lab.name, &|_| ()).expect("goes");
    late.wait().expect("ended");
    assert_eq!(traces(&lab.name, &format!("/{}/", lab.name)), [""; 0]);
}

#[test]
fn a_process_killed_in_the_middle_leaves_nothing_that_cannot_be_mended() {
    for (at, mend) in [("network", false), ("starting", false), ("network", true), ("ready", true)] {
        let Some(mut lab) = support::lab("crash") else { return };
        let inventory = lab.write("real/datahub.toml", INVENTORY);
        kill_when(&lab.name, &inventory, at);
        if mend {
            lab.up(INVENTORY, &["alpha", "beta"]);
            assert_eq!(lab.sh("beta", "hostname"), "host-beta", "after a crash at: {at}");
        }
        Lab::down(&lab.name, &|_| ()).expect("goes");
        assert_eq!(traces(&lab.name, &format!("/{}/", lab.name)), [""; 0], "after a crash at: {at}");
    }
}

/// Brings a lab up in a process of its own and kills that as soon as it tells of something.
fn kill_when(name: &str, inventory: &Path, word: &str) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "brings_a_lab_up", "--ignored", "--nocapture"])
        .envs([("LAB", name.as_ref()), ("INVENTORY", inventory.as_os_str())])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let seen = lines.map_while(Result::ok).any(|line| line.contains(word));
    assert!(seen, "it ended before it told of: {word}");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

/// Not a test: the process that [`kill_when`] kills.
#[test]
#[ignore = "run by another test"]
fn brings_a_lab_up() {
    let variable = |name: &str| std::env::var(name).expect("set by the other test");
    let inventory = datahub::inventory::load(Path::new(&variable("INVENTORY"))).expect("a good inventory");
    let nodes: Vec<String> = inventory.nodes.keys().cloned().collect();
    Lab::up(&variable("LAB"), &inventory, &nodes, &|progress| eprintln!("{progress}")).expect("comes up");
}
