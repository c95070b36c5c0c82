//! All seven machines of the shipped inventory: they converge side by side, equal ones are shown once, no secret is
//! printed, and one that is switched off holds up nobody.

use std::fmt::Write as _;
use std::path::Path;

use datahub::lab::Stop;

use crate::machines;
use crate::run::{json, plain};
use crate::support::{self, Fixture};

const NODES: &[&str] = &["orpi-0", "orpi-1", "orpi-2", "orpi-3", "amd-1", "nas", "laptop"];

/// A role of the test's own, on every node: it holds a secret, in a file and in a command that fails and talks.
const KEYED: &str = r#"
description = "Holds a secret"

[vars.broken]
type = "bool"
default = false
doc = "Fail, and print the secret"

[[resource]]
file = { path = "/etc/keyed", mode = "0600", content = "token = {{ secret('token') }}\n" }

[[resource]]
when = "broken"
command = { name = "talks", run = "cat /etc/keyed; cat /etc/keyed >&2; exit 1", unless = "false" }
"#;

const SECRET: &str = "correct-horse-battery-staple";

/// Nothing that was printed or written on this computer holds the secret.
#[track_caller]
fn keeps_the_secret(lab: &Fixture, printed: &str) {
    assert!(!printed.contains(SECRET), "{printed}");
    let records = lab.dir().join("home/.local/state/datahub/runs");
    let mut count = 0;
    for file in std::fs::read_dir(&records).expect("records").flatten() {
        count += 1;
        let text = std::fs::read_to_string(file.path()).expect("text");
        assert!(!text.contains(SECRET), "{}", file.path().display());
    }
    assert!(count > 0);
}

/// Runs with the secret at hand, in a format.
fn run_as(lab: &Fixture, args: &[&str]) -> (Option<i32>, String) {
    let output = lab.command(args).env("DATAHUB_SECRET_TOKEN", SECRET).output().expect("it runs");
    let mut text = String::from_utf8(output.stdout).expect("UTF-8");
    let _ = write!(text, "{}", String::from_utf8(output.stderr).expect("UTF-8"));
    assert!(!text.contains('\u{1b}'), "{text}");
    (output.status.code(), text)
}

#[test]
fn fleet() {
    let Some(mut lab) = support::lab("fleet") else { return };
    lab.write("roles/keyed/role.toml", KEYED);
    let inventory = machines().replace("roles = [\"base\"]", "roles = [\"base\", \"keyed\"]");
    lab.up(&inventory, NODES);

    let dry = ["provision", "--all", "--dry-run", "--detailed-exitcode"];
    let (code, text) = run_as(&lab, &dry);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("Plan: 56 changes on 7 nodes, 7 handlers, 7 unknown. Nothing was changed."),
        "{text}"
    );
    assert!(text.contains("differs (secret)"), "{text}");
    // What each node's hosts file lacks is nearly the same: it is shown once, for all of them.
    let shared = format!("{}: the same 8 changes, 1 handler, 1 unknown\n", NODES.join(", "));
    assert!(text.contains(&shared), "{text}");
    assert_eq!(text.matches("+++ /etc/hosts\n").count(), 1, "{text}");
    assert_eq!(text.matches("‹not on orpi-1›\n").count(), 1, "{text}");
    keeps_the_secret(&lab, &text);

    // All converge; the record and every format keep the secret, also when a command prints it.
    let (code, text) = run_as(&lab, &["provision", "--all", "--verbose"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("7 nodes: 7 converged with"), "{text}");
    keeps_the_secret(&lab, &text);
    for node in NODES {
        assert_eq!(lab.sh(node, "cat /etc/keyed; stat -c %a /etc/keyed"), format!("token = {SECRET}\n600"));
        let hosts = lab.sh(node, "cat /etc/hosts");
        for other in NODES {
            assert!(hosts.contains(&lab.address(other)), "{node} knows {other}: {hosts}");
        }
        // Nothing of the secret is left where it passed through.
        let left = lab.sh_output(node, "root", &format!("grep -rl {SECRET} /run /tmp /var /etc 2>/dev/null"));
        assert_eq!(String::from_utf8_lossy(&left.stdout), "/etc/keyed\n", "{node}");
    }
    for format in ["text", "json", "markdown"] {
        let (code, text) = run_as(&lab, &["provision", "--all", "--set", "broken=true", "--format", format]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("command talks"), "{text}");
        keeps_the_secret(&lab, &text);
    }

    // The secret is known to no run from here on: a plan says which is missing, and where to put it.
    let (code, _, said) = plain(&lab, &dry);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("DATAHUB_SECRET_TOKEN") && said.contains("secrets/token.age"), "{said}");

    lab.write("datahub.toml", &keep_secret_out(lab.dir()));
    let run = json(&lab, &["provision", "--all"]);
    run.ends_with(0);
    for node in NODES {
        run.finished(node, 0, 0);
    }
    one_is_off(&lab);
}

/// The inventory without the role that needs the secret.
fn keep_secret_out(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("datahub.toml")).expect("there");
    assert!(text.contains("\"keyed\""));
    text.replace(", \"keyed\"", "").replace("\"keyed\"", "")
}

/// One machine is off: the others are mended.
fn one_is_off(lab: &Fixture) {
    lab.lab().stop("orpi-2", Stop::PowerCut).expect("switched off");
    let others: Vec<&str> = NODES.iter().copied().filter(|node| *node != "orpi-2").collect();
    let drift = |shell: &str| others.iter().for_each(|node| assert_eq!(lab.sh(node, shell), ""));
    drift("rm /etc/apt/apt.conf.d/20auto-upgrades");
    // Equal nodes are shown once, with all their names.
    let (code, out, _) = plain(lab, &["plan", "--node", &others.join(",")]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with(&format!("{}: the same 1 change\n", others.join(", "))), "{out}");
    assert_eq!(out.matches("file /etc/apt/apt.conf.d/20auto-upgrades").count(), 1, "{out}");
    let all = ["provision", "--all", "--connect-timeout", "5"];
    let run = json(lab, &all);
    run.ends_with(1);
    for node in &others {
        run.finished(node, 1, 0);
        assert_eq!(run.resources("changed", node), ["file /etc/apt/apt.conf.d/20auto-upgrades"]);
    }
    let failure = run.failure("orpi-2");
    let message = failure["message"].as_str().expect("a text");
    assert!(message.contains(&lab.address("orpi-2")), "where: {failure}");
    assert!(failure["hint"].is_string(), "what to do: {failure}");

    drift("chmod 0600 /etc/apt/apt.conf.d/20auto-upgrades");
    let (code, out, said) = plain(lab, &all);
    assert_eq!(code, Some(1), "{out}{said}");
    let text = format!("{out}{said}");
    let unreachable = format!("orpi-2: cannot reach {}:22: ", lab.address("orpi-2"));
    assert!(text.contains(&unreachable), "{text}");
    assert!(text.contains("1 failed") && text.contains("6 converged"), "{text}");

    // Switched on again it is as it was: what it missed was nobody's doing.
    lab.lab().start("orpi-2").expect("switched on");
    let run = json(lab, &["provision", "--all"]);
    run.ends_with(0);
    for node in NODES {
        run.finished(node, 0, 0);
    }
}
