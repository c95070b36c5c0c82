//! The wrong machine, the wrong key, the wrong rights: refused before anything is changed, with what to do.

use std::io::Write as _;
use std::process::Stdio;

use super::{FILE, INVENTORY, PROVISION, alpha, converges, edit_inventory, fails, role, run};
use crate::support::{self, Fixture};

/// Nothing on the node has been touched.
#[track_caller]
fn untouched(lab: &Fixture) {
    assert_eq!(lab.sh("alpha", "ls -d /etc/tested /run/datahub /var/lib/datahub 2>/dev/null || true"), "");
}

#[test]
fn a_wrong_machine_is_refused_before_anything_is_changed() {
    let Some(mut lab) = support::lab("wrong machine") else { return };
    role(&lab, FILE);
    lab.up(INVENTORY, &["alpha", "beta"]);
    let good = std::fs::read_to_string(lab.dir().join("datahub.toml")).expect("readable");
    let (arch, os) = (lab.sh("alpha", "dpkg --print-architecture"), "debian-13".to_owned());
    let other = if arch == "arm64" { "amd64" } else { "arm64" };
    for (right, wrong) in [
        (format!("arch = \"{arch}\""), format!("arch = \"{other}\"")),
        (format!("os = \"{os}\""), "os = \"debian-12\"".to_owned()),
    ] {
        edit_inventory(&lab, |text| text.replacen(&right, &wrong, 1));
        let actual = right.split('"').nth(1).expect("quoted").to_owned();
        fails(&lab, &[&format!("the inventory says {wrong} for alpha"), &actual, "hint", "or `host`"]);
        untouched(&lab);
        std::fs::write(lab.dir().join("datahub.toml"), &good).expect("written");
    }

    // The address leads to another node of the inventory.
    let (a, b) = (lab.address("alpha"), lab.address("beta"));
    let key = |node: &str| {
        let key = lab.sh(node, "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub");
        assert!(key.starts_with("ssh-ed25519 "), "{key}");
        key
    };
    let (key_a, key_b) = (key("alpha"), key("beta"));
    let swapped = |text: &str| {
        let text = text.replace(&a, "@A@").replace(&b, &a).replace("@A@", &b);
        text.replace(&key_a, "@K@").replace(&key_b, &key_a).replace("@K@", &key_b)
    };
    edit_inventory(&lab, swapped);
    fails(&lab, &["host-beta", "which is the node beta and not alpha", "hint"]);
    for node in ["alpha", "beta"] {
        assert_eq!(lab.sh(node, "ls -d /etc/tested /run/datahub 2>/dev/null || true"), "", "{node}");
    }
    std::fs::write(lab.dir().join("datahub.toml"), &good).expect("written");
    converges(&lab);
}

#[test]
fn a_host_key_that_is_not_the_known_one_is_refused() {
    let Some(lab) = alpha("host key", FILE) else { return };
    let address = lab.address("alpha");
    let old = lab.sh("alpha", "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub");
    let anew = "cd /etc/ssh && rm ssh_host_* && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && \
                cut -d' ' -f1,2 ssh_host_ed25519_key.pub && ssh-keygen -lf ssh_host_ed25519_key.pub | cut -d' ' -f2 && systemctl restart ssh";
    let said = lab.sh("alpha", anew);
    let (key, print) = said.split_once('\n').expect("two lines");
    assert_ne!(key, old);

    // Pinned in the inventory.
    let changed = ["has changed", print, "SHA256:", "own console"];
    fails(&lab, &changed).has(&["`host_key` in the inventory"]).lacks(&["ssh-keygen -R"]);
    // Known by known_hosts.
    let pinned = std::fs::read_to_string(lab.dir().join("datahub.toml")).expect("readable");
    edit_inventory(&lab, |text| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("host_key =")).collect();
        assert!(kept.len() < text.lines().count() || text.contains("host_key"), "{text}");
        kept.join("\n") + "\n"
    });
    let known = |line: &str| lab.write("home/.ssh/known_hosts", line);
    known(&format!("{address} {old}\n"));
    fails(&lab, &changed).has(&["ssh-keygen -R", &address]);
    // Known by nobody: strict, then accepted and written down.
    known("");
    fails(&lab, &["is not known", print, "accept-new", "`host_key` in the inventory"]);
    assert_eq!(std::fs::read_to_string(lab.dir().join("home/.ssh/known_hosts")).expect("readable"), "");

    // What the messages say to do, done.
    std::fs::write(lab.dir().join("datahub.toml"), pinned.replace(&old, key)).expect("written");
    run(&lab, PROVISION).status(0);
    run(&lab, PROVISION).status(0).has(&["0 changes"]);
}

/// Runs a command of datahub on a terminal of its own, typing `typed` once it has asked.
fn typing(lab: &Fixture, args: &[&str], typed: &str) -> (Option<i32>, String) {
    let inner = lab.command(args);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let words = datahub::shell::quote_all(words.map(|word| word.to_str().expect("UTF-8")));
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &words, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.current_dir(lab.dir()).spawn().expect("script runs");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(format!("{typed}\n").as_bytes()).expect("typed");
    stdin.flush().expect("typed");
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(25));
        drop(stdin);
    });
    let output = child.wait_with_output().expect("ends");
    drop(waiting);
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn without_the_right_to_become_root_nothing_is_tried() {
    let Some(lab) = alpha("no sudo", FILE) else { return };
    let rule = lab.sh("alpha", "cat /etc/sudoers.d/90-datahub-lab; rm /etc/sudoers.d/90-datahub-lab");
    fails(&lab, &["kim", "may not become root", "sudoers"]).has(&["hint"]);
    untouched(&lab);

    lab.sh("alpha", "echo 'kim ALL=(ALL) ALL' >/etc/sudoers.d/kim; echo kim:right-horse | chpasswd");
    fails(&lab, &["kim may not become root", "sudo wants a password", "--ask-become-pass"]);
    untouched(&lab);
    let asking = [PROVISION, &["--ask-become-pass"]].concat();
    run(&lab, &asking).has(&["needs a terminal"]).status(64);

    let (status, text) = typing(&lab, &asking, "wrong-horse");
    assert!(status == Some(1) && text.contains("the password is wrong"), "{status:?} {text}");
    untouched(&lab);
    let (status, text) = typing(&lab, &asking, "right-horse");
    assert_eq!(status, Some(0), "{text}");
    assert!(!text.contains("horse"), "{text}");
    assert_eq!(lab.sh("alpha", "cat /etc/tested"), "tested");

    lab.sh(
        "alpha",
        &format!("rm /etc/sudoers.d/kim /etc/tested; printf '%s\\n' '{rule}' >/etc/sudoers.d/90-datahub-lab"),
    );
    converges(&lab);
}
