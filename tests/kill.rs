//! A run that is killed (SIGKILL, no time for anything) at any moment leaves a node that the next run converges,
//! notified restarts included: real machines, killed at fifty moments, against one that was never disturbed.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr)]

mod support;

#[path = "kill/machine.rs"]
mod machine;
#[path = "kill/moments.rs"]
mod moments;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use machine::{Machine, State};
use moments::Moment;
use support::Fixture;

const MOMENTS: usize = 50;

/// What is run, and at how many moments it is killed: the roles by themselves, so that what comes late in one has not
/// to wait for all before it, and all of them together.
const RUNS: [(&str, usize); 4] = [
    ("kill-agent", 12),
    ("kill-text", 16),
    ("kill-own,kill-back", 16),
    ("kill-agent,kill-text,kill-own,kill-back", 6),
];

/// The machine that is never disturbed.
const CALM: &str = "calm";
/// Those whose runs are killed: by turns, so that fifty kills take no hour. Half of them log in as root, the others
/// go through sudo, which handles a connection that is gone in its own way.
const DISTURBED: [&str; 4] = ["root-1", "root-2", "sudo-1", "sudo-2"];

fn inventory() -> String {
    let roles = &["kill-agent", "kill-text", "kill-own", "kill-back"][..];
    let nodes: Vec<_> = [CALM].iter().chain(&DISTURBED).map(|node| (*node, "debian-13", roles)).collect();
    support::inventory("kim", &nodes)
}

/// Lets datahub log in as root to some machines; all of them have the account that goes through sudo.
fn log_in_as_root(lab: &Fixture, is_root: impl Fn(&str) -> bool) {
    let text = std::fs::read_to_string(lab.dir().join("datahub.toml")).expect("written by `up`");
    let mut inventory: toml::Table = text.parse().expect("TOML");
    let nodes = inventory["nodes"].as_table_mut().expect("a table");
    for (_, node) in nodes.iter_mut().filter(|(name, _)| is_root(name)) {
        let ssh = node.get_mut("ssh").and_then(toml::Value::as_table_mut).expect("how to log in");
        ssh.insert("user".into(), "root".into());
    }
    lab.write("datahub.toml", &inventory.to_string());
}

/// A run to be killed, and what its machine must be like in the end.
struct Job {
    roles: &'static str,
    moment: Moment,
    model: Arc<State>,
}

#[test]
fn a_run_that_is_killed_at_any_moment_is_finished_by_the_next_one() {
    let Some(mut lab) = support::lab("kill") else { return };
    let nodes: Vec<&str> = [CALM].into_iter().chain(DISTURBED).collect();
    lab.up(&inventory(), &nodes);
    log_in_as_root(&lab, |node| !node.starts_with("sudo"));
    lab.write("roles/kill-agent/role.toml", include_str!("kill/agent.toml"));
    lab.write("roles/kill-text/role.toml", include_str!("kill/text.toml"));
    lab.write("roles/kill-own/role.toml", include_str!("kill/own.toml"));
    lab.write("roles/kill-back/role.toml", include_str!("kill/back.toml"));
    let lab = &lab;
    let machines: Vec<Machine<'_>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            nodes.iter().map(|node| scope.spawn(move || Machine::set_up(lab, node))).collect();
        threads.into_iter().map(|thread| thread.join().expect("set up")).collect()
    });
    let (calm, disturbed) = machines.split_first().expect("five machines");

    // Moments of all runs, dealt out so that none is left for the end.
    let mut moments: Vec<(usize, Job)> = Vec::new();
    for (roles, count) in RUNS {
        calm.put_back();
        let run = calm.run(roles, None);
        assert_eq!(run.failure(), None);
        let again = calm.run(roles, None);
        assert_eq!((again.failure(), again.timeline.summary()), (None, Some((0, 0))));
        let model = Arc::new(calm.look());
        let (events, took) = (run.timeline.len(), run.took.as_millis());
        eprintln!("undisturbed {roles}: {events} events in {took} ms, {}", run.timeline.work());
        assert_eq!(machine::started_too_early(&model), Vec::<String>::new());
        if roles.contains("agent") && roles.contains("back") {
            check_model(&model);
        }
        let job = |moment| Job { roles, moment, model: model.clone() };
        let chosen = run.timeline.moments(count);
        moments.extend(chosen.into_iter().enumerate().map(|(at, moment)| (at * 1000 / count, job(moment))));
    }
    assert_eq!(moments.len(), MOMENTS);
    moments.sort_by_key(|(at, _)| *at);

    let started = Instant::now();
    let queue: Mutex<VecDeque<Job>> = Mutex::new(moments.into_iter().map(|(_, job)| job).collect());
    let problems: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let next = || queue.lock().expect("no panic").pop_front();
    std::thread::scope(|scope| {
        for machine in disturbed {
            scope.spawn(|| {
                while let Some(Job { roles, moment, model }) = next() {
                    let (line, found) = machine.survives(roles, &moment, &model);
                    let verdict = if found.is_empty() { "ok" } else { "FAILED" };
                    eprintln!("{verdict:6} {line}");
                    let mut problems = problems.lock().expect("no panic");
                    for problem in found {
                        eprintln!("       {problem}");
                        problems.push(format!("{line}\n  {problem}"));
                    }
                }
            });
        }
    });
    eprintln!("{MOMENTS} moments in {} s", started.elapsed().as_secs());
    let problems = problems.into_inner().expect("no panic");
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// What the comparison stands on: the undisturbed machine is what the roles say, and what its services have read is
/// what their files hold.
fn check_model(model: &State) {
    for (key, value) in [
        ("service agent.read", "flavour=plum /etc/kill-agent.conf: port = 2 "),
        // Once by the package, once by the handler.
        ("service agent.starts", "started started "),
        (
            "service own.read",
            "flavour=none /etc/kill/own.conf: own = yes /srv/kill/built: first second /etc/kill/last.conf: last = yes ",
        ),
        // By the unit, and by a handler in each of the two roles.
        ("service own.starts", "started started started "),
        ("service late.read", "flavour=none /etc/kill/late.conf: late "),
        ("service late.starts", "started started "),
        ("service plain.read", "flavour=none /etc/kill/plain.conf: plain = yes "),
        ("service plain.starts", "started "),
        ("service lister.reloads", "reloaded "),
        ("service lister.starts", "started "),
        ("service still.starts", "started "),
        ("sshd", "has read yes"),
        ("sysctl log_martians", "1"),
        ("packages half done", ""),
        ("processes", ""),
    ] {
        assert_eq!(model.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(
        model.contains_key("sum /var/lib/kill/rebuilt") && !model.contains_key("file /var/lib/kill/never")
    );
    assert!(model.contains_key("file /etc/kill/token") && !model.contains_key("file /etc/kill/old"));
}
