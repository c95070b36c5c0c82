//! A change of sshd's settings that locks the login user out: the node takes it back.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::run::{json, plain};
use crate::support::{self, Fixture};

const ROLE: &str = r#"
description = "Refuses the very user that it logs in as"

[[resource]]
notify = ["sshd"]
file = { path = "/etc/ssh/sshd_config.d/05-door.conf", content = "DenyUsers datahub\n", validate = "sshd -t -f {}" }

[[handler]]
name = "sshd"
reload = "ssh.service"
undo = "rm -f /etc/ssh/sshd_config.d/05-door.conf"
"#;

const RUN: &[&str] = &["provision", "--all"];

/// Whether the login that datahub uses works, by plain ssh. A reload may refuse logins for a moment.
fn login_works(lab: &Fixture) -> bool {
    lab.sh_output("n", "datahub", "true").status.success()
}

#[track_caller]
fn is_as_before(lab: &Fixture) {
    // sshd refuses connections for a moment while it is reloaded.
    let started = Instant::now();
    while !login_works(lab) {
        assert!(started.elapsed() < Duration::from_secs(10), "the login user gets in");
        std::thread::sleep(Duration::from_millis(200));
    }
    lab.sh("n", "test ! -e /etc/ssh/sshd_config.d/05-door.conf");
    lab.sh("n", "sshd -T -C user=datahub,host=x,addr=192.0.2.1 | grep -iq denyusers && exit 1; true");
    // Nothing is left that would do it again: nothing to take back, no pending restart.
    assert_eq!(lab.sh("n", "ls /run/datahub/undo-*/* 2>/dev/null || true"), "");
    assert_eq!(lab.sh("n", "find /var/lib/datahub -type f 2>/dev/null || true"), "");
}

#[test]
fn ssh_lock_out_is_taken_back() {
    let Some(mut lab) = support::lab("ssh lock out") else { return };
    lab.write("roles/door/role.toml", ROLE);
    lab.up(&support::inventory("datahub", &[("n", "debian-13", &["door"])]), &["n"]);
    assert!(login_works(&lab));
    let boot = lab.sh("n", "cat /proc/sys/kernel/random/boot_id");

    let run = json(&lab, RUN);
    run.ends_with(1);
    let failure = run.failure("n");
    let message = failure["message"].as_str().expect("a text");
    assert!(message.starts_with("after handler `sshd` a new login no longer worked"), "{message}");
    assert!(message.contains("so its change was taken back"), "{message}");
    assert!(failure["hint"].as_str().expect("a hint").contains("the node is as it was before"), "{failure}");
    assert!(failure["place"].as_str().expect("a place").contains("roles/door/role.toml:"), "{failure}");
    is_as_before(&lab);

    // The next run says the same, for people too: nothing was half done.
    json(&lab, &["plan", "--all", "--detailed-exitcode"]).ends_with(2);
    let (code, out, said) = plain(&lab, RUN);
    assert_eq!(code, Some(1), "{out}{said}");
    assert!(format!("{out}{said}").contains("a new login no longer worked"), "{out}{said}");
    is_as_before(&lab);

    dies_before_the_confirmation(&lab);
    assert_eq!(lab.sh("n", "cat /proc/sys/kernel/random/boot_id"), boot, "without a reboot");
}

/// datahub is killed while the change stands unconfirmed: the node takes it back by itself.
fn dies_before_the_confirmation(lab: &Fixture) {
    let mut command = lab.command(&[RUN, &["--format", "json"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    for line in out.lines() {
        let line = line.expect("text");
        if line.contains("\"event\":\"step\"") && line.contains("reload ssh.service") {
            break;
        }
        assert!(!line.contains("run-finished"), "the reload was never reached");
    }
    let started = Instant::now();
    while login_works(lab) {
        assert!(started.elapsed() < Duration::from_secs(10), "the reload locks the user out");
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    lab.sh("n", "test -e /etc/ssh/sshd_config.d/05-door.conf");

    while !login_works(lab) {
        assert!(started.elapsed() < Duration::from_secs(90), "the node does not take it back");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(started.elapsed() > Duration::from_secs(40), "nobody but the node itself did it");
    std::thread::sleep(Duration::from_secs(1));
    is_as_before(lab);
    // And a run, which finds the lock free.
    let run = json(lab, RUN);
    assert!(run.failure("n")["message"].as_str().expect("a text").contains("taken back"), "{}", run.text);
}
