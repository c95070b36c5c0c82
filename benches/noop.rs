//! What a run costs that finds nothing to do, and what the first one costs, against plain `ssh`, a script by hand,
//! and the tools that people use: on the lab's machines, in turns, so that ratios count and not the machine.
//!
//!     cargo bench --bench noop          as root; the other tools come from PyPI into environments below `target`
//!
//! DATAHUB_BENCH_ROUNDS sets the number of rounds (5), DATAHUB_BENCH_RIVALS=no leaves the other tools out, and
//! DATAHUB_BENCH_BINARY names another build to be measured. Nothing here fails because something is slow: it prints.
#![allow(clippy::print_stdout)]

#[path = "noop/mix.rs"]
mod mix;
#[path = "noop/rivals.rs"]
mod rivals;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mix::Item;
use rivals::Rival;
use support::Fixture;

/// Resources of the node that is measured.
const RESOURCES: usize = 64;
/// A login takes less than a tenth of a second: more of them fit in a round.
const QUICK: usize = 10;
const FLEET: [&str; 7] = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
/// Is made anew for every first converge.
const FRESH: &str = "fresh";
/// Grows from 8 to 512 resources.
const SCALE: &str = "scale";
const SIZES: [usize; 3] = [8, 64, 512];

fn main() {
    let Some(mut lab) = support::lab("noop") else { return };
    let rounds = std::env::var("DATAHUB_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let items = mix::items(RESOURCES);
    let nodes: Vec<&str> = FLEET.into_iter().chain([FRESH, SCALE]).collect();
    let inventory = inventory(&nodes);
    lab.up(&inventory, &nodes);
    lab.write("templates/bench/service.j2", mix::TEMPLATE);
    lab.write("roles/bench/role.toml", &mix::role(&items));
    println!("{RESOURCES} resources a node, {rounds} rounds, medians; load {}", load());

    let first = first_converge(&lab, &items, rounds.min(5));
    // The others' modules need Python, and apt's for it.
    lab.sh(
        FLEET[0],
        "DEBIAN_FRONTEND=noninteractive apt-get install -qq python3 python3-apt >/dev/null 2>&1",
    );
    converge(&lab, &["--group", "fleet"]);
    let rivals = match std::env::var("DATAHUB_BENCH_RIVALS").as_deref() {
        Ok("no") => Vec::new(),
        _ => rivals::ready(&lab, &inventory, &lab.machine(FLEET[0]), &items),
    };
    let rivals: Vec<Rival> = rivals.into_iter().filter(settled).collect();
    let one = one_node(&lab, &rivals, rounds);
    let seven = seven_nodes(&lab, rounds);
    let scale = scale(&lab);
    print(&one, &seven, &first, &scale, &rivals, rounds);
}

fn inventory(nodes: &[&str]) -> String {
    let mut text =
        String::from("[cluster]\nname = \"bench\"\n\n[groups.all]\nroles = [\"bench\"]\n\n[groups.fleet]\n");
    for node in nodes {
        let groups = if FLEET.contains(node) { "groups = [\"fleet\"]\n" } else { "" };
        text.push_str(&format!(
            "\n[nodes.{node}]\nhost = \"{node}.home.arpa\"\nhostname = \"{node}\"\narch = \"amd64\"\n\
             os = \"debian-13\"\nssh = {{ user = \"datahub\" }}\n{groups}"
        ));
    }
    text
}

fn settled(rival: &Rival) -> bool {
    let settled = rival.settle();
    if let Err(why) = &settled {
        println!("not measured: {}: {why}", rival.name);
    }
    settled.is_ok()
}

/// The binary, against the lab's machines and with nothing of this computer's SSH configuration.
fn datahub(lab: &Fixture, args: &[&str]) -> Command {
    let home = lab.dir().join("home");
    std::fs::create_dir_all(&home).expect("made");
    let built = || env!("CARGO_BIN_EXE_datahub").into();
    let mut command = Command::new(std::env::var_os("DATAHUB_BENCH_BINARY").unwrap_or_else(built));
    command.arg("--inventory").arg(lab.dir()).args(args).current_dir(lab.dir());
    command.env("DATAHUB_ROLES", lab.dir()).env("HOME", home).env_remove("SSH_AUTH_SOCK");
    for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
        command.env_remove(variable);
    }
    command
}

