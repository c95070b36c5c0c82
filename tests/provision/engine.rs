//! What the engine promises: order between nodes, failures that stay where they are, interrupts, the node's lock,
//! the run's record.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::run::{Run, json, plain, read};
use crate::support::{self, Fixture};

const SERVER: &str = r#"
description = "What others wait for"

[vars.broken]
type = "bool"
default = false
doc = "Fail in the middle"

[vars.word]
type = "string"
default = "default"
doc = "What the file holds"

[[resource]]
file = { path = "/etc/server", content = "{{ word }}\n" }

[[resource]]
command = { name = "start", run = "sleep 2; touch /run/started", unless = "test -e /run/started" }

[[resource]]
when = "broken"
command = { name = "breaks", run = "echo 'no space left' >&2; exit 3", unless = "false" }
"#;

const EARLY: &str = r#"
description = "Waits for nobody"

[[resource]]
file = { path = "/etc/early", content = "early\n" }
"#;

const AGENT: &str = r#"
description = "Needs every server"
after = ["server"]

[[resource]]
file = { path = "/etc/agent", content = "agent\n" }
"#;

fn fleet(test: &str) -> Option<Fixture> {
    let mut lab = support::lab(test)?;
    lab.write("roles/server/role.toml", SERVER);
    lab.write("roles/early/role.toml", EARLY);
    lab.write("roles/agent/role.toml", AGENT);
    let nodes: &[(&str, &str, &[&str])] = &[
        ("a", "debian-13", &["server"]),
        ("b", "debian-13", &["early", "agent"]),
        ("c", "debian-13", &["early"]),
    ];
    lab.up(&support::inventory("kim", nodes), &["a", "b", "c"]);
    Some(lab)
}

/// Where in a run an event stands.
#[track_caller]
fn at(run: &Run, kind: &str, node: &str, role: &str) -> usize {
    let found = run.events.iter().position(|e| e["event"] == kind && e["node"] == node && e["role"] == role);
    found.unwrap_or_else(|| panic!("no {kind} of {role} on {node}: {}", run.text))
}

