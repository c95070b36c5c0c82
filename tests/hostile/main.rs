//! Hostile and broken nodes, on real machines: each fault is an error that names the node, the resource and the
//! cause; nothing of the node's reaches the terminal raw; nothing half-written stays; and once the fault is gone
//! the next run converges and the one after it changes nothing.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod connection;
mod identity;
mod output;
mod steps;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use support::Fixture;

/// One node that is logged in to as a user with sudo, and another one that only some tests bring up.
const INVENTORY: &str = r#"
[cluster]
name = "test"

[ssh]
user = "kim"

[nodes.alpha]
host = "alpha.home.arpa"
hostname = "host-alpha"
arch = "amd64"
os = "debian-13"
roles = ["test"]

[nodes.beta]
host = "beta.home.arpa"
hostname = "host-beta"
arch = "amd64"
os = "debian-13"
roles = ["test"]
"#;

/// A lab with the node alpha, whose role `test` is made of these resources.
fn alpha(test: &str, resources: &str) -> Option<Fixture> {
    let mut lab = support::lab(test)?;
    role(&lab, resources);
    lab.up(INVENTORY, &["alpha"]);
    Some(lab)
}

fn role(lab: &Fixture, resources: &str) {
    lab.write("roles/test/role.toml", &format!("description = \"What is tested\"\n{resources}"));
}

/// A file that a role with nothing else in it has.
const FILE: &str = "[[resource]]\n[resource.file]\npath = \"/etc/tested\"\ncontent = \"tested\\n\"\n";

const PROVISION: &[&str] = &["provision", "--node", "alpha", "--connect-timeout", "4"];

/// What a run came to, as text.
struct Ended {
    status: Option<i32>,
    text: String,
}

impl Ended {
    #[track_caller]
    fn of(output: &Output) -> Self {
        let mut text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
        text.push_str(std::str::from_utf8(&output.stderr).expect("UTF-8"));
        clean(&text);
        Self { status: output.status.code(), text }
    }

    #[track_caller]
    fn has(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.text.contains(part), "no {part:?} in:\n{}", self.text);
        }
        self
    }

    #[track_caller]
    fn lacks(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(!self.text.contains(part), "{part:?} is in:\n{}", self.text);
        }
        self
    }

    #[track_caller]
    fn status(&self, status: i32) -> &Self {
        assert_eq!(self.status, Some(status), "{}", self.text);
        self
    }
}

/// Nothing that a terminal would obey, or that could deceive a reader.
#[track_caller]
fn clean(text: &str) {
    let bad = text.chars().filter(|c| !matches!(c, '\n' | '\t')).find(|c| datahub::printable::deceives(*c));
    assert_eq!(bad, None, "{text:?}");
}

#[track_caller]
fn run(lab: &Fixture, args: &[&str]) -> Ended {
    let output = lab.datahub(args).timeout(std::time::Duration::from_secs(300)).output().expect("runs");
    Ended::of(&output)
}

/// A run that must fail on the node, with all of these in what it says.
#[track_caller]
fn fails(lab: &Fixture, parts: &[&str]) -> Ended {
    let ended = run(lab, PROVISION);
    ended.status(1).has(&["alpha"]).has(parts).lacks(&["panicked"]);
    ended
}

/// The next run makes the node what it should be, and the one after that finds nothing to do.
#[track_caller]
fn converges(lab: &Fixture) {
    run(lab, PROVISION).status(0).lacks(&["error"]);
    settled(lab);
}

/// A run finds nothing to do, and nothing temporary is left.
#[track_caller]
fn settled(lab: &Fixture) {
    let again = run(lab, &["provision", "--node", "alpha", "--format", "json"]);
    again.status(0).lacks(&["\"event\":\"changed\"", "\"event\":\"handler-run\""]).has(&["\"changed\":0"]);
    assert_eq!(lab.sh("alpha", LEFT_BEHIND), "");
}

/// What datahub makes for a moment only: new contents beside files, steps that nobody picked up, apt's messages.
const LEFT_BEHIND: &str = "{ find /etc /srv /var/lib /root /home -name '.*.datahub.*' -o -name '.*.part'; \
     find /run/datahub -name 'step-*' -o -name 'undo-*'; \
     find /tmp /var/tmp -mindepth 1 -not -path '*/systemd-private-*' -not -path '*/.*-unix*'; \
     find /var/lib/datahub -type f; } 2>/dev/null | grep -v '^/run/datahub/step.lock$'; true";

/// A run beside the test, to be looked at while it goes: its events, line by line.
struct Running {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
    seen: String,
}

impl Running {
    fn start(lab: &Fixture) -> Self {
        let mut command = lab.command(PROVISION);
        command.args(["--format", "json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        Self { child, lines: Box::new(lines), seen: String::new() }
    }

    /// Reads on until an event has all of these, and says how long that took.
    #[track_caller]
    fn until(&mut self, parts: &[&str]) -> Duration {
        let begun = Instant::now();
        for line in self.lines.by_ref() {
            self.seen.push_str(&line);
            self.seen.push('\n');
            if parts.iter().all(|part| line.contains(part)) {
                return begun.elapsed();
            }
        }
        panic!("it ended without {parts:?}:\n{}", self.seen);
    }

    #[track_caller]
    fn end(mut self) -> Ended {
        self.seen.extend(self.lines.by_ref().map(|line| line + "\n"));
        clean(&self.seen);
        Ended { status: self.child.wait().expect("ends").code(), text: self.seen }
    }
}

/// Waits until a command on the node succeeds.
#[track_caller]
fn wait(lab: &Fixture, script: &str) {
    let waiting =
        format!("n=0; until {{ {script}; }}; do n=$((n + 1)); [ $n -lt 1200 ] || exit 1; sleep 0.1; done");
    let output = lab.sh_output("alpha", "root", &waiting);
    assert!(output.status.success(), "not so within two minutes: {script}");
}

/// Ends the connections of the login user from the node's side, as a network that breaks would.
const CUT: &str = "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in \
     *'kim@nott'[y]*) kill -9 ${p#/proc/};; esac; done";

/// A command in the machine's own network, run from outside: it works whatever the machine's sshd does.
fn in_network(lab: &Fixture, args: &[&str]) {
    let pid = lab.machine("alpha").pid.expect("is running").to_string();
    let status = std::process::Command::new("nsenter").args(["-t", &pid, "-n", "--"]).args(args).status();
    assert!(status.expect("nsenter runs").success(), "{args:?}");
}

/// The inventory of the lab with something in it replaced.
#[track_caller]
fn edit_inventory(lab: &Fixture, edit: impl FnOnce(&str) -> String) {
    let path = lab.dir().join("datahub.toml");
    let before = std::fs::read_to_string(&path).expect("readable");
    let after = edit(&before);
    assert_ne!(before, after, "nothing was replaced");
    std::fs::write(&path, after).expect("written");
}