fn provision(lab: &Fixture, node: &str) -> Command {
    datahub(lab, &["provision", "--node", node])
}

/// Plain `ssh`, as the login that datahub uses.
fn ssh(lab: &Fixture, node: &str, command: &str) -> Command {
    let mut ssh = lab.lab().ssh_command(node, None).expect("a machine of that node");
    ssh.args(["-o", "BatchMode=yes", "--", command]);
    ssh
}

/// Runs it to its end, which must be a good one.
#[track_caller]
fn timed(mut command: Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().expect("it starts");
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// Brings nodes about and shows that a second run finds nothing to do: else it is no no-op that is measured.
#[track_caller]
fn converge(lab: &Fixture, target: &[&str]) {
    for more in [&[][..], &["--dry-run", "--detailed-exitcode"]] {
        let output = datahub(lab, &[&["provision"], target, more].concat()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

struct One {
    ssh: Duration,
    datahub: Duration,
    /// In the rivals' order.
    rivals: Vec<Duration>,
    peak: Option<u64>,
}

fn one_node(lab: &Fixture, rivals: &[Rival], rounds: usize) -> One {
    let node = FLEET[0];
    let (mut logins, mut ours) = (Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); rivals.len()];
    for round in 1..=rounds {
        // The first login after a pause also starts the user's systemd: not counted, for either.
        timed(ssh(lab, node, "true"));
        timed(provision(lab, node));
        for _ in 0..QUICK {
            logins.push(timed(ssh(lab, node, "true")));
            ours.push(timed(provision(lab, node)));
        }
        for (rival, times) in rivals.iter().zip(&mut theirs) {
            times.push(timed(rival.command(round)));
            println!("{}: {:.1?}", rival.name, times.last().copied().unwrap_or_default());
        }
        let (login, run) = (median(logins.clone()), median(ours.clone()));
        println!("one node, round {round} of {rounds}: ssh {login:.0?}, datahub {run:.0?}; load {}", load());
    }
    One {
        ssh: median(logins),
        datahub: median(ours),
        rivals: theirs.into_iter().map(median).collect(),
        peak: peak(provision(lab, node)),
    }
}

struct Pair {
    other: Duration,
    datahub: Duration,
}

/// Seven logins side by side, and one run on the seven.
fn seven_nodes(lab: &Fixture, rounds: usize) -> Pair {
    let logins = || {
        let begun = Instant::now();
        let running: Vec<_> = FLEET
            .iter()
            .map(|node| {
                let mut ssh = ssh(lab, node, "true");
                ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                ssh.spawn().expect("ssh starts")
            })
            .collect();
        for mut ssh in running {
            assert!(ssh.wait().expect("ssh ends").success());
        }
        begun.elapsed()
    };
    let run = || timed(datahub(lab, &["provision", "--group", "fleet"]));
    logins();
    run();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds * 3 {
        theirs.push(logins());
        ours.push(run());
    }
    Pair { other: median(theirs), datahub: median(ours) }
}

/// The whole way from a fresh machine, by datahub and by a script, each on one of its own.
fn first_converge(lab: &Fixture, items: &[Item], rounds: usize) -> Pair {
    let script = lab.write("first.sh", &mix::script(items));
    let fresh = || {
        lab.lab().reset(FRESH).expect("made anew");
        lab.sh(FRESH, "systemctl is-system-running --wait >/dev/null; rm -rf /var/cache/apt/*.bin");
        timed(ssh(lab, FRESH, "true"));
    };
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        fresh();
        let mut command = ssh(lab, FRESH, "sudo sh -s");
        command.stdin(std::fs::File::open(&script).expect("there"));
        let begun = Instant::now();
        let output = command.output().expect("ssh starts");
        theirs.push(begun.elapsed());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if round == 1 {
            // It does the same if datahub then has nothing to do.
            let left =
                datahub(lab, &["plan", "--node", FRESH, "--detailed-exitcode"]).output().expect("it starts");
            assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stdout));
        }
        fresh();
        ours.push(timed(provision(lab, FRESH)));
        let (script, run) =
            (theirs.last().copied().unwrap_or_default(), ours.last().copied().unwrap_or_default());
        println!(
            "first converge, round {round} of {rounds}: script {script:.1?}, datahub {run:.1?}; load {}",
            load()
        );
    }
    Pair { other: median(theirs), datahub: median(ours) }
}