#[test]
fn roles_wait_for_other_nodes_and_failures_stay_where_they_are() {
    let Some(lab) = fleet("order") else { return };

    // The server breaks: what waits for it is skipped, and nothing else is.
    let broken = ["provision", "--all", "--set", "broken=true"];
    let run = json(&lab, &broken);
    run.ends_with(1).finished("c", 1, 0);
    let failure = run.failure("a");
    assert_eq!(failure["message"], "the change failed with status 3", "{}", run.text);
    assert_eq!(failure["resource"], "command breaks");
    assert_eq!(failure["output"], serde_json::json!(["no space left", "the command ended with status 3"]));
    assert!(failure["place"].as_str().expect("a place").ends_with("roles/server/role.toml:22"), "{failure}");
    let skipped = run.failure("b");
    assert_eq!(skipped["message"], "role agent was skipped: role server failed on a", "{}", run.text);
    assert_eq!(skipped["hint"], "mend a first, then run again");
    let skips: Vec<_> = run.of("node-skipped").map(|e| (e["node"].clone(), e["role"].clone())).collect();
    assert_eq!(skips, [("b".into(), "agent".into())]);
    assert_eq!(run.resources("changed", "b"), ["file /etc/early"]);
    lab.sh("b", "test -e /etc/early && test ! -e /etc/agent");
    let (code, out, said) = plain(&lab, &broken);
    assert_eq!(code, Some(1));
    let text = format!("{out}{said}");
    for part in [
        "command breaks",
        "no space left",
        "roles/server/role.toml:22",
        "role server failed on a",
        "mend a first",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // It is mended: the agent waits until the server is done, its node's other role does not.
    lab.sh("a", "rm /run/started /etc/server");
    lab.sh("b", "rm /etc/early");
    let run = json(&lab, &["provision", "--all", "--set", "word=set"]);
    run.ends_with(0).finished("a", 2, 0).finished("b", 2, 0).finished("c", 0, 0);
    let server = at(&run, "role-finished", "a", "server");
    assert!(server < at(&run, "role-started", "b", "agent"), "{}", run.text);
    assert!(at(&run, "role-finished", "b", "early") < server, "{}", run.text);
    assert!(at(&run, "waiting", "b", "agent") < server, "{}", run.text);
    assert_eq!(run.of("waiting").map(|e| e["on"].clone()).collect::<Vec<_>>(), ["server"]);
    assert_eq!(lab.sh("a", "cat /etc/server"), "set");

    // One place for two nodes: the one that waits gives its up.
    lab.sh("a", "rm /run/started");
    lab.sh("b", "rm /etc/agent");
    let run = json(&lab, &["provision", "--node", "b,a", "--forks", "1"]);
    // Without --set the default counts again.
    run.ends_with(0).finished("a", 2, 0).finished("b", 1, 0);
    assert_eq!(lab.sh("a", "cat /etc/server"), "default");

    // Only some roles.
    lab.sh("b", "rm /etc/agent /etc/early");
    let run = json(&lab, &["provision", "--all", "--role", "early"]);
    run.ends_with(0).finished("b", 1, 0);
    assert_eq!(run.resources("changed", "b"), ["file /etc/early"]);
    assert!(run.of("role-started").all(|e| e["role"] == "early"), "{}", run.text);
    lab.sh("b", "test ! -e /etc/agent");
}

const SLOW_ROLE: &str = r#"
description = "Takes its time"

[[resource]]
for_each = "['one', 'two', 'three']"
[resource.command]
name = "{{ item }}"
run = "echo begun >>/root/{{ item }}; sleep 4; touch /root/{{ item }}.done"
unless = "test -e /root/{{ item }}.done"

[[resource]]
notify = ["handled"]
file = { path = "/etc/slow", content = "slow\n" }

[[handler]]
name = "handled"
command = "echo run >>/root/handled"
"#;

fn slow(test: &str) -> Option<Fixture> {
    let mut lab = support::lab(test)?;
    lab.write("roles/slow/role.toml", SLOW_ROLE);
    lab.up(&support::inventory("kim", &[("n", "debian-13", &["slow"])]), &["n"]);
    Some(lab)
}

/// A run that is under way, its output up to the line with `text` read.
struct Started {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    read: String,
}

fn start(lab: &Fixture, args: &[&str], until: &str) -> Started {
    let mut command = lab.command(&[args, &["--format", "json"]].concat());
    command.env("USER", "kim").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut read = String::new();
    while !read.lines().last().is_some_and(|line| line.contains(until)) {
        assert_ne!(out.read_line(&mut read).expect("text"), 0, "no {until}: {read}");
    }
    Started { child, out, read }
}

impl Started {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs").success());
    }

    fn end(mut self) -> Run {
        let mut rest = self.read;
        self.out.read_to_string(&mut rest).expect("text");
        let mut output = self.child.wait_with_output().expect("it ends");
        output.stdout = rest.into_bytes();
        read(&output)
    }
}

const RUN: &[&str] = &["provision", "--node", "n"];

#[test]
fn one_interrupt_finishes_the_step() {
    let Some(lab) = slow("interrupt") else { return };
    let run = start(&lab, RUN, "\"step\":\"command one\"");
    lab.sh("n", "until test -e /root/one; do sleep 0.1; done");
    run.signal("INT");
    let run = run.end();
    run.ends_with(130);
    let (how, end) = run.end("n");
    assert_eq!((how, end["summary"]["changed"].as_u64()), ("interrupted", Some(1)), "{}", run.text);
    assert!(run.text.contains("finishing the running steps, Ctrl-C again stops now"), "{}", run.text);
    lab.sh("n", "test -e /root/one.done && test ! -e /root/two && test ! -e /etc/slow");

    // A second one stops at once. The step that was running goes on or not; it is not taken for done.
    let run = start(&lab, RUN, "\"step\":\"command two\"");
    std::thread::sleep(Duration::from_millis(500));
    run.signal("INT");
    std::thread::sleep(Duration::from_millis(500));
    let second = std::time::Instant::now();
    run.signal("INT");
    let run = run.end();
    run.ends_with(130);
    assert!(second.elapsed() < Duration::from_secs(2), "at once");
    assert_eq!(run.end("n").0, "interrupted");
    assert_eq!(run.resources("changed", "n"), [""; 0]);

    // The next run goes on: what is done is not done again.
    let run = json(&lab, RUN);
    run.ends_with(0);
    assert_eq!(run.end("n").0, "finished");
    assert_eq!(run.resources("changed", "n").last(), Some(&"file /etc/slow"));
    assert_eq!(lab.sh("n", "cat /root/one; cat /root/handled"), "begun\nrun");
    lab.sh("n", "test -e /root/two.done && test -e /root/three.done");
    json(&lab, RUN).ends_with(0).finished("n", 0, 0);
}

#[test]
fn a_node_is_changed_by_one_run_at_a_time() {
    let Some(lab) = slow("lock") else { return };
    let first = start(&lab, RUN, "\"step\":\"command one\"");
    // A dry run looks on and is not held up.
    json(&lab, &["plan", "--node", "n", "--detailed-exitcode"]).ends_with(2);
    let second = json(&lab, RUN);
    second.ends_with(1);
    let failure = second.failure("n");
    let message = failure["message"].as_str().expect("a text");
    assert!(message.starts_with("another run is changing this node: kim@"), "{message}");
    assert!(failure["hint"].as_str().expect("a hint").contains("its lock goes away with it"), "{failure}");
    first.end().ends_with(0).finished("n", 4, 1);
    assert_eq!(lab.sh("n", "cat /root/one /root/two /root/three /root/handled"), "begun\nbegun\nbegun\nrun");

    // A holder that is killed lets go, and its step is waited for, not begun twice.
    lab.sh("n", "rm /root/*");
    let dead = start(&lab, RUN, "\"step\":\"command one\"");
    lab.sh("n", "until test -e /root/one; do sleep 0.1; done");
    dead.signal("KILL");
    assert_eq!(dead.end().code, None);
    let next = json(&lab, RUN);
    next.ends_with(0);
    let begun = lab.sh("n", "cd /root; grep -c begun one two three");
    assert_eq!(begun, "one:1\ntwo:1\nthree:1", "{}", next.text);
}

/// As after a sleep of the operator's machine: the lock has gone meanwhile, and another run has come.
#[test]
fn a_run_that_has_lost_the_node_to_another_one_stops() {
    let Some(lab) = slow("lost") else { return };
    let first = start(&lab, RUN, "\"step\":\"command one\"");
    lab.sh("n", "until test -e /root/one; do sleep 0.1; done");
    lab.sh("n", "printf '%s\\n' ada@desk another-run 1 >/run/datahub/owner");
    let first = first.end();
    first.ends_with(1);
    let message = first.failure("n")["message"].to_string();
    assert!(message.contains("another one took the node: ada@desk"), "{message}");
    assert_eq!(first.failure("n")["resource"], "command two");
    lab.sh("n", "test -e /root/one.done && test ! -e /root/two");
    json(&lab, RUN).ends_with(0).finished("n", 3, 1);
}

#[test]
fn a_run_is_recorded_here_and_there() {
    let Some(lab) = slow("record") else { return };
    let run = start(&lab, RUN, "run-started").end();
    run.ends_with(0).finished("n", 4, 1);
    let id = run.events[0]["run"].as_str().expect("an id");

    let folder = lab.dir().join("home/.local/state/datahub/runs");
    let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
    let record = folder.join(format!("{id}.jsonl"));
    assert_eq!((mode(&folder), mode(&record)), (0o700, 0o600));
    let recorded: Vec<serde_json::Value> = std::fs::read_to_string(&record)
        .expect("readable")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(recorded.len(), run.events.len());
    assert_eq!(recorded[0]["owner"].as_str().map(|owner| owner.starts_with("kim@")), Some(true));
    assert_eq!(recorded.last(), run.events.last());

    let journal = lab.sh("n", "journalctl -q -t datahub -o cat");
    let lines: Vec<&str> = journal.lines().collect();
    let [line] = lines[..] else { panic!("one line: {journal}") };
    assert!(line.starts_with(&format!("run {id} by kim@")), "{line}");
    assert!(line.ends_with(": 4 changed, 1 handlers"), "{line}");
}