struct Size {
    resources: usize,
    round_trips: u64,
    took: Duration,
    peak: Option<u64>,
}

/// What grows with the number of resources, and what does not.
fn scale(lab: &Fixture) -> Vec<Size> {
    let sizes = SIZES.map(|resources| {
        lab.write("roles/bench/role.toml", &mix::role(&mix::items(resources)));
        converge(lab, &["--node", SCALE]);
        let run =
            datahub(lab, &["provision", "--node", SCALE, "--format", "json"]).output().expect("it starts");
        let finished = String::from_utf8_lossy(&run.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find(|event| event["event"] == "node-finished")
            .expect("a node that is finished");
        let summary = &finished["summary"];
        assert_eq!(summary["resources"], resources, "the mix is what it claims");
        assert_eq!(summary["changed"], 0, "nothing is left to do");
        let times = (0..QUICK).map(|_| timed(provision(lab, SCALE))).collect();
        Size {
            resources,
            round_trips: summary["round_trips"].as_u64().expect("counted"),
            took: median(times),
            peak: peak(provision(lab, SCALE)),
        }
    });
    sizes.into()
}

/// KiB at most resident, as the kernel has noted it when it was last asked before the end.
fn peak(mut command: Command) -> Option<u64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    while child.try_wait().expect("it can be waited for").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()));
        std::thread::sleep(Duration::from_micros(200));
    }
    peak
}

/// The load of the last minute: with much of it, ratios say little.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn print(one: &One, seven: &Pair, first: &Pair, scale: &[Size], rivals: &[Rival], rounds: usize) {
    let ms = |took: Duration| format!("{:.0} ms", took.as_secs_f64() * 1000.0);
    let over = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    let mib = |kib: Option<u64>| kib.map_or("?".to_owned(), |kib| format!("{:.0} MiB", kib as f64 / 1024.0));
    println!("\n{RESOURCES} resources a node; medians of {rounds} rounds, in turns; load {}\n", load());
    println!("| nothing to do | took | ratio | goal |\n|---|---|---|---|");
    println!("| `datahub provision`, one node | {} | | |", ms(one.datahub));
    println!(
        "| `ssh NODE true` | {} | datahub takes {:.2} × that | at most 1.0 × |",
        ms(one.ssh),
        over(one.datahub, one.ssh)
    );
    for (rival, took) in rivals.iter().zip(&one.rivals) {
        let goal = rival.goal.map_or(String::new(), |goal| format!("at least {goal:.0} ×"));
        println!(
            "| {} | {} | datahub is {:.0} × faster | {goal} |",
            rival.name,
            ms(*took),
            over(*took, one.datahub)
        );
    }
    println!("| `datahub provision`, seven nodes | {} | | |", ms(seven.datahub));
    println!(
        "| seven `ssh NODE true` side by side | {} | datahub takes {:.2} × that | at most 1.0 × |",
        ms(seven.other),
        over(seven.datahub, seven.other)
    );
    println!("\n| first converge of a fresh machine | took | ratio | goal |\n|---|---|---|---|");
    println!("| `datahub provision` | {} | | |", ms(first.datahub));
    println!(
        "| one script by hand over ssh | {} | datahub takes {:.2} × that | at most 1.15 × |",
        ms(first.other),
        over(first.datahub, first.other)
    );
    println!("\n| resources | round trips | nothing to do | peak memory |\n|---|---|---|---|");
    for size in scale {
        println!("| {} | {} | {} | {} |", size.resources, size.round_trips, ms(size.took), mib(size.peak));
    }
    println!("\npeak memory of the run on one node: {}", mib(one.peak));
}
